"""Sums of which several programs compute a part each: the memory for it, see templates/parts.py."""

from __future__ import annotations

from bessemer.core.dim import Dim
from bessemer.kernels.base import COUNTERS, MOST_COUNTERS, WORKSPACE, Problem, Ptr
from bessemer.kernels.gpu.shapes import Tiling, upper

SPLITS = (2, 3, 4, 6, 8, 12, 16)


def part_args(t: Tiling) -> tuple[Ptr, Ptr]:
    """The kernel's arguments for the parts and the counters; without parts it takes any pointers."""
    return (Ptr(WORKSPACE), Ptr(COUNTERS)) if t.split > 1 else (Ptr(0), Ptr(0))


def part_memory(t: Tiling, tiles: Dim) -> tuple[Dim, Dim]:
    """Bytes of workspace, and the number of counters, for so many tiles."""
    return (tiles * (t.bm * t.bn * t.split * 4), tiles) if t.split > 1 else (0, 0)


def countable(problem: Problem, tiles: Dim) -> bool:
    """Whether there are never more tiles than counters."""
    return upper(problem, tiles) <= MOST_COUNTERS
