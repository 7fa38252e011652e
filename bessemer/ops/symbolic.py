"""Elementwise functions on object arrays of dims, for references that take part in shape arithmetic.

A comparison that is open for some sizes raises ShapeError, and the builder then leaves the node in the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, DimExpr, floordiv, maximum, minimum, mod, symbols
from bessemer.core.errors import ShapeError
from bessemer.core.interval import bounds, compare
from bessemer.ir.opdef import SYMBOL_RANGES


def data_dependent(d: Dim) -> bool:
    """Whether `d` depends on a size that is only known once an op has run (see GraphBuilder.fresh)."""
    return any(_is_fresh(name) for name in symbols(d))


def _is_fresh(name: str) -> bool:
    return name[:1] == "u" and name[1:2].isdigit()


def _scalar(value: Any) -> Any:
    return value if isinstance(value, DimExpr) else int(value)


def _open(a: Dim, b: Dim) -> ShapeError:
    return ShapeError(f"the order of dimensions {a} and {b} is open", fix="give the dimension a fixed size")


def equal(a: Any, b: Any) -> bool:
    """Whether two dims (or strings) are equal."""
    if not isinstance(a, DimExpr) and not isinstance(b, DimExpr):
        return bool(a == b)
    known, _ = compare(_scalar(a), _scalar(b), SYMBOL_RANGES.get())
    if known is None:
        raise _open(a, b)
    return known


def less(a: Any, b: Any) -> bool:
    """Whether a < b."""
    if not isinstance(a, DimExpr) and not isinstance(b, DimExpr):
        return bool(a < b)
    _, known = compare(_scalar(a), _scalar(b), SYMBOL_RANGES.get())
    if known is None:
        raise _open(a, b)
    return known


def divide(a: Any, b: Any) -> Dim:
    """a / b truncated toward zero."""
    a, b = _scalar(a), _scalar(b)
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0
    ranges = SYMBOL_RANGES.get()
    if bounds(a, ranges)[0] < 0 or bounds(b, ranges)[0] <= 0:
        raise ShapeError(f"the sign of {a} or {b} is open, so their quotient is", fix="give the dimension a fixed size")
    return floordiv(a, b)


def modulo(a: Any, b: Any) -> Dim:
    """a mod b with the sign of b."""
    return mod(_scalar(a), _scalar(b)) if isinstance(b, DimExpr) or b else 0


def lesser(a: Any, b: Any) -> Dim:
    """The smaller of two dims."""
    return minimum(_scalar(a), _scalar(b))


def greater(a: Any, b: Any) -> Dim:
    """The larger of two dims."""
    return maximum(_scalar(a), _scalar(b))


def elementwise(fn: Callable[..., Any], nin: int = 2) -> Callable[..., np.ndarray]:
    """`fn` over broadcast object arrays; the result is an object array."""
    ufunc = np.frompyfunc(fn, nin, 1)
    return lambda *arrays: np.asarray(ufunc(*arrays), dtype=object)


def reduce_extreme(kind: str, array: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """The min or max of an object array of dims over `axes`."""
    ufunc = np.frompyfunc(minimum if kind == "min" else maximum, 2, 1)
    out = array
    for axis in sorted(axes, reverse=True):
        out = np.asarray(ufunc.reduce(out, axis=axis, keepdims=keepdims), dtype=object)
    return out
