"""Symbolic integers: the sizes of tensors.

A `Dim` is an int or a `DimExpr`: a polynomial over atoms in normal form, where an atom is a symbol or one of
floordiv, mod, min and max of two dims. Two expressions with the same normal form are equal; what else holds over the
ranges of the symbols is asked of core.interval. Floor division and modulo round toward minus infinity, as Python's do.
The arithmetic of the terms is core.polynomial's; the text form (`str`) is read by core.dimtext.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Union, overload

from bessemer.core import polynomial
from bessemer.core.errors import ShapeError

Dim = Union[int, "DimExpr"]
SIZE_LIMIT = 1 << 12  # atoms of an expression; sizes of real models have a few


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


Monomial = polynomial.Monomial[Atom]


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
        return _combine(other, self, -1)

    def __neg__(self) -> Dim:
        return _combine(0, self, -1)

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


def _normal(terms: Mapping[Monomial, int]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return DimExpr(polynomial.in_order(kept))


def _terms(d: Dim) -> dict[Monomial, int]:
    return dict(d.terms) if isinstance(d, DimExpr) else {(): int(d)}


def _combine(a: Dim, b: Dim, sign: int) -> Dim:
    return _normal(polynomial.added(_terms(a), _terms(b), sign))


def _too_large() -> ShapeError:
    return ShapeError(
        f"the expression of a dimension grows beyond {SIZE_LIMIT} parts",
        fix="give the inputs fixed sizes with --shapes",
    )


def _multiply(a: Dim, b: Dim) -> Dim:
    left, right = _terms(a), _terms(b)
    if len(left) * len(right) > SIZE_LIMIT:
        raise _too_large()
    return _normal(polynomial.multiplied(left, right))


def _atom(kind: str, a: Dim, b: Dim) -> Dim:
    return DimExpr((((Atom(kind, "", (a, b)),), 1),))


def _exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """a / b where every term of a is divisible by the single term b, else None."""
    quotient = polynomial.exact_quotient(_terms(a), _terms(b))
    return None if quotient is None else _normal(quotient)


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
    common, factor = polynomial.common_factor(_terms(a), *b.terms[0])
    shared = _normal({common: factor})
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


@overload
def ceildiv(a: int, b: int) -> int: ...
@overload
def ceildiv(a: Dim, b: Dim) -> Dim: ...
def ceildiv(a: Dim, b: Dim) -> Dim:
    """The least integer not below a / b."""
    return floordiv(a + b - 1, b)


def _extreme(kind: str, a: Dim, b: Dim) -> Dim:
    """min or max in normal form: nested ones of a kind are one, and an operand that another one bounds falls away."""
    kept: list[Dim] = []
    for operand in (*operands(kind, a), *operands(kind, b)):
        if any(_bounded(kind, operand, other) for other in kept):
            continue
        kept = [other for other in kept if not _bounded(kind, other, operand)]
        kept.append(operand)
    first, *rest = sorted(kept, key=str)
    for operand in rest:
        first = _atom(kind, first, operand)
    return first


def operands(kind: str, d: Dim) -> tuple[Dim, ...]:
    """The dims of which `d` is the min or max (`kind`); itself where it is none."""
    atom = _single_atom(d)
    if atom is None or atom.kind != kind:
        return (d,)
    return tuple(o for arg in atom.args for o in operands(kind, arg))


def _bounded(kind: str, a: Dim, b: Dim) -> bool:
    """Whether `b` always is the extreme of the two: max(x, x + 1), max(min(x, y), x)."""
    difference = a - b
    if isinstance(difference, int):
        return difference <= 0 if kind == "max" else difference >= 0
    return b in operands("min" if kind == "max" else "max", a)


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


FUNCTIONS: Mapping[str, Callable[[Dim, Dim], Dim]] = {
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
                term = term * FUNCTIONS[atom.kind](substitute(atom.args[0], env), substitute(atom.args[1], env))
        out = out + term
    return out


def evaluate(d: Dim, env: Mapping[str, int]) -> int:
    """The value of `d`; ShapeError names a symbol that has none, or the sizes that have no quotient."""
    try:
        value = substitute(d, env)
    except ZeroDivisionError:
        at = ", ".join(f"{name} = {env[name]}" for name in sorted(symbols(d) & env.keys()))
        raise ShapeError(
            f"dimension {d} has no value: it divides by zero at {at}", fix="give sizes at which no divisor is 0"
        ) from None
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
