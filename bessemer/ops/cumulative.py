"""Running sums and products along one axis.

The definition is a masked reduction: quadratic in the length of the axis, and parallel over everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis = ctx.type(0), ctx.attr("axis")
    if not 0 <= axis < x.rank:
        raise ValueError(f"axis {axis} is not an axis of {x}")
    return (x,)


def _infer_dynamic(ctx: InferContext) -> tuple[TensorType, ...]:
    return (ctx.type(0),)


def _reference(fn: Callable[..., Any], start: int) -> Callable[..., tuple[np.ndarray, ...]]:
    """The numpy reference; the axis is an attribute, or a second input."""

    def run(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        x, *given = inputs
        assert x is not None
        axis = int(given[0].reshape(())) if given and given[0] is not None else attrs["axis"]
        ahead = np.flip(x, axis) if attrs["reverse"] else x
        wide = np.float64 if x.dtype.kind == "f" else x.dtype
        out = fn(ahead, axis=axis, dtype=wide)
        if attrs["exclusive"] and x.shape[axis]:
            first = np.full_like(np.take(out, [0], axis), start)
            out = np.concatenate([first, np.delete(out, -1, axis)], axis)
        return ((np.flip(out, axis) if attrs["reverse"] else out).astype(x.dtype),)

    return run


def _compute(kind: str, start: int) -> Callable[[InferContext], ex.ComputeDef]:
    def compute(ctx: InferContext) -> ex.ComputeDef:
        x, axis = ctx.type(0), ctx.attr("axis")
        acc, here, k = dt.accumulator(x.dtype), ex.Axis(f"i{axis}"), ex.Axis("r")
        compare = {(False, False): "le", (False, True): "lt", (True, False): "ge", (True, True): "gt"}
        taken = ex.call(compare[ctx.attr("reverse"), ctx.attr("exclusive")], k, here)
        index = tuple(k if j == axis else a for j, a in enumerate(ex.out_axes(x.rank)))
        body = ex.Select(taken, ex.cast(ex.load(0, index, x.dtype), acc), ex.lit(start, acc))
        total = ex.Reduce(kind, (("r", x.shape[axis]),), body, acc)
        return ex.ComputeDef(x.shape, x.dtype, ex.cast(total, x.dtype))

    return compute


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.uniform(0.5, 1.5, (3, 5, 2)).astype(np.float32)
    whole = rng.integers(-3, 4, (7,))
    return [
        Sample((a,), {"axis": a.ndim // 2, "exclusive": exclusive, "reverse": reverse}, note=str(a.dtype))
        for a in (x, whole, whole.astype(np.int32), x.astype(np.float16))
        for exclusive in (False, True)
        for reverse in (False, True)
    ]


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.uniform(0.5, 1.5, (3, 5)).astype(np.float32)
    return (Sample((x, np.array(-2)), {"exclusive": True, "reverse": False}),)


def _importer(op: str) -> Callable[[ImportContext], Values]:
    def importer(ctx: ImportContext) -> Values:
        x, axis = ctx.input(0), ctx.ints(ctx.input(1))
        reverse, exclusive = bool(ctx.attr("reverse", 0)), bool(ctx.attr("exclusive", 0))
        if axis is None:
            return ctx.emit(f"{op}_dynamic", x, ctx.input(1), exclusive=exclusive, reverse=reverse)
        return ctx.emit(op, x, axis=ctx.axis(axis[0], ctx.rank(x)), exclusive=exclusive, reverse=reverse)

    return importer


for _op, _kind, _fn, _start, _onnx, _since in (
    ("cumsum", "sum", np.cumsum, 0, "CumSum", (11, 14)),
    ("cumprod", "prod", np.cumprod, 1, "CumProd", (26,)),
):
    register(OpDef(f"{_op}_dynamic", _infer_dynamic, _reference(_fn, _start), Fusion.HOST, samples=_dynamic_samples))
    register(
        OpDef(_op, _infer, _reference(_fn, _start), Fusion.REDUCTION, compute=_compute(_kind, _start), samples=_samples)
    )
    onnx_op(_onnx, since=_since)(_importer(_op))
