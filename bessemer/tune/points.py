"""Where a problem with symbolic sizes is tuned beside its opt shape, and which shapes take the kernel of which point.

Every symbol that an input binds gets a few values: its ends, its opt, and geometric means of the widest gaps. The grid
of these values cuts the range of shapes into boxes, one around each point, with borders at geometric means. Boxes with
one kernel merge, so that a kernel is taken by comparing a few sizes, once per shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bessemer.core.dim import Dim, floordiv, minimum, sym
from bessemer.core.interval import UNBOUNDED, Range
from bessemer.kernels.base import Problem

FAR = 8  # times the opt value: where the last point is if nobody gave an upper end
T = TypeVar("T")
Box = tuple[tuple[str, int, int], ...]  # symbol, least and greatest value


@dataclass(frozen=True)
class Point:
    """The problem with its opt shape at this point, and the shapes around it."""

    problem: Problem
    box: Box


def points_of(problem: Problem, symbols: Collection[str], limit: int) -> list[Point]:
    """At most `limit` points, that of the opt shape among them; it alone where nothing varies.

    `symbols` are those that inputs bind: the others are not known when a kernel is taken."""
    ranges = {name: r for name, r in problem.ranges if name in symbols and r.lo < r.hi}
    each = int(limit ** (1 / len(ranges)) + 1e-9) if ranges else 1
    if each < 2:
        return [Point(problem, ())]
    cells = [[(name, *cell) for cell in _cells(r, each)] for name, r in ranges.items()]
    return [
        Point(_at(problem, {name: at for name, at, _, _ in chosen}), tuple((n, lo, hi) for n, _, lo, hi in chosen))
        for chosen in itertools.product(*cells)
    ]


def _at(problem: Problem, values: Mapping[str, int]) -> Problem:
    """The problem with other opt values; itself where they are its own."""
    if all(r.typical == values.get(name, r.typical) for name, r in problem.ranges):
        return problem
    moved = tuple((name, replace(r, opt=values.get(name, r.opt))) for name, r in problem.ranges)
    return replace(problem, ranges=moved)


def _cells(r: Range, count: int) -> list[tuple[int, int, int]]:
    """(point, least, greatest) of each interval of a symbol."""
    found = _values(r, count)
    ends = [math.isqrt(max(1, a) * b) for a, b in itertools.pairwise(found)]
    return list(zip(found, [r.lo, *(e + 1 for e in ends)], [*ends, r.hi], strict=True))


def _values(r: Range, count: int) -> list[int]:
    """At most `count` values: the opt, the ends (the farther one first), then the middles of the widest gaps."""
    opt = r.typical
    low, high = max(1, r.lo), r.hi if r.bounded else max(r.lo, min(r.hi, FAR * opt))

    def rounded(value: int) -> int:
        up = -(-value // r.multiple) * r.multiple
        return up if up <= high else value // r.multiple * r.multiple

    ends = sorted({rounded(low), rounded(high)} - {opt}, key=lambda v: -abs(math.log(max(1, v) / max(1, opt))))
    found = sorted([opt, *ends[: count - 1]])
    while len(found) < count:
        gaps = [(b / max(1, a), a, b) for a, b in itertools.pairwise(found)]
        wide = [(ratio, m) for ratio, a, b in gaps if a < (m := rounded(math.isqrt(max(1, a) * b))) < b]
        if not wide or max(wide)[0] < 4:  # a kernel serves sizes that are so near
            break
        found = sorted([*found, max(wide)[1]])
    return found


def merged(boxes: Mapping[Box, T]) -> list[tuple[Box, T]]:
    """Larger boxes with the same values: each grows along one symbol after the other while its neighbours agree."""
    axes = [sorted(set(cuts)) for cuts in zip(*boxes)]
    left = {tuple(axis.index(cut) for axis, cut in zip(axes, box)): value for box, value in boxes.items()}
    out: list[tuple[Box, T]] = []
    while left:
        first = min(left)
        value, last = left[first], list(first)

        def cells(low: Sequence[int], high: Sequence[int]) -> list[tuple[int, ...]]:
            return list(itertools.product(*(range(a, b + 1) for a, b in zip(low, high))))

        for k in range(len(axes)):
            beyond = [*last[:k], last[k] + 1, *last[k + 1 :]]
            while all(c in left and left[c] == value for c in cells([*first[:k], beyond[k], *first[k + 1 :]], beyond)):
                last[k], beyond[k] = beyond[k], beyond[k] + 1
        for cell in cells(first, last):
            del left[cell]
        ends = [(axis[a], axis[b]) for axis, a, b in zip(axes, first, last)]
        out.append((tuple((name, low, high) for (name, low, _), (_, _, high) in ends), value))
    return out


def inside(box: Box, ranges: Mapping[str, Range]) -> Dim:
    """1 for shapes in the box and 0 for others, as a dim: a grid times it launches nothing outside."""
    out: Dim = 1
    for name, low, high in box:
        if low > ranges[name].lo:
            out = out * minimum(1, floordiv(sym(name), low))
        if high < ranges[name].hi:
            out = out * (1 - minimum(1, floordiv(sym(name), high + 1)))
    return out


def words(box: Box, ranges: Mapping[str, Range]) -> str:
    """The shapes of a box, but for symbols with their whole range: "batch 1 to 4"."""
    said = [(n, lo, hi) for n, lo, hi in box if lo > ranges[n].lo or hi < ranges[n].hi]
    return ", ".join(f"{n} {lo} or more" if hi >= UNBOUNDED else f"{n} {lo} to {hi}" for n, lo, hi in said)
