"""Where a problem with symbolic sizes is tuned beside its opt shape, and which shapes take the kernel of which point.

Every symbol that an input binds gets a few values: its ends, its opt, and geometric means of the widest gaps. The grid
of these values cuts the range of shapes into boxes, one around each point, with borders at geometric means. Boxes with
one kernel merge, so that a kernel is taken by comparing a few sizes, once per shape.

Rows that are multiplied by weights or normalised are one size, whichever symbols they are the product of: it alone gets
values, in equal steps from the opt on, and so does the number of keys of an attention. There a box ends at its point:
of tiles that just fill the device a few rows more take another turn, so that a kernel serves sizes below that at which
it was timed, and none above. See borders.py for how far it goes all the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bessemer.core.dim import Dim, DimExpr, floordiv, minimum, product, sym
from bessemer.core.dim import symbols as names
from bessemer.core.interval import INF, UNBOUNDED, Range, bounds
from bessemer.kernels.base import Problem

FAR = 8  # times the opt value: where the last point is if nobody gave an upper end
FEW = 3  # sizes, or fewer, whose ends are all combined for the corners of their ranges
MORE = 24  # points along the rows of a product beyond the limit
STEP, COARSE = 2 ** (1 / 3), 2.0  # the least step between points along the rows of a product, and along others
TILE, TILES = 16, 4  # rows that products take together at least; the least tile of many rows, of so many of these
MOST = 1024  # numbers of rows above a point that are looked at: a range may end at 2**40
T = TypeVar("T")
Box = tuple[tuple[Dim, int, int], ...]  # a size (a symbol, or the product of all), its least and greatest value


@dataclass(frozen=True)
class Point:
    """The problem with its opt shape at this point, and the shapes around it."""

    problem: Problem
    box: Box


def points_of(problem: Problem, symbols: Collection[str], limit: int) -> list[Point]:
    """At most `limit` points, that of the opt shape among them; it alone where nothing varies.

    `symbols` are those that inputs bind: the others are not known when a kernel is taken."""
    ranges = _varying(problem, symbols)
    if limit > 1 and _is_one_size(problem, ranges):
        return _along(problem, ranges, limit)
    each = int(limit ** (1 / len(ranges)) + 1e-9) if ranges else 1
    if each < 2:
        return [Point(problem, ())]
    keys = _keys(problem)
    cells = []
    for name, r in ranges.items():
        found = _up_to(r, _steps(r, min(limit, 3 * each), COARSE)) if name in keys else _cells(r, _values(r, each))
        cells.append([(name, *cell) for cell in found])
    return [
        Point(moved(problem, {n: at for n, at, _, _ in chosen}), tuple((sym(n), lo, hi) for n, _, lo, hi in chosen))
        for chosen in itertools.product(*cells)
    ]


def empty(problem: Problem) -> bool:
    """Whether some tensor has no elements at the opt shape: at the low end of their ranges sizes may not make sense."""
    types = (*(o.type for o in problem.operands), *problem.outputs)
    return any(problem.typical(d) < 1 for t in types for d in t.shape)


def at_rows(problem: Problem, symbols: Collection[str], rows: int) -> Problem | None:
    """The problem at a shape of about so many rows, where they are one size: see the head of this file."""
    ranges = _varying(problem, symbols)
    return moved(problem, _place(rows, ranges)) if _is_one_size(problem, ranges) else None


def corners(problems: Iterable[Problem], symbols: Collection[str]) -> list[dict[str, int]]:
    """The shapes where every size is at an end of its range, of many sizes all at the same end; none where none varies.

    `symbols` as for `points_of`."""
    ranges = {name: r for problem in problems for name, r in _varying(problem, symbols).items()}
    ends = {name: (_near(0, r), _near(_high(r), r)) for name, r in sorted(ranges.items())}
    values = itertools.product(*ends.values()) if len(ends) <= FEW else zip(*ends.values())
    return [dict(zip(ends, shape)) for shape in values] if ends else []


def full_tiles(low: int, high: int) -> range:
    """The numbers of rows from `low` to below `high` where some tile is full: the first MOST of them."""
    step = TILE if high <= 2 * TILE * TILES else TILE * TILES
    first = -(-low // step) * step
    return range(first, min(high, first + MOST * step), step)


def _varying(problem: Problem, symbols: Collection[str]) -> dict[str, Range]:
    return {name: r for name, r in problem.ranges if name in symbols and r.lo < r.hi}


def _is_one_size(problem: Problem, ranges: Mapping[str, Range]) -> bool:
    """Whether several symbols only ever occur as their product, in a product with weights or a normalisation."""
    if len(ranges) < 2:
        return False
    if problem.op == "layer_norm":
        fits = all(isinstance(d, int) for d in problem.operands[0].type.shape[problem.attr("axis") :])
    else:
        fits = problem.op == "matmul" and any(o.constant for o in problem.operands)
    if not fits:
        return False
    rows = product([sym(name) for name in ranges])
    assert isinstance(rows, DimExpr)
    types = [*(o.type for o in problem.operands), *problem.outputs]
    sizes = [size for size in (t.numel for t in types) if isinstance(size, DimExpr)]
    return all([monomial for monomial, _ in size.terms] == [monomial for monomial, _ in rows.terms] for size in sizes)


def _keys(problem: Problem) -> frozenset[str]:
    """The symbols in the number of keys of an attention: its work grows with their square, and kernels differ by it."""
    if problem.op != "attention":
        return frozenset()
    return frozenset(names(problem.operands[1].type.shape[2 if problem.attr("layout") == "BHSD" else 1]))


def _along(problem: Problem, ranges: Mapping[str, Range], limit: int) -> list[Point]:
    """Points along the product of all symbols."""
    least, greatest = (math.prod(ends) for ends in zip(*((r.lo, r.hi) for r in ranges.values())))
    opt = math.prod(r.typical for r in ranges.values())
    whole = Range(least, greatest if all(r.bounded for r in ranges.values()) else INF, opt)
    steps = _steps(whole, limit + MORE, STEP if problem.op == "matmul" else COARSE)
    places = {math.prod(place.values()): place for place in (_place(v, ranges) for v in steps)}
    rows = product([sym(name) for name in ranges])
    cells = _up_to(whole, sorted(places))
    return [Point(moved(problem, places[at]), ((rows, low, high),)) for at, low, high in cells]


def _steps(r: Range, most: int, least: float) -> list[int]:
    """The ends, the opt, and values between in equal steps from the opt on, as small as makes no more: of `least`."""
    low, opt, high = _near(0, r), r.typical, _near(_high(r), r)
    step = max(least, (high / low) ** (1 / max(1, most - 3)))
    between = [opt * step**k for k in range(-most, most + 1) if k and opt]
    inner = [v for v in between if low * math.sqrt(step) < v < high / math.sqrt(step)]
    return sorted({low, high, opt, *(_near(_of_whole_tiles(v), r) for v in inner)})


def _of_whole_tiles(rows: float) -> int:
    """About so many rows, so that tiles are full: those that take many together where there are many."""
    step = TILE * TILES if rows > 2 * TILE * TILES else TILE if rows > TILE else 1
    return round(rows / step) * step


def _place(value: int, ranges: Mapping[str, Range]) -> dict[str, int]:
    """Values of the symbols with about that product, between the opt shape and the least or the greatest one."""
    if value == math.prod(r.typical for r in ranges.values()):
        return {name: r.typical for name, r in ranges.items()}
    opt = {name: max(1, r.typical) for name, r in ranges.items()}
    lower = value < math.prod(opt.values())
    ends = {name: max(1, r.lo) if lower else _high(r) for name, r in ranges.items()}
    whole = math.log(math.prod(ends.values()) / math.prod(opt.values()))
    share = math.log(max(1, value) / math.prod(opt.values())) / whole if whole else 0.0
    out = {name: _near(opt[name] * (ends[name] / opt[name]) ** share, r) for name, r in ranges.items()}
    first, *_, last = ranges
    others = math.prod(v for name, v in out.items() if name not in (first, last))
    near = sorted(range(max(1, out[first] // 4), 4 * out[first] + 1), key=lambda v: abs(math.log(v / out[first])))
    for v in near:  # as many rows as were asked for, if any shape has them: one more may take another tile
        w = value // (others * v)
        if others * v * w == value and _near(v, ranges[first]) == v and _near(w, ranges[last]) == w:
            return {**out, first: v, last: w}
    out[last] = _near(value / (others * out[first]), ranges[last])
    return out


def _near(value: float, r: Range) -> int:
    """The valid size nearest to a value."""
    return min(max(round(value / r.multiple), -(-max(1, r.lo) // r.multiple)), r.hi // r.multiple) * r.multiple


def moved(problem: Problem, values: Mapping[str, int]) -> Problem:
    """The problem with other opt values; itself where they are its own."""
    if all(r.typical == values.get(name, r.typical) for name, r in problem.ranges):
        return problem
    return replace(problem, ranges=tuple((name, replace(r, opt=values.get(name, r.opt))) for name, r in problem.ranges))


def _cells(r: Range, found: Sequence[int]) -> list[tuple[int, int, int]]:
    """(point, least, greatest) of each interval around these values."""
    return _cut(r, found, [math.isqrt(max(1, a) * b) for a, b in itertools.pairwise(found)])


def _up_to(r: Range, found: Sequence[int]) -> list[tuple[int, int, int]]:
    """(point, least, greatest) of each interval that ends at one of these values, the last at the end of the range."""
    return _cut(r, found, found[:-1])


def _cut(r: Range, found: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int, int]]:
    return list(zip(found, [r.lo, *(e + 1 for e in ends)], [*ends, r.hi], strict=True))


def _values(r: Range, count: int) -> list[int]:
    """At most `count` values: the opt, the ends (the farther one first), then the middles of the widest gaps."""
    opt = r.typical
    low, high = max(1, r.lo), _high(r)

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


def _high(r: Range) -> int:
    """The greatest value, or the greatest that is looked at where there is none."""
    return r.hi if r.bounded else max(r.lo, min(r.hi, FAR * max(1, r.typical)))


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
    for size, low, high in box:
        least, greatest = bounds(size, ranges)
        if low > least:
            out = out * minimum(1, floordiv(size, low))
        if high < greatest:
            out = out * (1 - minimum(1, floordiv(size, high + 1)))
    return out


def words(box: Box, ranges: Mapping[str, Range]) -> str:
    """The shapes of a box, but for sizes with their whole range: "batch 1 to 4"."""
    said = [(n, lo, hi) for n, lo, hi in box if lo > bounds(n, ranges)[0] or hi < bounds(n, ranges)[1]]
    return ", ".join(f"{n} {lo} or more" if hi >= UNBOUNDED else f"{n} {lo} to {hi}" for n, lo, hi in said)
