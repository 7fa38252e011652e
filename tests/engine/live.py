"""The largest sum of live tensors, from the steps of a program alone: what the arena is held against."""

from __future__ import annotations

from bessemer.engine.program import Program


def largest_live_sum(program: Program) -> int:
    """Bytes. A tensor is live from the first step that touches it to the last; views count once with what they view."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for k, step in enumerate(program.steps):
        for n in (*step.reads, *step.writes):
            if program.tensors[n].space == "arena":
                first.setdefault(n, k)
                last[n] = k
    return max((_live(program, k, first, last) for k in range(len(program.steps))), default=0)


def _live(program: Program, k: int, first: dict[int, int], last: dict[int, int]) -> int:
    tensors = [program.tensors[n] for n in first if first[n] <= k <= last[n]]
    offset, size = program.steps[k].workspace
    total, end = 0, 0
    for start, stop in sorted([*((t.offset, t.offset + t.nbytes) for t in tensors), (offset, offset + size)]):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total
