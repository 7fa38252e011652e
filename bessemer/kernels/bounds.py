"""Symbolic intervals of index expressions: which fit 32 bits, and which loads never leave their operand."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, floordiv, maximum, minimum
from bessemer.core.dtype import DType
from bessemer.core.interval import INF, bounds
from bessemer.ir import expr as ex
from bessemer.kernels.base import Problem

Interval = tuple[Dim, Dim]  # both ends included
I32_MAX = 2**31 - 1


class Intervals:
    """Intervals of i64 expressions. `extents` holds the size of every loop variable."""

    def __init__(self, problem: Problem) -> None:
        self.ranges = problem.range_map
        self.extents: dict[str, Dim] = {}
        self._memo: dict[int, tuple[ex.Expr, Interval | None]] = {}

    def of(self, e: ex.Expr) -> Interval | None:
        """Where the values of `e` lie; None where nothing is known."""
        found = self._memo.get(id(e))
        if found is None:
            found = (e, self._of(e))
            self._memo[id(e)] = found
        return found[1]

    def low(self, d: Dim) -> int:
        """The least value of `d`."""
        return bounds(d, self.ranges)[0]

    def high(self, d: Dim) -> int:
        """The greatest value of `d`."""
        return bounds(d, self.ranges)[1]

    def fits32(self, interval: Interval | None) -> bool:
        """Whether all of an interval can be held in 32 bits."""
        return interval is not None and self.low(interval[0]) >= -I32_MAX and self.high(interval[1]) <= I32_MAX

    def nonnegative(self, e: ex.Expr) -> bool:
        """Whether `e` is known to be at least 0."""
        interval = self.of(e)
        return interval is not None and self.low(interval[0]) >= 0

    def positive(self, e: ex.Expr) -> bool:
        """Whether `e` is known to be at least 1."""
        interval = self.of(e)
        return interval is not None and self.low(interval[0]) >= 1

    def inside(self, e: ex.Expr, size: Dim) -> bool:
        """Whether 0 <= e < size always holds."""
        interval = self.of(e)
        return interval is not None and self.low(interval[0]) >= 0 and self.low(size - 1 - interval[1]) >= 0

    def _of(self, e: ex.Expr) -> Interval | None:
        match e:
            case ex.Lit(value=value, dtype=dtype) if dtype == dt.i64:
                return int(value), int(value)
            case ex.Size(dim=d):
                return d, d
            case ex.Axis(name=name):
                return 0, self.extents[name] - 1
            case ex.Select(a=a, b=b) if e.dtype == dt.i64:
                return _hull(self.of(a), self.of(b))
            case ex.Cast(arg=arg) if e.dtype == dt.i64:
                return _type_interval(arg.dtype)
            case ex.Call(fn=fn, args=(a, b)) if e.dtype == dt.i64:
                return self._call(fn, a, b)
        return None

    def _call(self, fn: str, a: ex.Expr, b: ex.Expr) -> Interval | None:
        x, y = self.of(a), self.of(b)
        if fn in ("floormod", "fmod") and y is not None and self.low(y[0]) >= 1:
            if fn == "floormod" or self.nonnegative(a):
                whole = x is not None and self.low(x[0]) >= 0 and self.low(y[0] - 1 - x[1]) >= 0
                return x if whole else (0, y[1] - 1)
        if x is None or y is None:
            return None
        match fn:
            case "add":
                return x[0] + y[0], x[1] + y[1]
            case "sub":
                return x[0] - y[1], x[1] - y[0]
            case "mul":
                return self._product(x, y)
            case "floordiv" | "div" if isinstance(y[0], int) and y[0] == y[1] and y[0] > 0:
                if fn == "floordiv" or self.low(x[0]) >= 0:
                    return floordiv(x[0], y[0]), floordiv(x[1], y[0])
            case "floordiv" | "div" if self.low(x[0]) >= 0 and self.low(y[0]) >= 1:
                return 0, x[1]
            case "min":
                return minimum(x[0], y[0]), minimum(x[1], y[1])
            case "max":
                return maximum(x[0], y[0]), maximum(x[1], y[1])
        return None

    def _product(self, x: Interval, y: Interval) -> Interval | None:
        if self.low(x[0]) >= 0 and self.low(y[0]) >= 0:
            return x[0] * y[0], x[1] * y[1]
        for (lo, hi), (c, d) in ((x, y), (y, x)):
            if isinstance(c, int) and c == d:
                return (lo * c, hi * c) if c >= 0 else (hi * c, lo * c)
        ends = [f(d) for d, f in ((x[0], self.low), (x[1], self.high), (y[0], self.low), (y[1], self.high))]
        if max(abs(v) for v in ends) >= INF:
            return None
        corners = [p * q for p in ends[:2] for q in ends[2:]]
        return min(corners), max(corners)


def _hull(x: Interval | None, y: Interval | None) -> Interval | None:
    return None if x is None or y is None else (minimum(x[0], y[0]), maximum(x[1], y[1]))


def _type_interval(dtype: DType) -> Interval | None:
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "u" and dtype.bits < 64:
        return 0, 2**dtype.bits - 1
    if dtype.kind == "i" and dtype.bits < 64:
        return -(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1
    return None
