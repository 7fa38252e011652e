"""Numpy broadcasting over symbolic shapes: result shapes, and the index of each operand."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, maximum, minimum
from bessemer.core.interval import Ranges, bounds, compare, decide_eq
from bessemer.ir import expr as ex
from bessemer.ops.symbolic import data_dependent


def broadcast_dim(a: Dim, b: Dim, ranges: Ranges) -> Dim:
    """The broadcast of two sizes; ValueError where they cannot agree.

    Where the ranges leave open which of two symbols is 1, the result is an expression that is exact for both.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if compare(a, b, ranges)[0]:
        return a if isinstance(a, int) else b
    a_is_one, b_is_one = compare(a, 1, ranges)[0], compare(b, 1, ranges)[0]
    if a_is_one is False and b_is_one is False:
        return same_dim(a, b, ranges)
    if a_is_one or b_is_one is False:
        return b
    if b_is_one or a_is_one is False:
        return a
    positive = bounds(a, ranges)[0] >= 1 and bounds(b, ranges)[0] >= 1
    return maximum(a, b) if positive else maximum(a, b) * minimum(minimum(a, b), 1)


def same_dim(a: Dim, b: Dim, ranges: Ranges) -> Dim:
    """The size that both have; ValueError where they differ, ShapeError where the ranges leave it open.

    A data-dependent size is taken to equal what it meets: no profile could say so.
    """
    open_ = data_dependent(a) or data_dependent(b)
    if not (compare(a, b, ranges)[0] is not False if open_ else decide_eq(a, b, ranges)):
        raise ValueError(f"sizes {a} and {b} differ")
    return b if not isinstance(a, int) and (isinstance(b, int) or data_dependent(a)) else a


def broadcast_shapes(shapes: Sequence[tuple[Dim, ...]], ranges: Ranges) -> tuple[Dim, ...]:
    """The numpy broadcast of shapes; ValueError names the ones that cannot agree."""
    rank = max(map(len, shapes))
    out: list[Dim] = [1] * rank
    for shape in shapes:
        for k, size in enumerate(shape, rank - len(shape)):
            try:
                out[k] = broadcast_dim(out[k], size, ranges)
            except ValueError:
                shown = " and ".join("[" + ", ".join(map(str, s)) + "]" for s in shapes)
                raise ValueError(f"shapes {shown} do not broadcast") from None
    return tuple(out)


def broadcast_index(
    shape: tuple[Dim, ...], out: tuple[Dim, ...], axes: Sequence[ex.Expr], ranges: Ranges
) -> tuple[ex.Expr, ...]:
    """The index of an operand of `shape` under coordinates `axes` of the broadcast result `out`."""
    skip = len(out) - len(shape)
    zero = ex.lit(0, dt.i64)
    index: list[ex.Expr] = []
    for size, target, axis in zip(shape, out[skip:], axes[skip:]):
        if size == 1:
            index.append(zero)
        elif compare(size, target, ranges)[0] or compare(size, 1, ranges)[0] is False:
            index.append(axis)
        else:
            index.append(ex.Select(ex.call("eq", ex.idx(size), ex.lit(1, dt.i64)), zero, axis))
    return tuple(index)
