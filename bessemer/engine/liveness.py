"""Follows a program through its arena byte by byte: which tensor wrote each byte last.

Every read must find what it is meant to read: bytes written by the tensor itself, or, for a view, by the tensor that it
looks into or by those that look into it. A byte that another live tensor or a kernel's scratch took in between is an
overlap. Branches only go forward, so the order of the steps is also the order of time, as it was for the planner.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from bessemer.engine.program import Program, Step, Tensor

NOBODY = -1
SCRATCH = -2


class Owners:
    """Who wrote each byte last, as runs of bytes: run k is [starts[k], starts[k + 1])."""

    def __init__(self) -> None:
        self.starts: list[int] = [0]
        self.owners: list[int] = [NOBODY]

    def write(self, start: int, end: int, owner: int) -> None:
        """Bytes [start, end) are `owner`'s."""
        if start < end:
            first, last = self._cut(start), self._cut(end)
            self.starts[first:last] = [start]
            self.owners[first:last] = [owner]

    def read(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The runs of [start, end) as (start, end, owner)."""
        k = bisect_right(self.starts, start) - 1
        while start < end:
            stop = min(end, self.starts[k + 1]) if k + 1 < len(self.starts) else end
            yield start, stop, self.owners[k]
            start, k = stop, k + 1

    def _cut(self, at: int) -> int:
        """The number of the run that starts at `at`, made by splitting where there is none."""
        k = bisect_right(self.starts, at) - 1
        if self.starts[k] != at:
            k += 1
            self.starts.insert(k, at)
            self.owners.insert(k, self.owners[k - 1])
        return k


def broken_read(program: Program) -> str | None:
    """What the first step that reads bytes that are not its tensor's does, or None where all is well."""
    owners = Owners()
    written: set[int] = set()
    for number, step in enumerate(program.steps):
        where = f"step {number} ({step.name})"
        for n in step.reads:
            problem = _check_read(program.tensors, n, owners, written)
            if problem is not None:
                return f"{where} reads tensor {n} ({program.tensors[n].name}) {problem}"
        problem = _overlap_inside(program.tensors, step)
        if problem is not None:
            return f"{where} {problem}"
        offset, size = step.workspace
        owners.write(offset, offset + size, SCRATCH)
        for n in step.writes:
            t = program.tensors[n]
            written.add(n)
            if t.space == "arena":
                owners.write(t.offset, t.offset + t.nbytes, n)
    return None


def _check_read(tensors: Sequence[Tensor], n: int, owners: Owners, written: set[int]) -> str | None:
    t = tensors[n]
    if t.space != "arena":
        return None
    end = t.offset + t.nbytes
    for start, stop, owner in owners.read(t.offset, end):
        if owner == SCRATCH:
            return f"after a kernel's workspace took its bytes {start} to {stop}"
        if owner == NOBODY:
            return "before anything writes it"
        other = tensors[owner]
        viewed = n not in written and (_inside(t, other) or _inside(other, t))
        if owner != n and not viewed:
            return f"after tensor {owner} ({other.name}) took its bytes {start} to {stop}"
    return None


def _inside(inner: Tensor, outer: Tensor) -> bool:
    return outer.offset <= inner.offset and inner.offset + inner.nbytes <= outer.offset + outer.nbytes


def _overlap_inside(tensors: Sequence[Tensor], step: Step) -> str | None:
    """Two regions of one step that share bytes, at least one of which it writes."""

    def regions(numbers: Iterable[int]) -> list[tuple[int, int, str]]:
        found = [(n, tensors[n]) for n in dict.fromkeys(numbers) if tensors[n].space == "arena" and tensors[n].nbytes]
        return [(t.offset, t.offset + t.nbytes, f"tensor {n} ({t.name})") for n, t in found]

    changed = regions(step.writes)
    kept = regions(n for n in step.reads if n not in step.writes)
    if step.workspace[1]:
        changed.append((step.workspace[0], sum(step.workspace), "its workspace"))
    for k, (start, end, name) in enumerate(changed):
        for other_start, other_end, other in (*changed[k + 1 :], *kept):
            if start < other_end and other_start < end:
                return f"writes {name} over {other}"
    return None
