"""Index expressions as sums: a constant, loop variables times coefficients, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex


@dataclass(frozen=True)
class Affine:
    """constant + sum(axes[name] * name) + sum(coefficient * expression of `rest`)."""

    constant: Dim = 0
    axes: Mapping[str, Dim] = field(default_factory=dict)
    rest: tuple[tuple[ex.Expr, Dim], ...] = ()

    def scaled(self, factor: Dim) -> Affine:
        if factor == 0:
            return Affine()
        return Affine(
            self.constant * factor, {k: v * factor for k, v in self.axes.items()},
            tuple((e, c * factor) for e, c in self.rest),
        )  # fmt: skip

    def plus(self, other: Affine) -> Affine:
        axes = dict(self.axes)
        for name, coefficient in other.axes.items():
            axes[name] = axes.get(name, 0) + coefficient
        return Affine(
            self.constant + other.constant, {k: v for k, v in axes.items() if v != 0}, (*self.rest, *other.rest)
        )

    @property
    def known(self) -> Dim | None:
        """The value, where it depends on no variable."""
        return self.constant if not self.axes and not self.rest else None


def affine(e: ex.Expr) -> Affine:
    """An i64 expression as a sum."""
    match e:
        case ex.Lit():
            return Affine(int(e.value))
        case ex.Size(dim=d):
            return Affine(d)
        case ex.Axis(name=name):
            return Affine(0, {name: 1})
        case ex.Call(fn="add", args=(a, b)) if e.dtype == dt.i64:
            return affine(a).plus(affine(b))
        case ex.Call(fn="sub", args=(a, b)) if e.dtype == dt.i64:
            return affine(a).plus(affine(b).scaled(-1))
        case ex.Call(fn="neg", args=(a,)) if e.dtype == dt.i64:
            return affine(a).scaled(-1)
        case ex.Call(fn="mul", args=(a, b)) if e.dtype == dt.i64:
            x, y = affine(a), affine(b)
            if y.known is not None:
                return x.scaled(y.known)
            if x.known is not None:
                return y.scaled(x.known)
    return Affine(0, {}, ((e, 1),))


def strides(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Element strides of a contiguous tensor."""
    return tuple(product(shape[k + 1 :]) for k in range(len(shape)))


def offset(shape: Sequence[Dim], index: Sequence[ex.Expr]) -> Affine:
    """The element offset of `index` in a contiguous tensor of `shape`. An axis of size 1 is only read at 0."""
    total = Affine()
    for e, size, stride in zip(index, shape, strides(shape), strict=True):
        if size != 1:
            total = total.plus(affine(e).scaled(stride))
    return total
