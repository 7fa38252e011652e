"""Where tensors live: offsets in one arena, by liveness.

Blocks are placed one by one, each at the lowest place that is free for its whole life. Largest first is nearly always
within a per cent of the largest sum of live tensors; where it is not, other orders are tried. `prove_disjoint` checks
the result pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A block: its size in bytes, and the first and last step at which it is in use."""

    name: str
    nbytes: int
    first: int
    last: int

    @property
    def area(self) -> int:
        """Bytes times steps."""
        return self.nbytes * (self.last - self.first + 1)

    def overlaps(self, other: Interval) -> bool:
        return self.first <= other.last and other.first <= self.last


ORDERS: tuple[Callable[[Interval], tuple[int | str, ...]], ...] = (
    lambda b: (-b.nbytes, b.first, b.name),
    lambda b: (-b.area, b.first, b.name),
    lambda b: (b.first - b.last, -b.nbytes, b.first, b.name),
    lambda b: (b.first, -b.nbytes, b.name),
)
ENOUGH = 1.01  # arena over peak at which no better order is looked for
ROUNDS = 64
WORK = 4_000_000  # pairs of blocks looked at while improving: rounds become fewer as programs become long


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to the arena's alignment."""
    return -(-nbytes // ALIGN) * ALIGN


def place(blocks: Sequence[Interval]) -> tuple[dict[str, int], int]:
    """Offsets by name, and the arena's size: the best of several orders, improved while it is far from the peak."""
    least = peak(blocks)
    best: tuple[int, dict[str, int], list[Interval]] | None = None
    for order in ORDERS:
        ordered = sorted(blocks, key=order)
        offsets, size = _in_order(ordered)
        if best is None or size < best[0]:
            best = size, offsets, ordered
        if size <= least * ENOUGH:
            break
    assert best is not None
    size, offsets = _promoted(*best, least)
    prove_disjoint(blocks, offsets)
    return offsets, size


def _in_order(blocks: Sequence[Interval]) -> tuple[dict[str, int], int]:
    """Each block at the lowest place that is free for its whole life, in the given order."""
    offsets: dict[str, int] = {}
    placed: list[Interval] = []
    size = 0
    for block in blocks:
        taken = sorted((offsets[p.name], offsets[p.name] + aligned(p.nbytes)) for p in placed if p.overlaps(block))
        offset = _first_gap(taken, aligned(block.nbytes))
        offsets[block.name] = offset
        placed.append(block)
        size = max(size, offset + aligned(block.nbytes))
    return offsets, size


def _promoted(size: int, offsets: dict[str, int], ordered: list[Interval], least: int) -> tuple[int, dict[str, int]]:
    """Better orders: whatever sticks out highest is placed first the next time."""
    best = size, offsets
    for _ in range(min(ROUNDS, WORK // max(1, len(ordered) ** 2))):
        if best[0] <= least * ENOUGH:
            break
        top = max(ordered, key=lambda b: (offsets[b.name] + aligned(b.nbytes), b.nbytes, b.name))
        ordered = [top, *(b for b in ordered if b is not top)]
        offsets, size = _in_order(ordered)
        if size < best[0]:
            best = size, offsets
    return best


def _first_gap(taken: Sequence[tuple[int, int]], nbytes: int) -> int:
    position = 0
    for start, end in taken:
        if start - position >= nbytes:
            return position
        position = max(position, end)
    return position


def share(blocks: Sequence[Interval]) -> dict[str, int]:
    """Allocations by name, for blocks whose sizes in use are not known yet: blocks alive together have different ones.

    Largest first, as it is at the sizes given here, each into the first allocation that is free for its whole life: so
    blocks of about one size meet, and an allocation that is as large as the largest block in it wastes little."""
    found: dict[str, int] = {}
    members: list[list[Interval]] = []
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first, b.name)):
        free = (k for k, held in enumerate(members) if not any(block.overlaps(b) for b in held))
        number = next(free, len(members))
        if number == len(members):
            members.append([])
        members[number].append(block)
        found[block.name] = number
    return found


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
