"""Polynomials with integer coefficients: how the terms of dims are added, multiplied and divided.

Terms map monomials to their coefficients. What the atoms of a monomial are does not matter here: they are equal or not,
and have a text to sort them by. Terms that came to nothing keep the coefficient 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

A = TypeVar("A", bound=Hashable)
Monomial = tuple[A, ...]  # sorted, with repetition; () is the constant term
Terms = Mapping[Monomial[A], int]


def added(a: Terms[A], b: Terms[A], sign: int) -> dict[Monomial[A], int]:
    """a + sign * b."""
    out = dict(a)
    for monomial, coefficient in b.items():
        out[monomial] = out.get(monomial, 0) + sign * coefficient
    return out


def multiplied(a: Terms[A], b: Terms[A]) -> dict[Monomial[A], int]:
    """a * b."""
    out: dict[Monomial[A], int] = {}
    for ma, ca in a.items():
        for mb, cb in b.items():
            m = tuple(sorted(ma + mb, key=str))
            out[m] = out.get(m, 0) + ca * cb
    return out


def exact_quotient(a: Terms[A], b: Terms[A]) -> dict[Monomial[A], int] | None:
    """a / b where every term of a is divisible by the single term b, else None."""
    divisor = list(b.items())
    if len(divisor) != 1 or not divisor[0][1]:
        return None
    (dm, dc) = divisor[0]
    out: dict[Monomial[A], int] = {}
    for monomial, coefficient in a.items():
        if coefficient % dc:
            return None
        rest = list(monomial)
        for atom in dm:
            if atom not in rest:
                return None
            rest.remove(atom)
        out[tuple(rest)] = coefficient // dc
    return out


def common_factor(a: Terms[A], monomial: Monomial[A], coefficient: int) -> tuple[Monomial[A], int]:
    """What divides that term and every term of a: itself a term, its coefficient above 0."""
    common: list[A] = []
    for atom in monomial:
        if all(m.count(atom) > common.count(atom) for m in a):
            common.append(atom)
    return tuple(common), math.gcd(coefficient, *a.values())


def in_order(terms: Terms[A]) -> tuple[tuple[Monomial[A], int], ...]:
    """Terms of the greatest degree first, of one degree by their text."""
    return tuple(sorted(terms.items(), key=lambda term: (-len(term[0]), "*".join(str(a) for a in term[0]))))
