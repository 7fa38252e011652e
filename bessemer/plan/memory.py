"""Where tensors live: offsets in one arena, by liveness.

Offsets are chosen largest tensor first, at the lowest place that is free for its whole life, which stays within a few
per cent of the largest sum of live tensors on real networks. `prove_disjoint` checks the result pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A block: its size in bytes, and the first and last step at which it is in use."""

    name: str
    nbytes: int
    first: int
    last: int

    def overlaps(self, other: Interval) -> bool:
        return self.first <= other.last and other.first <= self.last


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to the arena's alignment."""
    return -(-nbytes // ALIGN) * ALIGN


def place(blocks: Sequence[Interval]) -> tuple[dict[str, int], int]:
    """Offsets by name, and the arena's size."""
    offsets: dict[str, int] = {}
    placed: list[Interval] = []
    size = 0
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name)):
        taken = sorted((offsets[p.name], offsets[p.name] + aligned(p.nbytes)) for p in placed if p.overlaps(block))
        offset = _first_gap(taken, aligned(block.nbytes))
        offsets[block.name] = offset
        placed.append(block)
        size = max(size, offset + aligned(block.nbytes))
    prove_disjoint(blocks, offsets)
    return offsets, size


def _first_gap(taken: Sequence[tuple[int, int]], nbytes: int) -> int:
    position = 0
    for start, end in taken:
        if start - position >= nbytes:
            return position
        position = max(position, end)
    return position


def peak(blocks: Sequence[Interval]) -> int:
    """The largest sum of sizes alive at one step: no plan can need less."""
    events: dict[int, int] = {}
    for b in blocks:
        events[b.first] = events.get(b.first, 0) + aligned(b.nbytes)
        events[b.last + 1] = events.get(b.last + 1, 0) - aligned(b.nbytes)
    live = top = 0
    for step in sorted(events):
        live += events[step]
        top = max(top, live)
    return top


def prove_disjoint(blocks: Sequence[Interval], offsets: dict[str, int]) -> None:
    """RuntimeError where two blocks that are alive together share a byte."""
    by_offset = sorted(blocks, key=lambda b: offsets[b.name])
    for k, a in enumerate(by_offset):
        end = offsets[a.name] + a.nbytes
        for b in by_offset[k + 1 :]:
            if offsets[b.name] >= end:
                break
            if a.overlaps(b) and b.nbytes:
                raise RuntimeError(f"the memory plan lets {a.name} and {b.name} overlap")
