"""Where along one axis the extreme value stands: argmax, argmin, and Hardmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.generate import emit_range
from bessemer.ops.reduce import reduced_index, reduced_shape


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis = ctx.type(0), ctx.attr("axis")
    if not 0 <= axis < x.rank:
        raise ValueError(f"axis {axis} is not an axis of {x}")
    return (TensorType(dt.i64, reduced_shape(x.shape, (axis,), ctx.attr("keepdims"))),)


def _reference(fn: Callable[..., Any]) -> Callable[..., tuple[np.ndarray, ...]]:
    def run(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        assert x is not None
        axis, keepdims = attrs["axis"], attrs["keepdims"]
        if attrs["last"]:
            return (np.asarray(x.shape[axis] - 1 - fn(np.flip(x, axis), axis=axis, keepdims=keepdims)),)
        return (np.asarray(fn(x, axis=axis, keepdims=keepdims)),)

    return run


def _compute(kind: str) -> Callable[[InferContext], ex.ComputeDef]:
    def compute(ctx: InferContext) -> ex.ComputeDef:
        (out,) = _infer(ctx)
        x, axis = ctx.type(0), ctx.attr("axis")
        body = ex.load(0, reduced_index(x.rank, (axis,), ctx.attr("keepdims")), x.dtype)
        name = f"{kind}_last" if ctx.attr("last") else kind
        return ex.ComputeDef(out.shape, dt.i64, ex.Reduce(name, ((f"r{axis}", x.shape[axis]),), body, x.dtype))

    return compute


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 5, 4)).astype(np.float32)
    ties = rng.integers(0, 3, (4, 9))
    return [
        Sample((a,), {"axis": axis, "keepdims": keepdims, "last": last}, note=f"{a.dtype} axis {axis}")
        for a in (x, ties, ties.astype(np.float16), ties.astype(np.uint8))
        for axis, keepdims, last in ((0, True, False), (a.ndim - 1, False, True), (1, True, False))
    ]


for _kind, _fn in (("argmax", np.argmax), ("argmin", np.argmin)):
    register(OpDef(_kind, _infer, _reference(_fn), Fusion.REDUCTION, compute=_compute(_kind), samples=_samples))


def _importer(op: str) -> Callable[[ImportContext], Values]:
    def importer(ctx: ImportContext) -> Values:
        x = ctx.input(0)
        last, keepdims = bool(ctx.attr("select_last_index", 0)), bool(ctx.attr("keepdims", 1))
        return ctx.emit(op, x, axis=ctx.axis(ctx.attr("axis", 0), ctx.rank(x)), keepdims=keepdims, last=last)

    return importer


onnx_op("ArgMax", since=(1, 11, 12, 13))(_importer("argmax"))
onnx_op("ArgMin", since=(1, 11, 12, 13))(_importer("argmin"))


def _hardmax(ctx: ImportContext, x: str, axis: int) -> str:
    """1 at the first maximum along `axis`, 0 elsewhere."""
    found = ctx.emit("argmax", x, axis=axis, keepdims=True, last=False)
    size = ctx.shape(x)[axis]
    column = (size, *(1,) * (ctx.rank(x) - axis - 1))
    position = ctx.emit("reshape", emit_range(ctx, size, dt.i64), shape=column)
    return ctx.cast(ctx.emit("eq", position, found), ctx.dtype(x))


@onnx_op("Hardmax", since=(1, 11))
def _hardmax_flat(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    shape = ctx.shape(x)
    axis = ctx.axis(ctx.attr("axis", 1), len(shape))
    flat = ctx.emit("reshape", x, shape=(product(shape[:axis]), product(shape[axis:])))
    return ctx.emit("reshape", _hardmax(ctx, flat, 1), shape=shape)


@onnx_op("Hardmax", since=(13,))
def _hardmax_axis(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    return _hardmax(ctx, x, ctx.axis(ctx.attr("axis", -1), ctx.rank(x)))
