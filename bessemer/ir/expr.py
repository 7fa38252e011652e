"""The scalar language of compute definitions.

A compute definition says, for one output element, which scalar it holds: an expression over the element's coordinates
(`Axis`), loads from operands at index expressions, calls of scalar functions and, for reductions, `Reduce`. Fusing two
definitions is substitution (`exprtree.rewrite`), and one generator per kernel language prints any expression.

Semantics, the same in every language: integers wrap; integer `div` truncates toward zero, `floordiv`/`floormod` round
down; a quotient or remainder by zero is 0, and the least integer by -1 wraps to itself; `fmod` has the sign of the
dividend; `shr` is logical on unsigned and arithmetic on signed types; float `min`/`max` give NaN if
either side is NaN; casting float to int truncates; `Select` evaluates only the side it takes, so a load under it may be
out of bounds on the other side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Union

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType

UNARY = frozenset(
    "neg abs sign floor ceil round trunc sqrt rsqrt reciprocal exp expm1 log log1p sin cos tan asin acos atan sinh "
    "cosh tanh asinh acosh atanh erf sigmoid not bitnot isnan isinf popcount".split()
)
BINARY = frozenset(
    "add sub mul div floordiv floormod fmod pow min max and or xor bitand bitor bitxor shl shr atan2 "
    "eq ne lt le gt ge".split()
)
COMPARISONS = frozenset("eq ne lt le gt ge isnan isinf not and or xor".split())
REDUCERS = frozenset("sum prod max min any all argmax argmin argmax_last argmin_last".split())

Expr = Union["Lit", "Size", "Axis", "Load", "Acc", "Call", "Select", "Cast", "Reduce"]


@dataclass(frozen=True, slots=True)
class Lit:
    """A literal; `value` may be inf or nan for floats."""

    value: bool | int | float
    dtype: DType


@dataclass(frozen=True, slots=True)
class Size:
    """A dim as an i64 value (constant or known at run time)."""

    dim: Dim

    @property
    def dtype(self) -> DType:
        return dt.i64


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop variable, an i64: `i0`, `i1`, ... are the output's coordinates, other names belong to a Reduce."""

    name: str

    @property
    def dtype(self) -> DType:
        return dt.i64


@dataclass(frozen=True, slots=True)
class Load:
    """Element of operand number `operand` at `index` (one i64 expression per axis of the operand)."""

    operand: int
    index: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Acc:
    """In an epilogue: the anchor's result at the output's coordinates, in the accumulator's dtype."""

    dtype: DType


@dataclass(frozen=True, slots=True)
class Call:
    """A scalar function of UNARY or BINARY; comparisons and logic give bool, all else the dtype of the arguments."""

    fn: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Select:
    """`a` where `cond` (bool) holds, else `b`."""

    cond: Expr
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        return self.a.dtype


@dataclass(frozen=True, slots=True)
class Cast:
    """`arg` converted to `dtype`."""

    arg: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Reduce:
    """`kind` of REDUCERS over `axes` ((name, extent), outermost first) of `body`.

    argmax/argmin reduce over one axis and give its i64 coordinate (first on ties; `_last` variants: last on ties).
    Floats accumulate in `acc` (f32 for f16 and bf16 bodies).
    """

    kind: str
    axes: tuple[tuple[str, Dim], ...]
    body: Expr
    acc: DType

    @property
    def dtype(self) -> DType:
        return dt.i64 if self.kind.startswith("arg") else self.acc


@dataclass(frozen=True, slots=True)
class ComputeDef:
    """One output tensor: its shape, dtype, and the scalar at coordinates (Axis("i0"), Axis("i1"), ...)."""

    shape: tuple[Dim, ...]
    dtype: DType
    expr: Expr

    @property
    def axes(self) -> tuple[Axis, ...]:
        return out_axes(len(self.shape))


def out_axes(rank: int) -> tuple[Axis, ...]:
    """The coordinates of a rank-`rank` output."""
    return tuple(Axis(f"i{k}") for k in range(rank))


def lit(value: bool | int | float, dtype: DType) -> Lit:
    """A literal of `dtype`, its value converted to it."""
    return Lit(bool(value) if dtype.kind == "b" else int(value) if dtype.is_int else float(value), dtype)


def idx(value: Dim | Expr) -> Expr:
    """An index expression of a dim (or itself)."""
    return lit(value, dt.i64) if isinstance(value, int) else value if isinstance(value, _EXPR) else Size(value)


def call(fn: str, *args: Expr) -> Expr:
    """A call of a scalar function, with integer identities folded so that index arithmetic stays small."""
    if fn not in UNARY and fn not in BINARY:
        raise ValueError(f"unknown scalar function {fn!r}")
    dtype = dt.bool_ if fn in COMPARISONS else args[0].dtype
    return _fold_index(fn, args) or Call(fn, args, dtype)


def _fold_index(fn: str, args: tuple[Expr, ...]) -> Expr | None:
    if len(args) != 2 or args[0].dtype != dt.i64:
        return None
    a, b = args
    if isinstance(b, Lit):
        if fn in ("add", "sub") and b.value == 0:
            return a
        if fn in ("mul", "div", "floordiv") and b.value == 1:
            return a
        if (fn == "mul" and b.value == 0) or (fn == "floormod" and b.value == 1):
            return lit(0, dt.i64)
    if isinstance(a, Lit) and a.value == 0 and fn == "add":
        return b
    if isinstance(a, Lit) and isinstance(b, Lit):
        table: dict[str, Callable[[int, int], int]] = {
            "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y,
            "floordiv": lambda x, y: x // y, "floormod": lambda x, y: x % y,
        }  # fmt: skip
        if fn in table and not (fn.startswith("floor") and b.value == 0):
            value = table[fn](int(a.value), int(b.value))
            return lit(value, dt.i64) if -(2**63) <= value < 2**63 else None
    return None


def load(operand: int, index: tuple[Expr, ...], dtype: DType) -> Load:
    """A load; see Load."""
    return Load(operand, index, dtype)


def cast(arg: Expr, dtype: DType) -> Expr:
    """`arg` as `dtype`; nothing where it already is."""
    if arg.dtype == dtype:
        return arg
    return lit(arg.value, dtype) if isinstance(arg, Lit) and dtype.kind != "b" and arg.value == arg.value and abs(
        arg.value
    ) < 2**24 else Cast(arg, dtype)


def broadcast_index(shape: tuple[Dim, ...], axes: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The index of a numpy-broadcast operand of `shape` under output coordinates `axes`."""
    tail = axes[len(axes) - len(shape) :]
    return tuple(lit(0, dt.i64) if size == 1 else axis for size, axis in zip(shape, tail, strict=True))


_EXPR = (Lit, Size, Axis, Load, Acc, Call, Select, Cast, Reduce)


assert all(fields(cls) for cls in _EXPR)
