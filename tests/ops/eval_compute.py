"""A numpy evaluator of compute definitions: the independent check that a definition says what its reference does.

Evaluation is vectorised over index grids, in the dtypes that the definition names. Unlike `bessemer.ir.scalar`, the
oracle of kernels, it holds the definition to its rules: a load out of bounds fails, unless the Select around it takes
the other side, and so do operands whose dtypes differ. bf16 operands are f32 arrays of values that bf16 holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.scalar import FUNCTIONS, REDUCERS


def numpy_type(dtype: DType) -> np.dtype[Any]:
    """The dtype that values of `dtype` are computed in here."""
    return np.dtype(np.float32) if dtype == dt.bf16 else dtype.numpy


def round_to(array: np.ndarray, dtype: DType) -> np.ndarray:
    """`array` as `dtype`, bf16 as rounded f32."""
    return dt.from_bf16(dt.to_bf16(array)) if dtype == dt.bf16 else array.astype(dtype.numpy)


@dataclass(frozen=True)
class _Scope:
    """Loop variables as arrays over the current grid, the grid's shape, and where on it the value is asked for."""

    axes: Mapping[str, np.ndarray]
    grid: tuple[int, ...]
    mask: np.ndarray

    def narrowed(self, used: set[str]) -> _Scope:
        """This scope with one place along every axis that is not `used`: a value is the same all along it."""
        unused = tuple(int(np.argmax(v.shape)) for k, v in self.axes.items() if v.size > 1 and k not in used)
        cut = [slice(0, 1) if k in unused else slice(None) for k in range(len(self.grid))]
        axes = {k: v[tuple(cut)] for k, v in self.axes.items()}
        grid = tuple(1 if k in unused else n for k, n in enumerate(self.grid))
        return _Scope(axes, grid, self.mask.any(axis=unused, keepdims=True))

    def deeper(self, axes: Sequence[tuple[str, int]]) -> _Scope:
        rank, n = len(self.grid), len(axes)
        old = {k: v.reshape((*v.shape, *(1,) * n)) for k, v in self.axes.items()}
        new = {
            name: np.arange(size, dtype=np.int64).reshape((1,) * (rank + j) + (size,) + (1,) * (n - j - 1))
            for j, (name, size) in enumerate(axes)
        }
        mask = self.mask.reshape((*self.mask.shape, *(1,) * n))
        return _Scope({**old, **new}, self.grid + tuple(s for _, s in axes), mask)


