"""Sizes that a run may not exceed: a <= b is the equality max(a, b) == b, which is what engines record."""

from __future__ import annotations

from collections.abc import Iterator

from bessemer.core.dim import Atom, Dim, DimExpr, maximum, product
from bessemer.core.interval import Ranges, bounds

DEPTH = 8  # cases within cases: a slice has four


def at_most(a: Dim, b: Dim, ranges: Ranges) -> Iterator[tuple[Dim, Dim]]:
    """The equality (max(x, y), y) that holds where a <= b does, with nothing negative in x and y; none where that is
    so at all sizes."""
    if not _never_positive(a - b, ranges, DEPTH):
        less, more = _positive(a - b), _positive(b - a)
        yield maximum(less, more), more


def _positive(d: Dim) -> Dim:
    """The terms of `d` with positive factors."""
    if isinstance(d, int):
        return max(d, 0)
    out: Dim = 0
    for monomial, factor in d.terms:
        if factor > 0:
            out = out + factor * product(_alone(atom) for atom in monomial)
    return out


def _alone(atom: Atom) -> DimExpr:
    return DimExpr((((atom,), 1),))


def _never_positive(d: Dim, ranges: Ranges, depth: int) -> bool:
    """Whether d <= 0 is known. Bounds take each term on its own; here the outermost min, max or quotient becomes what
    it is in each of its cases, so that what is clamped to a size cancels with that size."""
    if bounds(d, ranges)[1] <= 0:
        return True
    found = _outermost(d)
    if found is None or depth == 0:
        return False
    atom, factor = found
    rest = d - factor * _alone(atom)
    a, b = atom.args
    if atom.kind == "floordiv":  # a - b < b * (a // b) <= a
        at_b = a if factor > 0 else a - b + 1
        return _never_positive(factor * at_b + b * rest, ranges, depth - 1)
    cases = (_never_positive(factor * case + rest, ranges, depth - 1) for case in (a, b))
    return all(cases) if (atom.kind == "max") == (factor > 0) else any(cases)


def _outermost(d: Dim) -> tuple[Atom, int] | None:
    """A term that is a min, a max or a quotient by a constant, and its factor: that with the most in it."""
    if isinstance(d, int):
        return None
    terms = [(monomial[0], factor) for monomial, factor in d.terms if len(monomial) == 1]
    found = [(atom, factor) for atom, factor in terms if atom.kind in ("min", "max") or _by_constant(atom)]
    return max(found, key=lambda term: term[0].size, default=None)


def _by_constant(atom: Atom) -> bool:
    return atom.kind == "floordiv" and isinstance(atom.args[1], int) and atom.args[1] > 0
