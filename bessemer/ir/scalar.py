"""Evaluates scalar expressions over whole tensors with numpy: the oracle of generated kernels and epilogues.

Floats are computed in float64 whatever their dtype, so that the result is the rounding-free value; integers wrap as
their dtype does. Loads are clipped into their operand, because `Select` may guard an index that is out of bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate as evaluate_dim
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex

Array = np.ndarray[Any, Any]


def evaluate(
    e: ex.Expr, shape: Sequence[int], dtype: DType, arrays: Sequence[Array], env: Mapping[str, int],
    acc: Array | None = None,
) -> Array:  # fmt: skip
    """The tensor of `shape` whose element at (i0, i1, ...) is `e`, in `dtype` (bf16: as float32 rounded to bf16).

    `arrays` are the operands (bf16 as float32); `acc` is the anchor's result where `e` reads `Acc`.
    """
    axes = {f"i{k}": _axis(size, k, len(shape)) for k, size in enumerate(shape)}
    with np.errstate(all="ignore"):
        value = _Evaluator(arrays, env, axes, len(shape), acc).value(e)
        out = np.broadcast_to(value, tuple(shape))
        return round_to(out, dtype)


@dataclass(frozen=True)
class Doubt:
    """How far values of an expression can be held against those of a kernel, which computes in its own precision."""

    addend: float = 0.0  # the largest norm of what is added up: where sums cancel, its rounding is what is left
    defined: Array | None = None  # which elements are, where some cast to an integer what none can hold


def doubt(
    e: ex.Expr, shape: Sequence[int], arrays: Sequence[Array], env: Mapping[str, int], acc: Array | None = None
) -> Doubt:
    """That of `evaluate(e, ...)`. It looks into the sums of reductions, but not at casts inside of them."""
    axes = {f"i{k}": _axis(size, k, len(shape)) for k, size in enumerate(shape)}
    addend, defined = 0.0, None
    with np.errstate(all="ignore"):
        evaluator = _Evaluator(arrays, env, axes, len(shape), acc)
        evaluator.value(e)
        for node, _ in list(evaluator.memo.values()):
            parts: list[Array] = []
            if isinstance(node, ex.Call) and node.fn in ("add", "sub") and node.dtype.is_float:
                parts = [evaluator.value(a) for a in node.args]
            elif isinstance(node, ex.Reduce) and node.kind == "sum" and node.dtype.is_float:
                parts = [evaluator.value(replace(node, body=ex.call("abs", node.body)))]
            elif isinstance(node, ex.Cast) and node.arg.dtype.is_float and node.dtype.is_int:
                holds = np.abs(evaluator.value(node.arg)) < 2.0**63
                defined = holds if defined is None else defined & holds
            for part in parts:
                whole = np.broadcast_to(part, tuple(shape))
                addend = max(addend, float(np.linalg.norm(np.where(np.isfinite(whole), whole, 0.0))))
    return Doubt(addend, None if defined is None or defined.all() else np.broadcast_to(defined, tuple(shape)))


def round_to(values: Array, dtype: DType) -> Array:
    """float64 values as `dtype` (bf16: float32 rounded to bf16)."""
    if dtype == dt.bf16:
        return dt.from_bf16(dt.to_bf16(values.astype(np.float32)))
    return values.astype(dtype.numpy, order="C")


def _axis(size: int, k: int, rank: int) -> Array:
    return np.arange(size, dtype=np.int64).reshape((1,) * k + (size,) + (1,) * (rank - k - 1))


@dataclass
class _Evaluator:
    arrays: Sequence[Array]
    env: Mapping[str, int]
    axes: dict[str, Array]
    rank: int
    acc: Array | None

    def __post_init__(self) -> None:
        self.memo: dict[int, tuple[ex.Expr, Array]] = {}

    def value(self, e: ex.Expr) -> Array:
        found = self.memo.get(id(e))
        if found is None:
            found = (e, np.asarray(self._value(e)))
            self.memo[id(e)] = found
        return found[1]

    def _value(self, e: ex.Expr) -> Any:
        match e:
            case ex.Lit():
                return np.asarray(e.value, np.float64 if e.dtype.is_float else e.dtype.numpy)
            case ex.Size():
                return np.int64(evaluate_dim(e.dim, self.env))
            case ex.Axis():
                return self.axes[e.name]
            case ex.Acc():
                assert self.acc is not None
                return self.acc.astype(np.float64) if e.dtype.is_float else self.acc
            case ex.Load():
                return self._load(e)
            case ex.Select():
                return np.where(self.value(e.cond), self.value(e.a), self.value(e.b))
            case ex.Cast():
                return _cast(self.value(e.arg), e.arg.dtype, e.dtype)
            case ex.Reduce():
                return self._reduce(e)
            case ex.Call():
                return _wrap(FUNCTIONS[e.fn](*(self.value(a) for a in e.args)), e.dtype)
        raise TypeError(f"not an expression: {e!r}")

    def _load(self, e: ex.Load) -> Array:
        array = self.arrays[e.operand]
        if array.size == 0:
            return np.zeros((1,) * self.rank, array.dtype)
        index = tuple(np.clip(self.value(i), 0, size - 1) for i, size in zip(e.index, array.shape, strict=True))
        out = array[index] if index else array
        return np.asarray(out, np.float64) if e.dtype.is_float else np.asarray(out)

    def _reduce(self, e: ex.Reduce) -> Array:
        extents = [evaluate_dim(size, self.env) for _, size in e.axes]
        n = len(extents)
        axes = {name: a.reshape(a.shape + (1,) * n) for name, a in self.axes.items()}
        for k, ((name, _), size) in enumerate(zip(e.axes, extents)):
            axes[name] = _axis(size, self.rank + k, self.rank + n)
        acc = None if self.acc is None else self.acc.reshape(self.acc.shape + (1,) * n)
        body = _Evaluator(self.arrays, self.env, axes, self.rank + n, acc).value(e.body)
        lead = body.shape[: self.rank] if body.ndim else (1,) * self.rank
        body = np.broadcast_to(body, (*lead, *extents))
        over = tuple(range(self.rank, self.rank + n))
        if e.kind.startswith("arg"):
            return _argument(e.kind, body, self.rank)
        if body.size == 0 or math.prod(extents) == 0:
            return np.full(body.shape[: self.rank], _identity(e.kind, e.acc))
        return _wrap(REDUCERS[e.kind](body, axis=over), e.acc)


def _argument(kind: str, body: Array, axis: int) -> Array:
    flipped = kind.endswith("_last")
    values = np.flip(body, axis) if flipped else body
    found = (np.argmax if kind.startswith("argmax") else np.argmin)(values, axis=axis)
    return np.asarray(body.shape[axis] - 1 - found if flipped else found, np.int64)


def _identity(kind: str, dtype: DType) -> Any:
    if kind in ("sum", "any"):
        return 0
    if kind in ("prod", "all"):
        return 1
    if dtype.is_float:
        return -np.inf if kind == "max" else np.inf
    info = np.iinfo(dtype.numpy)
    return info.min if kind == "max" else info.max


def _wrap(value: Any, dtype: DType) -> Array:
    if dtype.is_float:
        return np.asarray(value, np.float64)
    return np.asarray(value).astype(dtype.numpy, copy=False)


def _cast(value: Array, source: DType, dtype: DType) -> Array:
    if dtype.kind == "b":
        return np.asarray(value != 0)
    if dtype.is_float:
        rounded = value.astype(np.float64)
        if dtype.name in ("f16", "bf16") and not source.is_float:
            return round_to(rounded, dtype).astype(np.float64)
        return rounded
    return np.trunc(value).astype(np.int64).astype(dtype.numpy) if source.is_float else value.astype(dtype.numpy)


def quotient(a: Array, b: Array) -> Array:
    """a / b; of integers truncated toward zero, 0 for b = 0, and the least of a signed type by -1 is itself."""
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return np.asarray(a / b)
    floor = np.floor_divide(a, b)
    return np.asarray(floor if a.dtype.kind == "u" else floor + ((floor < 0) & (floor * b != a)), a.dtype)


def _shift(fn: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    def shifted(a: Array, b: Array) -> Array:
        bits = a.dtype.itemsize * 8
        return np.where(b >= bits, 0, fn(a, np.minimum(b, bits - 1)))

    return shifted


_erf = np.vectorize(math.erf, otypes=[np.float64])
_popcount = np.vectorize(lambda v: int(v).bit_count(), otypes=[np.int64])

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "trunc": np.trunc, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x,
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "erf": lambda x: _erf(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "not": np.logical_not, "bitnot": np.invert, "isnan": np.isnan,
    "isinf": np.isinf, "popcount": lambda x: _popcount(x),
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": quotient, "floordiv": np.floor_divide,
    "floormod": np.mod, "fmod": np.fmod, "pow": np.power, "min": np.minimum, "max": np.maximum,
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "bitand": np.bitwise_and,
    "bitor": np.bitwise_or, "bitxor": np.bitwise_xor, "shl": _shift(np.left_shift), "shr": _shift(np.right_shift),
    "atan2": np.arctan2, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip

REDUCERS: Mapping[str, Callable[..., Any]] = {
    "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all,
}  # fmt: skip

assert set(FUNCTIONS) == set(ex.UNARY | ex.BINARY)
