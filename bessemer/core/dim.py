"""Symbolic integers: the sizes of tensors.

A `Dim` is an int or a `DimExpr`: a polynomial over atoms in normal form, where an atom is a symbol or one of
floordiv, mod, min and max of two dims. Two expressions with the same normal form are equal; whether others are is
asked of `compare`, which is three-valued over the ranges of the symbols, and `decide_eq` raises where it is open.

Floor division and modulo round toward minus infinity, as Python's do. The text form (`str`) parses back (`parse`).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

from bessemer.core.errors import ShapeError

Dim = Union[int, "DimExpr"]
INF = 2**62
UNBOUNDED = 2**20  # the upper end of an input's dimension to which nobody gave one: generous, and 32 bits index it
TEXT_LIMIT = 1 << 14  # characters that `parse` takes
SIZE_LIMIT = 1 << 12  # atoms of an expression; sizes of real models have a few
TERMS_LIMIT = 1 << 8  # terms that `parse` lets an expression have


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


@dataclass(frozen=True, slots=True)
class Atom:
    """A symbol (`kind` "sym", `name`), or an operation on two dims."""

    kind: str
    name: str = ""
    args: tuple[Dim, ...] = ()

    @property
    def size(self) -> int:
        """Atoms in it, itself included."""
        return 1 + sum(a.size for a in self.args if isinstance(a, DimExpr))

    def __str__(self) -> str:
        return self.name if self.kind == "sym" else f"{self.kind}({','.join(str(a) for a in self.args)})"


Monomial = tuple[Atom, ...]  # sorted, with repetition; () is the constant term


class DimExpr:
    """A non-constant dim in normal form: a sum of integer coefficients times monomials."""

    __slots__ = ("terms", "size", "_hash")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self.size = sum(atom.size for monomial, _ in terms for atom in monomial)
        if self.size > SIZE_LIMIT:
            raise _too_large()
        self._hash = hash(terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DimExpr) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Dim) -> Dim:
        return _combine(self, other, 1) if isinstance(other, (int, DimExpr)) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: int) -> Dim:
        return _combine(_scale(self, -1), other, 1)

    def __neg__(self) -> Dim:
        return _scale(self, -1)

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self, other) if isinstance(other, (int, DimExpr)) else NotImplemented

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __rmod__(self, other: int) -> Dim:
        return mod(other, self)

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(a) for a in monomial]
            if not factors:
                parts.append(str(coefficient))
            elif coefficient == 1:
                parts.append("*".join(factors))
            else:
                parts.append("*".join([str(coefficient), *factors]))
        return "+".join(parts).replace("+-", "-")

    def __repr__(self) -> str:
        return f"Dim({self})"

    def __bool__(self) -> bool:
        raise ShapeError(
            f"the truth of the symbolic dimension {self} was asked for, and it depends on the input",
            fix="give the dimension a fixed size with --shapes, or a profile whose range decides it",
        )


def sym(name: str) -> DimExpr:
    """The symbol `name` (an identifier)."""
    return DimExpr((((Atom("sym", name),), 1),))


def _key(monomial: Monomial) -> tuple[int, str]:
    return (-len(monomial), "*".join(str(a) for a in monomial))


def _normal(terms: Mapping[Monomial, int]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return DimExpr(tuple(sorted(kept.items(), key=lambda t: _key(t[0]))))


def _terms(d: Dim) -> dict[Monomial, int]:
    return dict(d.terms) if isinstance(d, DimExpr) else {(): int(d)}


def _combine(a: Dim, b: Dim, sign: int) -> Dim:
    out = _terms(a)
    for monomial, coefficient in _terms(b).items():
        out[monomial] = out.get(monomial, 0) + sign * coefficient
    return _normal(out)


def _scale(a: Dim, factor: int) -> Dim:
    return _normal({m: c * factor for m, c in _terms(a).items()})


def _too_large() -> ShapeError:
    return ShapeError(
        f"the expression of a dimension grows beyond {SIZE_LIMIT} parts",
        fix="give the inputs fixed sizes with --shapes",
    )


def _multiply(a: Dim, b: Dim) -> Dim:
    if len(_terms(a)) * len(_terms(b)) > SIZE_LIMIT:
        raise _too_large()
    out: dict[Monomial, int] = {}
    for ma, ca in _terms(a).items():
        for mb, cb in _terms(b).items():
            m = tuple(sorted(ma + mb, key=str))
            out[m] = out.get(m, 0) + ca * cb
    return _normal(out)


def _atom(kind: str, a: Dim, b: Dim) -> Dim:
    return DimExpr((((Atom(kind, "", (a, b)),), 1),))


def _exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """a / b where every term of a is divisible by the single term b, else None."""
    divisor = list(_terms(b).items())
    if len(divisor) != 1 or not divisor[0][1]:
        return None
    (dm, dc) = divisor[0]
    out: dict[Monomial, int] = {}
    for monomial, coefficient in _terms(a).items():
        if coefficient % dc:
            return None
        rest = list(monomial)
        for atom in dm:
            if atom not in rest:
                return None
            rest.remove(atom)
        out[tuple(rest)] = coefficient // dc
    return _normal(out)


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b. Exact where b divides every term of a; multiples of a constant b are taken out of the quotient."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = _exact_quotient(a, b)
    if exact is not None:
        return exact
    a, b = _without_common_factors(a, b)
    if isinstance(b, int):
        whole = {m: c // b * b for m, c in _terms(a).items()}
        rest = _combine(a, _normal(whole), -1)
        nested = _single_atom(rest)
        if nested and nested.kind == "floordiv" and isinstance(nested.args[1], int) and b > 0 and nested.args[1] > 0:
            return _combine(floordiv(_normal(whole), b), floordiv(nested.args[0], nested.args[1] * b), 1)
        quotient = rest // b if isinstance(rest, int) else _atom("floordiv", rest, b)
        return _combine(_normal({m: c // b for m, c in whole.items()}), quotient, 1)
    return _atom("floordiv", a, b)


def _without_common_factors(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """a and b divided by what divides every term of both, where b is one term: their quotient stays what it is."""
    if not isinstance(b, DimExpr) or len(b.terms) != 1 or b.terms[0][1] < 0:
        return a, b
    ((monomial, coefficient),) = b.terms
    factor = math.gcd(coefficient, *_terms(a).values())
    common: list[Atom] = []
    for atom in monomial:
        if all(m.count(atom) > common.count(atom) for m in _terms(a)):
            common.append(atom)
    shared = _normal({tuple(common): factor})
    fewer_a, fewer_b = _exact_quotient(a, shared), _exact_quotient(b, shared)
    return (a, b) if fewer_a is None or fewer_b is None else (fewer_a, fewer_b)


def _single_atom(d: Dim) -> Atom | None:
    if isinstance(d, DimExpr) and len(d.terms) == 1 and d.terms[0][1] == 1 and len(d.terms[0][0]) == 1:
        return d.terms[0][0][0]
    return None


def mod(a: Dim, b: Dim) -> Dim:
    """a mod b, with the sign of b."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if _exact_quotient(a, b) is not None:
        return 0
    if isinstance(b, int):
        rest = _normal({m: c % b for m, c in _terms(a).items()})
        return rest % b if isinstance(rest, int) else _atom("mod", rest, b)
    return _atom("mod", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """The least integer not below a / b."""
    return floordiv(a + b - 1, b)


def _extreme(kind: str, a: Dim, b: Dim) -> Dim:
    """min or max in normal form: nested ones of a kind are one, and an operand that another one bounds falls away."""
    kept: list[Dim] = []
    for operand in (*_operands(kind, a), *_operands(kind, b)):
        if any(_bounded(kind, operand, other) for other in kept):
            continue
        kept = [other for other in kept if not _bounded(kind, other, operand)]
        kept.append(operand)
    first, *rest = sorted(kept, key=str)
    for operand in rest:
        first = DimExpr((((Atom(kind, "", (first, operand)),), 1),))
    return first


def _operands(kind: str, d: Dim) -> tuple[Dim, ...]:
    atom = _single_atom(d)
    if atom is None or atom.kind != kind:
        return (d,)
    return tuple(o for arg in atom.args for o in _operands(kind, arg))


def _bounded(kind: str, a: Dim, b: Dim) -> bool:
    """Whether `b` always is the extreme of the two: max(x, x + 1), max(min(x, y), x)."""
    difference = a - b
    if isinstance(difference, int):
        return difference <= 0 if kind == "max" else difference >= 0
    return b in _operands("min" if kind == "max" else "max", a)


def minimum(a: Dim, b: Dim) -> Dim:
    """The lesser of two dims."""
    return _extreme("min", a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The greater of two dims."""
    return _extreme("max", a, b)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims; 1 of none."""
    out: Dim = 1
    for d in dims:
        out = out * d
    return out


_FUNCTIONS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv, "mod": mod, "min": minimum, "max": maximum,
}  # fmt: skip


def substitute(d: Dim, env: Mapping[str, Dim]) -> Dim:
    """`d` with symbols replaced (those that `env` lacks stay)."""
    if isinstance(d, int):
        return d
    out: Dim = 0
    for monomial, coefficient in d.terms:
        term: Dim = coefficient
        for atom in monomial:
            if atom.kind == "sym":
                term = term * env.get(atom.name, sym(atom.name))
            else:
                term = term * _FUNCTIONS[atom.kind](substitute(atom.args[0], env), substitute(atom.args[1], env))
        out = out + term
    return out


def evaluate(d: Dim, env: Mapping[str, int]) -> int:
    """The value of `d`; ShapeError names a symbol that has none."""
    value = substitute(d, env)
    if isinstance(value, int):
        return value
    raise ShapeError(f"dimension {d} has no value: {', '.join(sorted(symbols(value)))} is unknown here")


def symbols(d: Dim) -> frozenset[str]:
    """Names of all symbols in `d`."""
    if isinstance(d, int):
        return frozenset()
    out: set[str] = set()
    for monomial, _ in d.terms:
        for atom in monomial:
            out |= {atom.name} if atom.kind == "sym" else symbols(atom.args[0]) | symbols(atom.args[1])
    return frozenset(out)


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


def decide_eq(a: Dim, b: Dim, ranges: Ranges, where: str = "") -> bool:
    """Whether a equals b on the whole range; ShapeError where that is open."""
    equal, _ = compare(a, b, ranges)
    if equal is None:
        raise ShapeError(
            f"cannot decide whether dimensions {a} and {b} are equal",
            undecided=symbols(a) | symbols(b),
            where=where or None,
            fix="fix one of them with --shapes, or narrow the profile so that only one answer is left",
        )
    return equal


def divisor(d: Dim, ranges: Ranges) -> int:
    """The greatest power of two (at most 256) known to divide `d`."""
    if isinstance(d, int):
        return (d & -d) if 0 < (d & -d) < 256 else 256
    out = 256
    for monomial, coefficient in d.terms:
        term = (abs(coefficient) & -abs(coefficient)) or 1
        for atom in monomial:
            term *= ranges.get(atom.name, Range()).multiple if atom.kind == "sym" else 1
        out = min(out, term & -term)
    return out


@lru_cache(maxsize=4096)
def parse(text: str) -> Dim:
    """The dim that `str` wrote; ValueError for anything else, however long, deep or wide."""
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"a dimension expression of {len(text)} characters, {TEXT_LIMIT} are allowed")
    try:
        return _parse(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, MemoryError, RecursionError, ZeroDivisionError, ShapeError):
        raise ValueError(f"not a dimension expression: {text!r}") from None


def _parse(node: ast.expr, text: str) -> Dim:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return sym(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -1 * _parse(operand, text)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
            a, b = _parse(left, text), _parse(right, text)
            if len(_terms(a)) * len(_terms(b)) > TERMS_LIMIT:
                raise ValueError(f"a dimension expression of too many terms: {text[:80]!r}...")
            return a + b if isinstance(op, ast.Add) else a - b if isinstance(op, ast.Sub) else a * b
        case ast.Call(func=ast.Name(id=fn), args=[a, b], keywords=[]) if fn in _FUNCTIONS:
            return _FUNCTIONS[fn](_parse(a, text), _parse(b, text))
    raise ValueError(f"not a dimension expression: {text!r}")
