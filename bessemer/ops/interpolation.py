"""Where a resized axis reads: source coordinates as exact quotients of integers, and the taps around them.

Every coordinate_transformation_mode of ONNX maps output coordinate i to (a * i + b) / q with integers a, b and q > 0
where the scale is a ratio of integers: no rounding decides which element a nearest tap reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate, floordiv, maximum, minimum
from bessemer.core.dtype import DType
from bessemer.core.interval import Ranges, bounds
from bessemer.ir import expr as ex

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def ratio(scale: float) -> Fraction:
    """The simple fraction that a f32 scale stands for (0.7 is 7/10), else its exact value."""
    simple = Fraction(float(scale)).limit_denominator(1000)
    return simple if np.float32(simple) == np.float32(scale) else Fraction(float(scale))


@dataclass(frozen=True)
class Line:
    """The source coordinate (a * i + b) / q of output coordinate i."""

    a: Dim
    b: Dim
    q: Dim

    def known(self) -> tuple[int, int, int]:
        """(a, b, q) as integers; ShapeError where a size is not known."""
        return evaluate(self.a, {}), evaluate(self.b, {}), evaluate(self.q, {})


def source_line(mode: str, num: Dim, den: Dim, size: Dim, out: Dim) -> Line:
    """The map of an axis of `size` to `out` elements at scale num / den; ValueError for a mode without one."""
    if mode == "half_pixel":
        return _reduced(2 * den, den - num, 2 * num)
    if mode == "pytorch_half_pixel":  # coordinate 0 where there is one output element
        return _reduced(2 * den, (den - num) * minimum(out - 1, 1), 2 * num)
    if mode == "half_pixel_symmetric":
        return _reduced(2 * den, num * (size - 1) + den * (1 - out), 2 * num)
    if mode == "asymmetric":
        return _reduced(den, 0, num)
    if mode == "align_corners":
        return _reduced((size - 1) * den, 0, maximum(num * size - den, 1))
    if mode == "tf_half_pixel_for_nn":
        return _reduced(2 * den, den, 2 * num)
    raise ValueError(f"coordinate mode {mode!r} has no quotient form; known: {', '.join(COORDINATES)}")


def crop_line(start: float, end: float, size: Dim, out: int) -> Line:
    """The map of an axis whose part `start` to `end` (of size - 1) is spread over `out` elements."""
    s, e = ratio(start), ratio(end)
    d = s.denominator * e.denominator
    first, last = s.numerator * e.denominator, e.numerator * s.denominator
    if out == 1:
        return _reduced(0, (first + last) * (size - 1), 2 * d)
    return _reduced((last - first) * (size - 1), first * (size - 1) * (out - 1), d * (out - 1))


def _reduced(a: Dim, b: Dim, q: Dim) -> Line:
    if isinstance(a, int) and isinstance(b, int) and isinstance(q, int):
        common = gcd(a, b, q) or 1
        return Line(a // common, b // common, q // common)
    return Line(a, b, q)


def nearest_line(line: Line, rounding: str) -> Line:
    """The line whose quotient, rounded down, is the nearest index."""
    a, b, q = line.a, line.b, line.q
    if rounding == "floor":
        return floor_line(line)
    if rounding == "ceil":
        return floor_line(Line(a, b + q - 1, q))
    if rounding == "round_prefer_floor":
        return floor_line(Line(2 * a, 2 * b + q - 1, 2 * q))
    if rounding == "round_prefer_ceil":
        return floor_line(Line(2 * a, 2 * b + q, 2 * q))
    raise ValueError(f"unknown nearest mode {rounding!r}; known: {', '.join(ROUNDINGS)}")


def floor_line(line: Line) -> Line:
    """The simplest line with the same quotients rounded down: (4 * i + 1) / 8 and i / 2 are one."""
    a, b, q = line.a, line.b, line.q
    if not (isinstance(a, int) and isinstance(b, int) and isinstance(q, int)):
        return line
    common = gcd(a, q)
    return Line(a // common, b // common, q // common)


def scaled_size(size: Dim, scale: Fraction) -> Dim:
    """floor(size * scale), exact."""
    return floordiv(size * scale.numerator, scale.denominator)


# -- weights of the taps, on numpy arrays and on expressions --------------------------------------------------------


def polynomial(x: Any, coefficients: tuple[float, ...], dtype: DType) -> Any:
    """Horner's scheme, highest power first, over arrays or expressions."""
    if isinstance(x, np.ndarray):
        return np.polyval(np.array(coefficients), x)
    total: ex.Expr = ex.lit(coefficients[0], dtype)
    for c in coefficients[1:]:
        total = ex.call("add", ex.call("mul", total, x), ex.lit(c, dtype))
    return total


