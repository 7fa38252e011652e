"""Squeeze and Unsqueeze: reshapes, or host ops where the axes are data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bessemer.core.dim import Dim
from bessemer.core.interval import compare
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.dynamic import length, vector


def _squeeze(ctx: ImportContext, given: Sequence[int] | None) -> Values:
    x = ctx.input(0)
    shape = ctx.shape(x)
    if given is None:
        dynamic = [str(d) for d in shape if compare(d, 1, ctx.ranges)[0] is None]
        if dynamic:
            ctx.unsupported(f"which axes to squeeze depends on the dynamic sizes {', '.join(dynamic)}; give the axes")
        axes = {k for k, d in enumerate(shape) if compare(d, 1, ctx.ranges)[0]}
    else:
        axes = {ctx.axis(a, len(shape)) for a in given}
    wrong = [k for k in axes if compare(shape[k], 1, ctx.ranges)[0] is False]
    if wrong:
        ctx.unsupported(f"axis {wrong[0]} has size {shape[wrong[0]]}, not 1")
    return ctx.emit("reshape", x, shape=tuple(d for k, d in enumerate(shape) if k not in axes))


@onnx_op("Squeeze", since=(1, 11))
def _squeeze_attribute(ctx: ImportContext) -> Values:
    return _squeeze(ctx, ctx.attr("axes", None))


@onnx_op("Squeeze", since=(13, 21, 23, 24, 25))
def _squeeze_input(ctx: ImportContext) -> Values:
    axes = ctx.ints(ctx.input(1)) if ctx.has(1) else None
    if ctx.has(1) and axes is None:
        return ctx.emit("squeeze_dynamic", ctx.input(0), vector(ctx, 1))
    return _squeeze(ctx, axes)


def _unsqueeze(ctx: ImportContext, given: Sequence[int]) -> Values:
    x = ctx.input(0)
    rank = ctx.rank(x) + len(given)
    axes = {ctx.axis(a, rank) for a in given}
    if len(axes) != len(given):
        ctx.unsupported(f"axes {tuple(given)} name an axis twice")
    rest = iter(ctx.shape(x))
    shape: tuple[Dim, ...] = tuple(1 if k in axes else next(rest) for k in range(rank))
    return ctx.emit("reshape", x, shape=shape)


@onnx_op("Unsqueeze", since=(1, 11))
def _unsqueeze_attribute(ctx: ImportContext) -> Values:
    return _unsqueeze(ctx, ctx.attr("axes"))


@onnx_op("Unsqueeze", since=(13, 21, 23, 24, 25))
def _unsqueeze_input(ctx: ImportContext) -> Values:
    axes = ctx.ints(ctx.input(1))
    if axes is None:
        return ctx.emit("unsqueeze_dynamic", ctx.input(0), vector(ctx, 1))
    return _unsqueeze(ctx, axes)


# -- axes known only at run time ----------------------------------------------------------------------------------


def _dynamic_infer(sign: int) -> Callable[[InferContext], tuple[TensorType, ...]]:
    def infer(ctx: InferContext) -> tuple[TensorType, ...]:
        x = ctx.type(0)
        assert ctx.fresh is not None
        rank = x.rank + sign * length(ctx, 1)
        return (TensorType(x.dtype, tuple(ctx.fresh("squeeze", None) for _ in range(rank))),)

    return infer


def _squeeze_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    x, axes = inputs
    assert x is not None and axes is not None
    return (np.squeeze(x, tuple(axes.tolist())),)


def _unsqueeze_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    x, axes = inputs
    assert x is not None and axes is not None
    return (np.expand_dims(x, tuple(axes.tolist())),)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.standard_normal((1, 3, 1, 2)).astype(np.float32), np.array([0, -2]))),)


register(OpDef("squeeze_dynamic", _dynamic_infer(-1), _squeeze_reference, Fusion.HOST, samples=_samples))
register(OpDef("unsqueeze_dynamic", _dynamic_infer(1), _unsqueeze_reference, Fusion.HOST, samples=_samples))
