"""Lowered graphs as text, for dumps."""

from __future__ import annotations

from bessemer.lower.items import HostItem, KernelItem, Lowered


def lowered_text(lowered: Lowered) -> str:
    """An item a line: what it computes, of what types, from what, and why it is a host step."""
    lines = []
    for item in lowered.items:
        if isinstance(item, KernelItem):
            outs = ", ".join(f"%{o}: {lowered.types[o]}" for o in item.outputs)
            if item.problem.into is not None:
                outs += f" from column {item.problem.into.start}"
            ins = ", ".join(f"%{o}" for o in item.operands)
            lines.append(f"kernel {outs} = {'+'.join(n.op for n in item.nodes)}({ins})")
        elif isinstance(item, HostItem):
            lines.append(f"host   {', '.join(item.node.outputs)} = {item.node.op}: {item.why}")
        else:
            lines.append(str(item))
    return "\n".join(lines)
