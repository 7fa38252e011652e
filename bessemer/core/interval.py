"""What the ranges of symbols say about dims: bounds, comparison, divisors.

Comparison is three-valued over the ranges of the symbols; `decide_eq` raises where it is open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bessemer.core.dim import Atom, Dim, substitute, sym, symbols
from bessemer.core.errors import ShapeError

INF = 2**62
UNBOUNDED = 2**20  # the upper end of an input's dimension to which nobody gave one: generous, and 32 bits index it


@dataclass(frozen=True, slots=True)
class Range:
    """What is known of a symbol: lo <= value <= hi, value % multiple == 0, and the value to tune at."""

    lo: int = 0
    hi: int = INF
    opt: int | None = None
    multiple: int = 1

    @property
    def typical(self) -> int:
        """The value to tune at: opt where given, else the upper end where bounded, else a small guess."""
        if self.opt is not None:
            return self.opt
        if self.hi < INF:
            return max(self.lo, self.hi // self.multiple * self.multiple)
        return -(-max(self.lo, 16) // self.multiple) * self.multiple

    @property
    def bounded(self) -> bool:
        """Whether somebody gave the upper end, so that memory may be planned for it."""
        return self.hi not in (UNBOUNDED, INF)


Ranges = Mapping[str, Range]


def bounds(d: Dim, ranges: Ranges) -> tuple[int, int]:
    """An interval that holds every value of `d`; sound, not always tight."""
    if isinstance(d, int):
        return d, d
    lo = hi = 0
    for monomial, coefficient in d.terms:
        tlo = thi = coefficient
        for atom in monomial:
            alo, ahi = _atom_bounds(atom, ranges)
            corners = [_saturate(x * y) for x in (tlo, thi) for y in (alo, ahi)]
            tlo, thi = min(corners), max(corners)
        lo, hi = _saturate(lo + tlo), _saturate(hi + thi)
    return lo, hi


def _saturate(value: int) -> int:
    return max(-INF, min(INF, value))


def _atom_bounds(atom: Atom, ranges: Ranges) -> tuple[int, int]:
    if atom.kind == "sym":
        r = ranges.get(atom.name, Range())
        return r.lo, r.hi
    (alo, ahi), (blo, bhi) = bounds(atom.args[0], ranges), bounds(atom.args[1], ranges)
    if atom.kind == "min":
        return min(alo, blo), min(ahi, bhi)
    if atom.kind == "max":
        return max(alo, blo), max(ahi, bhi)
    if blo <= 0:
        return -INF, INF
    if atom.kind == "mod":
        return (alo, ahi) if 0 <= alo and ahi < blo else (0, bhi - 1)
    corners = [x // y if abs(x) < INF else x for x in (alo, ahi) for y in (blo, bhi)]
    return min(corners), max(corners)


def compare(a: Dim, b: Dim, ranges: Ranges) -> tuple[bool | None, bool | None]:
    """(a == b, a < b), each True, False, or None where the ranges leave it open."""
    difference = a - b
    steps = {s: ranges[s] for s in symbols(difference) if s in ranges and ranges[s].multiple > 1}
    if steps:  # count in steps: then what the multiple decides is decided by the normal form
        difference = substitute(difference, {s: sym(s) * r.multiple for s, r in steps.items()})
        counted = {s: Range(-(-r.lo // r.multiple), r.hi // r.multiple) for s, r in steps.items()}
        ranges = {**ranges, **counted}
    lo, hi = bounds(difference, ranges)
    equal = True if lo == hi == 0 else False if lo > 0 or hi < 0 else None
    less = True if hi < 0 else False if lo >= 0 else None
    return equal, less


def decide_eq(a: Dim, b: Dim, ranges: Ranges) -> bool:
    """Whether a equals b on the whole range; ShapeError where that is open."""
    equal, _ = compare(a, b, ranges)
    if equal is None:
        raise ShapeError(
            f"cannot decide whether dimensions {a} and {b} are equal",
            undecided=symbols(a) | symbols(b),
            sizes=(a, b),
            fix="fix one of them with --shapes, narrow the profile so that only one answer is left, or give both the "
            "same name in the model's inputs",
        )
    return equal


def typical(d: Dim, ranges: Ranges) -> int:
    """`d` where every symbol has the value to tune at, as far as that is known: 1 where it is not."""
    value = substitute(d, {name: r.typical for name, r in ranges.items()})
    return value if isinstance(value, int) else 1


def divisible(d: Dim, by: int, ranges: Ranges) -> bool:
    """Whether `by` is known to divide `d`."""
    return _factor(d, ranges) % by == 0


def divisor(d: Dim, ranges: Ranges) -> int:
    """The greatest power of two (at most 256) known to divide `d`."""
    return math.gcd(256, _factor(d, ranges))


def _factor(d: Dim, ranges: Ranges) -> int:
    """The greatest number known to divide `d`: it divides every term. Everything divides 0, whose factor is 0."""
    if isinstance(d, int):
        return abs(d)
    return math.gcd(*(c * math.prod(_atom_factor(atom, ranges) for atom in monomial) for monomial, c in d.terms))


def _atom_factor(atom: Atom, ranges: Ranges) -> int:
    if atom.kind == "sym":
        return ranges.get(atom.name, Range()).multiple
    if atom.kind in ("min", "max"):
        return math.gcd(*(_factor(a, ranges) for a in atom.args))
    return 1