def cubic_near(a: float) -> tuple[float, ...]:
    """Keys' kernel on 0 <= x <= 1."""
    return (a + 2, -(a + 3), 0.0, 1.0)


def cubic_far(a: float) -> tuple[float, ...]:
    """Keys' kernel on 1 <= x < 2."""
    return (a, -5 * a, 8 * a, -4 * a)


def tap_weights(fraction: Any, mode: str, cubic_a: float, dtype: DType) -> list[tuple[int, Any]]:
    """(offset from the element below, weight) of each tap, for a coordinate `fraction` above that element."""
    rest = 1 - fraction if isinstance(fraction, np.ndarray) else ex.call("sub", ex.lit(1, dtype), fraction)
    if mode == "linear":
        return [(0, rest), (1, fraction)]
    if mode != "cubic":
        raise ValueError(f"unknown interpolation {mode!r}; known: nearest, linear, cubic")
    near, far = cubic_near(cubic_a), cubic_far(cubic_a)

    def beyond(x: Any) -> Any:
        return x + 1 if isinstance(x, np.ndarray) else ex.call("add", x, ex.lit(1, dtype))

    return [
        (-1, polynomial(beyond(fraction), far, dtype)), (0, polynomial(fraction, near, dtype)),
        (1, polynomial(rest, near, dtype)), (2, polynomial(beyond(rest), far, dtype)),
    ]  # fmt: skip


def floor_index(line: Line, axis: ex.Expr, offset: int = 0) -> ex.Expr:
    """The quotient of `line` at output coordinate `axis`, rounded down, plus `offset`."""
    line = floor_line(line)
    numerator = ex.call("add", ex.call("mul", axis, ex.idx(line.a)), ex.idx(line.b))
    return ex.call("add", ex.call("floordiv", numerator, ex.idx(line.q)), ex.idx(offset))


def held_index(line: Line, axis: ex.Expr, offset: int, size: Dim, out: Dim, ranges: Ranges) -> ex.Expr:
    """`floor_index`, held inside 0 .. size - 1 at the ends that it is not known to stay within for `out` outputs."""
    i = floor_index(line, axis, offset)
    rising = bounds(line.a, ranges)[0] >= 0
    first = line.b + offset * line.q
    if not rising or bounds(line.q * size - line.a * (out - 1) - first, ranges)[0] < 1:
        i = ex.call("min", i, ex.idx(size - 1))
    if not rising or bounds(first, ranges)[0] < 0:
        i = ex.call("max", i, ex.lit(0, dt.i64))
    return i


def clamp(i: ex.Expr, size: Dim) -> ex.Expr:
    """An index held inside 0 .. size - 1."""
    return ex.call("max", ex.call("min", i, ex.idx(size - 1)), ex.lit(0, dt.i64))


def inside(i: ex.Expr, size: Dim) -> ex.Expr:
    """Whether 0 <= i < size, for an integer i."""
    return ex.call("and", ex.call("ge", i, ex.lit(0, dt.i64)), ex.call("lt", i, ex.idx(size)))


def real_type(dtype: DType) -> DType:
    """The type that interpolated values of `dtype` are computed in."""
    return dt.f64 if dtype == dt.f64 or dtype.is_int and dtype.bits >= 32 else dt.f32