class Evaluator:
    """Evaluates one definition over `operands`; `env` gives the symbols' values."""

    def __init__(self, operands: Sequence[np.ndarray | None], env: Mapping[str, int] | None = None) -> None:
        self.operands, self.env = operands, env or {}

    def run(self, definition: ex.ComputeDef) -> np.ndarray:
        """The whole output tensor."""
        shape = tuple(evaluate(d, self.env) for d in definition.shape)
        empty = _Scope({}, (), np.ones((), bool))
        scope = empty.deeper([(a.name, n) for a, n in zip(definition.axes, shape)])
        assert definition.expr.dtype == definition.dtype, f"{definition.expr.dtype} is not {definition.dtype}"
        out = self.value(definition.expr, scope)
        return np.broadcast_to(round_to(out, definition.dtype), shape)

    def value(self, e: ex.Expr, scope: _Scope) -> np.ndarray:
        match e:
            case ex.Lit():
                return np.asarray(e.value, numpy_type(e.dtype)).reshape((1,) * len(scope.grid))
            case ex.Size():
                return np.full((1,) * len(scope.grid), evaluate(e.dim, self.env), np.int64)
            case ex.Axis():
                return scope.axes[e.name]
            case ex.Load():
                return self._load(e, scope)
            case ex.Call():
                return self._call(e, scope)
            case ex.Select():
                return self._select(e, scope)
            case ex.Cast():
                arg = self.value(e.arg, scope)
                return round_to(arg != 0 if e.dtype == dt.bool_ else arg, e.dtype)
            case ex.Reduce():
                return self._reduce(e, scope)
        raise TypeError(f"{type(e).__name__} has no value in a definition")

    def _load(self, e: ex.Load, scope: _Scope) -> np.ndarray:
        array = self.operands[e.operand]
        assert array is not None, f"operand {e.operand} is absent"
        assert len(e.index) == array.ndim, f"operand {e.operand} of rank {array.ndim} has {len(e.index)} indices"
        assert array.dtype == numpy_type(e.dtype), f"operand {e.operand} is {array.dtype}, the load {e.dtype}"
        index = []
        for k, (i, size) in enumerate(zip(e.index, array.shape)):
            at = self.value(i, scope)
            assert at.dtype == np.int64, f"index {k} of operand {e.operand} is {at.dtype}"
            outside = np.broadcast_to(scope.mask & ((at < 0) | (at >= size)), scope.grid)
            assert not outside.any(), f"operand {e.operand}, axis {k}: index out of bounds of size {size}"
            index.append(np.where((at < 0) | (at >= size), 0, at))
        if not index:
            return np.asarray(array).reshape((1,) * len(scope.grid))
        if array.size == 0:
            return np.zeros((1,) * len(scope.grid), array.dtype)
        return np.asarray(array[tuple(index)])

    def _call(self, e: ex.Call, scope: _Scope) -> np.ndarray:
        args = [self.value(a, scope) for a in e.args]
        assert len({a.dtype for a in e.args}) == 1, f"{e.fn} of {[str(a.dtype) for a in e.args]}"
        with np.errstate(all="ignore"):
            out = np.asarray(FUNCTIONS[e.fn](*args))
        return out.astype(numpy_type(e.dtype))

    def _select(self, e: ex.Select, scope: _Scope) -> np.ndarray:
        assert e.cond.dtype == dt.bool_ and e.a.dtype == e.b.dtype, f"select({e.cond.dtype}, {e.a.dtype}, {e.b.dtype})"
        cond = self.value(e.cond, scope)
        a = self.value(e.a, _Scope(scope.axes, scope.grid, scope.mask & cond))
        b = self.value(e.b, _Scope(scope.axes, scope.grid, scope.mask & ~cond))
        return np.where(cond, a, b)

    def _reduce(self, e: ex.Reduce, scope: _Scope) -> np.ndarray:
        sizes = [(name, evaluate(d, self.env)) for name, d in e.axes]
        scope = scope.narrowed({n.name for n in exprtree.walk(e) if isinstance(n, ex.Axis)})
        inner = scope.deeper(sizes)
        body = np.broadcast_to(self.value(e.body, inner), inner.grid)
        over = tuple(range(len(scope.grid), len(inner.grid)))
        if e.kind.startswith("arg"):
            return _arg_reduce(e.kind, body, over[0])
        body = body.astype(numpy_type(e.acc))
        if body.size == 0 and e.kind in ("max", "min"):
            return np.full(scope.grid, _identity(e.kind, body.dtype), body.dtype)
        exact = body.astype(np.float64) if body.dtype == np.float32 else body
        with np.errstate(all="ignore"):
            return np.asarray(REDUCERS[e.kind](exact, axis=over)).astype(body.dtype)


def _identity(kind: str, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return -np.inf if kind == "max" else np.inf
    return np.iinfo(dtype).min if kind == "max" else np.iinfo(dtype).max


def _arg_reduce(kind: str, body: np.ndarray, axis: int) -> np.ndarray:
    fn = np.argmax if kind.startswith("argmax") else np.argmin
    if kind.endswith("_last"):
        return np.asarray(body.shape[axis] - 1 - fn(np.flip(body, axis), axis=axis)).astype(np.int64)
    return np.asarray(fn(body, axis=axis)).astype(np.int64)
