"""Choices as text, for dumps."""

from __future__ import annotations

from bessemer.core.dim import substitute
from bessemer.kernels.base import Problem
from bessemer.tune.in_place import Choices


def choices_text(choices: Choices) -> str:
    """A variant a line: the problem at its opt shape, the kernel, its time alone, and the shapes that it is for."""
    def typical(problem: Problem) -> str:
        env = {k: r.typical for k, r in problem.ranges}
        return ", ".join(f"{o.type.dtype}{[substitute(d, env) for d in o.type.shape]}" for o in problem.operands)

    lines = []
    for problem, choice, shapes in ((p, v.choice, v.shapes) for p, found in choices.items() for v in found):
        time = "not timed" if choice.time_us is None else f"{choice.time_us:.2f} us"
        where = f" at {shapes}" if shapes else ""
        lines.append(f"{problem.op}({typical(problem)}): {choice.tactic} {dict(choice.config)} {time}{where}")
    return "\n".join(sorted(lines))
