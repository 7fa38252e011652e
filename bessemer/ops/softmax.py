"""Softmax and log-softmax over one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    if not 0 <= ctx.attr("axis") < x.rank:
        raise ValueError(f"axis {ctx.attr('axis')} is out of range for {x}")
    return (x,)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Stable: the maximum is subtracted first; computed in f64."""
    (x,) = inputs
    assert x is not None
    if x.size == 0:
        return (x.copy(),)
    axis = attrs["axis"]
    wide = x.astype(np.float64)
    shifted = wide - wide.max(axis=axis, keepdims=True)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    out = shifted - np.log(total) if attrs["log"] else np.exp(shifted) / total
    return (out.astype(x.dtype),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, k = ctx.type(0), ctx.attr("axis")
    axes, acc = ex.out_axes(x.rank), dt.accumulator(x.dtype)

    def at(index: ex.Expr) -> ex.Expr:
        return ex.cast(ex.load(0, (*axes[:k], index, *axes[k + 1 :]), x.dtype), acc)

    peak = ex.Reduce("max", (("r0", x.shape[k]),), at(ex.Axis("r0")), acc)
    total = ex.Reduce("sum", (("r1", x.shape[k]),), ex.call("exp", ex.call("sub", at(ex.Axis("r1")), peak)), acc)
    shifted = ex.call("sub", at(axes[k]), peak)
    if ctx.attr("log"):
        out = ex.call("sub", shifted, ex.call("log", total))
    else:
        out = ex.call("div", ex.call("exp", shifted), total)
    return ex.ComputeDef(x.shape, x.dtype, ex.cast(out, x.dtype))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return 3 * rng.standard_normal(shape).astype(np.float32)

    return (
        Sample((x(5, 37),), {"axis": 1, "log": False}),
        Sample((x(2, 3, 4, 129),), {"axis": 3, "log": True}),
        Sample((x(3, 17, 5),), {"axis": 1, "log": False}),
        Sample((x(2, 1000),), {"axis": 1, "log": False}),
        Sample((x(3, 17, 5).astype(np.float64),), {"axis": 1, "log": True}, note="f64"),
        Sample((40 * x(4, 9),), {"axis": 0, "log": True}, note="far apart"),
    )


register(OpDef("softmax", _infer, _reference, Fusion.TEMPLATE, _compute, samples=_samples))


@onnx_op("Softmax", since=(13,))
@onnx_op("LogSoftmax", since=(13,))
def _import_axis(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    axis, log = ctx.axis(ctx.attr("axis", -1), ctx.rank(x)), ctx.op_type == "LogSoftmax"
    if not ctx.rank(x):
        one = ctx.emit("softmax", ctx.emit("reshape", x, shape=(1,)), axis=0, log=log)
        return ctx.emit("reshape", one, shape=())
    return ctx.emit("softmax", x, axis=axis, log=log)


@onnx_op("Softmax", since=(1, 11))
@onnx_op("LogSoftmax", since=(1, 11))
def _import_flattened(ctx: ImportContext) -> Values:
    """Before opset 13 the axes from `axis` on are one."""
    x = ctx.input(0)
    shape = ctx.shape(x)
    axis = ctx.axis(ctx.attr("axis", 1), len(shape))
    log = ctx.op_type == "LogSoftmax"
    if axis == len(shape) - 1:
        return ctx.emit("softmax", x, axis=axis, log=log)
    flat = ctx.emit("reshape", x, shape=(product(shape[:axis]), product(shape[axis:])))
    return ctx.emit("reshape", ctx.emit("softmax", flat, axis=1, log=log), shape=shape)
