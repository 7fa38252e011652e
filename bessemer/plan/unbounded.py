"""What a program cannot plan for, since a dimension of an input has no upper end."""

from __future__ import annotations

from bessemer.core.dim import symbols
from bessemer.engine.program import Program


def unbounded_notes(program: Program) -> list[str]:
    """A line for each dimension of an input to which nobody gave an upper end: where it is, what it costs, the fix."""
    notes = []
    for name, symbol in program.symbols.items():
        if symbol.range.bounded or symbol.input < 0:
            continue
        own = {t.offset for t in program.tensors if t.space == "dynamic" and any(name in symbols(d) for d in t.shape)}
        blocks = f"{len(own)} block{'s' if len(own) > 1 else ''}"
        if own:
            notes.append(
                f"input {program.tensors[program.inputs[symbol.input]].name!r}, dimension {symbol.axis} ({name}) has "
                f"no upper end: no memory is planned for what it sizes, which gets {blocks} while running; "
                "give the greatest size in a profile (--max-shapes), or a fixed one (--shapes)"
            )
    return notes
