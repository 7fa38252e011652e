"""Layer, RMS, group, instance and batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import same_dim


def _layer_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis = ctx.type(0), ctx.attr("axis")
    if not 0 <= axis < x.rank or ctx.attr("mode") not in ("layer", "rms"):
        raise ValueError(f"axis {axis} or mode {ctx.attr('mode')!r} does not fit {x}")
    return (x,)


def _layer_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Computed in f64."""
    x = inputs[0]
    assert x is not None
    axes = tuple(range(attrs["axis"], x.ndim))
    wide = x.astype(np.float64)
    if attrs["mode"] == "layer":
        wide = wide - wide.mean(axis=axes, keepdims=True)
    out = wide / np.sqrt((wide * wide).mean(axis=axes, keepdims=True) + attrs["epsilon"])
    extra = [i for i in inputs[1:] if i is not None]
    if attrs["has_scale"]:
        out = out * extra.pop(0)
    if attrs["has_bias"]:
        out = out + extra.pop(0)
    return (out.astype(x.dtype),)


def _layer_compute(ctx: InferContext) -> ex.ComputeDef:
    x, first = ctx.type(0), ctx.attr("axis")
    axes, acc = ex.out_axes(x.rank), dt.accumulator(x.dtype)

    def at(tag: str) -> ex.Expr:
        return ex.cast(ex.load(0, (*axes[:first], *(ex.Axis(f"{tag}{k}") for k in range(first, x.rank))), x.dtype), acc)

    spans = {tag: tuple((f"{tag}{k}", x.shape[k]) for k in range(first, x.rank)) for tag in "mv"}
    out = _normalised(at, spans, ctx.attr("mode") == "layer", ctx.attr("epsilon"), acc)
    operand = 1
    for fn in [f for f, given in (("mul", ctx.attr("has_scale")), ("add", ctx.attr("has_bias"))) if given]:
        t = ctx.type(operand)
        out = ex.call(fn, out, ex.cast(ex.load(operand, ex.broadcast_index(t.shape, axes), t.dtype), acc))
        operand += 1
    return ex.ComputeDef(x.shape, x.dtype, ex.cast(out, x.dtype))


def _normalised(
    at: Callable[[str], ex.Expr], spans: Mapping[str, tuple[tuple[str, Dim], ...]], centre: bool, epsilon: float,
    acc: DType,
) -> ex.Expr:  # fmt: skip
    """The element at("i"), less the mean where `centre`, over the root mean square; "m" and "v" are summed over."""
    count = ex.cast(ex.idx(product(size for _, size in spans["m"])), acc)
    mean = ex.call("div", ex.Reduce("sum", spans["m"], at("m"), acc), count)
    other, own = (ex.call("sub", at(tag), mean) if centre else at(tag) for tag in "vi")
    square = ex.call("div", ex.Reduce("sum", spans["v"], ex.call("mul", other, other), acc), count)
    return ex.call("mul", own, ex.call("rsqrt", ex.call("add", square, ex.lit(epsilon, acc))))


def _layer_samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def attrs(axis: int, mode: str, scale: bool, bias: bool) -> dict[str, Any]:
        return {"axis": axis, "epsilon": 1e-5, "mode": mode, "has_scale": scale, "has_bias": bias}

    return (
        Sample((x(4, 96), x(96), x(96)), attrs(1, "layer", True, True)),
        Sample((x(2, 3, 37), x(37)), attrs(2, "rms", True, False)),
        Sample((x(2, 5, 7), x(5, 7), x(5, 7)), attrs(1, "layer", True, True), note="two axes"),
        Sample((x(3, 65),), attrs(1, "layer", False, False)),
    )


def _layer_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    x = ctx.type(0)
    for t in ctx.types[1:]:
        if t is not None:
            yield from ((size, d) for size, d in zip(reversed(t.shape), reversed(x.shape)) if size != 1)


register(
    OpDef(
        "layer_norm", _layer_infer, _layer_reference, Fusion.TEMPLATE, _layer_compute, samples=_layer_samples,
        taken=_layer_taken,
    )
)  # fmt: skip


def _channels(ctx: InferContext) -> Dim:
    return ctx.type(0).shape[1 if ctx.attr("layout") == "NCHW" else -1]


def _group_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    channels = _channels(ctx)
    if ctx.type(1).rank != 1 or ctx.type(2).rank != 1:
        raise ValueError(f"scale and bias must be vectors, not {ctx.type(1)} and {ctx.type(2)}")
    if isinstance(channels, int) and channels % ctx.attr("groups"):
        raise ValueError(f"{channels} channels of {x} do not divide into {ctx.attr('groups')} groups")
    return (x,)


def _group_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Computed in f64; scale and bias are per channel."""
    x, scale, bias = inputs
    assert x is not None and scale is not None and bias is not None
    last = attrs["layout"] == "NHWC"
    wide = (np.moveaxis(x, -1, 1) if last else x).astype(np.float64)
    grouped = wide.reshape(wide.shape[0], attrs["groups"], -1)
    grouped = grouped - grouped.mean(axis=2, keepdims=True)
    grouped = grouped / np.sqrt((grouped * grouped).mean(axis=2, keepdims=True) + attrs["epsilon"])
    per_channel = (1, wide.shape[1], *(1,) * (wide.ndim - 2))
    out = grouped.reshape(wide.shape) * scale.reshape(per_channel) + bias.reshape(per_channel)
    return ((np.moveaxis(out, 1, -1) if last else out).astype(x.dtype),)


def _group_compute(ctx: InferContext) -> ex.ComputeDef:
    x, last = ctx.type(0), ctx.attr("layout") == "NHWC"
    axes, acc = ex.out_axes(x.rank), dt.accumulator(x.dtype)
    channel = x.rank - 1 if last else 1
    spatial = [k for k in range(1, x.rank) if k != channel]
    each = ex.idx(x.shape[channel] // ctx.attr("groups"))
    first = ex.call("mul", ex.call("floordiv", axes[channel], each), each)

    def at(tag: str) -> ex.Expr:
        index: list[ex.Expr] = (
            list(axes) if tag == "i" else [axes[0], *(ex.Axis(f"{tag}{k}") for k in range(1, x.rank))]
        )
        index[channel] = axes[channel] if tag == "i" else ex.call("add", first, ex.Axis(f"{tag}{channel}"))
        return ex.cast(ex.load(0, tuple(index), x.dtype), acc)

    sizes = {channel: x.shape[channel] // ctx.attr("groups"), **{k: x.shape[k] for k in spatial}}
    spans = {tag: tuple((f"{tag}{k}", sizes[k]) for k in sorted(sizes)) for tag in "mv"}
    out = _normalised(at, spans, True, ctx.attr("epsilon"), acc)
    scale, bias = (ex.cast(ex.load(k, (axes[channel],), ctx.type(k).dtype), acc) for k in (1, 2))
    return ex.ComputeDef(x.shape, x.dtype, ex.cast(ex.call("add", ex.call("mul", out, scale), bias), x.dtype))


def _group_samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return (
        Sample((x(2, 6, 5, 7), x(6), x(6)), {"groups": 3, "epsilon": 1e-5, "layout": "NCHW"}),
        Sample((x(2, 5, 7, 8), x(8), x(8)), {"groups": 2, "epsilon": 1e-5, "layout": "NHWC"}),
        Sample((x(1, 9, 9, 12), x(12), x(12)), {"groups": 12, "epsilon": 1e-3, "layout": "NHWC"}, note="instance"),
        Sample((x(2, 4, 33), x(4), x(4)), {"groups": 1, "epsilon": 1e-5, "layout": "NCHW"}, note="1-D"),
    )


def _group_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    channels = _channels(ctx)
    yield from ((ctx.type(k).shape[0], channels) for k in (1, 2))
    yield channels % ctx.attr("groups"), 0


register(
    OpDef(
        "group_norm", _group_infer, _group_reference, Fusion.TEMPLATE, _group_compute, samples=_group_samples,
        taken=_group_taken,
    )
)  # fmt: skip


def emit_moments(ctx: ImportContext, x: str, axes: tuple[int, ...], epsilon: float) -> tuple[str, str]:
    """(mean, 1 / sqrt(variance + epsilon)) over `axes`, dims kept."""
    mean = ctx.emit("reduce", x, kind="mean", axes=axes, keepdims=True)
    centred = ctx.emit("sub", x, mean)
    variance = ctx.emit("reduce", ctx.emit("mul", centred, centred), kind="mean", axes=axes, keepdims=True)
    return mean, ctx.emit("rsqrt", ctx.emit("add", variance, ctx.const(epsilon, ctx.dtype(x))))


@onnx_op("LayerNormalization", since=(1, 17))
@onnx_op("LayerNormalization", since=(1,), domain="com.microsoft")
def _import_layer_norm(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    axis = ctx.axis(ctx.attr("axis", -1), ctx.rank(x))
    epsilon = ctx.attr("epsilon", 1e-5)
    tail = ctx.shape(x)[axis:]
    affine = [to_shape(ctx, ctx.input(k), tail) for k in (1, 2) if ctx.has(k)]
    if any(ctx.dtype(a) != ctx.dtype(x) for a in affine):
        ctx.unsupported("scale and bias have another dtype than the data")
    y = ctx.emit(
        "layer_norm", x, *affine, axis=axis, epsilon=epsilon, mode="layer", has_scale=True, has_bias=ctx.has(2)
    )
    if not (ctx.wants(1) or ctx.wants(2)):
        return y
    stash = ctx.cast(x, ctx.dtype_attr("stash_type", dt.f32))
    mean, inverse = emit_moments(ctx, stash, tuple(range(axis, ctx.rank(x))), epsilon)
    return (y, mean, inverse)


def to_shape(ctx: ImportContext, value: str, shape: tuple[Dim, ...]) -> str:
    """A scale or bias with exactly the normalised axes, of sizes `shape`."""
    have = ctx.shape(value)
    if len(have) <= len(shape):
        spread = (*(1,) * (len(shape) - len(have)), *have)
        if any(h == 1 and d != 1 for h, d in zip(spread, shape)):
            return ctx.emit("expand", value, shape=shape)
        for h, d in zip(spread, shape):
            same_dim(h, d, ctx.ranges)
    return value if have == shape else ctx.emit("reshape", value, shape=shape)


@onnx_op("RMSNormalization", since=(23,))
@onnx_op("SimplifiedLayerNormalization", since=(1,))
@onnx_op("SimplifiedLayerNormalization", since=(1,), domain="com.microsoft")
def _import_rms_norm(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    axis = ctx.axis(ctx.attr("axis", -1), ctx.rank(x))
    scale = to_shape(ctx, ctx.input(1), ctx.shape(x)[axis:])
    if ctx.dtype(scale) != ctx.dtype(x):
        ctx.unsupported("the scale has another dtype than the data")
    epsilon = ctx.attr("epsilon", 1e-5)
    return ctx.emit("layer_norm", x, scale, axis=axis, epsilon=epsilon, mode="rms", has_scale=True, has_bias=False)


@onnx_op("InstanceNormalization", since=(6, 22))
def _import_instance_norm(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    channels = ctx.shape(x)[1]
    if not isinstance(channels, int):
        ctx.unsupported("the number of channels is dynamic")
    epsilon = ctx.attr("epsilon", 1e-5)
    return ctx.emit("group_norm", x, ctx.input(1), ctx.input(2), groups=channels, epsilon=epsilon, layout="NCHW")


@onnx_op("GroupNormalization", since=(18, 21))
def _import_group_norm(ctx: ImportContext) -> Values:
    x, groups = ctx.input(0), ctx.attr("num_groups")
    channels = ctx.shape(x)[1]
    affine = [ctx.input(1), ctx.input(2)]
    if ctx.since == 18:  # one scale and bias per group
        each = channels // groups
        affine = [
            ctx.emit("reshape", ctx.emit("expand", ctx.emit("reshape", v, shape=(groups, 1)), shape=(groups, each)),
                     shape=(groups * each,))
            for v in affine
        ]  # fmt: skip
    return ctx.emit("group_norm", x, *affine, groups=groups, epsilon=ctx.attr("epsilon", 1e-5), layout="NCHW")


@onnx_op("BatchNormalization", since=(7, 9, 14, 15))
def _import_batch_norm(ctx: ImportContext) -> Values:
    """x * (scale / sqrt(var + eps)) + (bias - mean * that): constants fold, and go into a convolution before it."""
    if ctx.attr("training_mode", 0) or any(ctx.wants(k) for k in range(1, 5)):
        ctx.unsupported("training mode")
    x = ctx.input(0)
    scale, bias, mean, variance = (ctx.input(k) for k in range(1, 5))
    wide = ctx.dtype(variance)
    root = ctx.emit("sqrt", ctx.emit("add", variance, ctx.const(ctx.attr("epsilon", 1e-5), wide)))
    factor = ctx.emit("div", ctx.cast(scale, wide), root)
    shift = ctx.emit("sub", ctx.cast(bias, wide), ctx.emit("mul", mean, factor))
    shape = (1, *ctx.shape(scale), *(1,) * (ctx.rank(x) - 2))
    factor, shift = (ctx.emit("reshape", v, shape=shape) for v in (factor, shift))
    out = ctx.emit("add", ctx.emit("mul", ctx.cast(x, wide), factor), shift)
    return ctx.cast(out, ctx.dtype(x))


@onnx_op("MeanVarianceNormalization", since=(9, 13))
def _import_mean_variance(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    axes = tuple(sorted(ctx.axis(a, ctx.rank(x)) for a in ctx.attr("axes", (0, 2, 3))))
    mean = ctx.emit("reduce", x, kind="mean", axes=axes, keepdims=True)
    centred = ctx.emit("sub", x, mean)
    variance = ctx.emit("reduce", ctx.emit("mul", centred, centred), kind="mean", axes=axes, keepdims=True)
    deviation = ctx.emit("add", ctx.emit("sqrt", variance), ctx.const(1e-9, ctx.dtype(x)))
    return ctx.emit("div", centred, deviation)


@onnx_op("LpNormalization", since=(1, 22))
def _import_lp_norm(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    axis = ctx.axis(ctx.attr("axis", -1), ctx.rank(x))
    kind = {1: "l1", 2: "l2"}.get(ctx.attr("p", 2))
    if kind is None:
        ctx.unsupported(f"p = {ctx.attr('p', 2)}")
    norm = ctx.emit("reduce", x, kind=kind, axes=(axis,), keepdims=True)
    zero = ctx.emit("eq", norm, ctx.const(0.0, ctx.dtype(x)))
    return ctx.emit("where", zero, ctx.const(0.0, ctx.dtype(x)), ctx.emit("div", x, norm))


@onnx_op("LRN", since=(1, 13))
def _import_lrn(ctx: ImportContext) -> Values:
    """x / (bias + alpha * the mean square over a window of channels) ** beta; the mean is an average pool."""
    x, size = ctx.input(0), ctx.attr("size")
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    squares = ctx.emit("reshape", ctx.emit("mul", x, x), shape=(shape[0], 1, shape[1], product(shape[2:])))
    before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
    mean = ctx.emit(
        "pool", squares, kind="avg", kernel=(size, 1), strides=(1, 1), dilations=(1, 1), pads=(before, 0, after, 0),
        out=(shape[1], product(shape[2:])), layout="NCHW", count_include_pad=True, p=0,
    )  # fmt: skip
    scaled = ctx.emit("mul", ctx.emit("reshape", mean, shape=shape), ctx.const(ctx.attr("alpha", 1e-4), dtype))
    base = ctx.emit("add", scaled, ctx.const(ctx.attr("bias", 1.0), dtype))
    return ctx.emit("div", x, ctx.emit("pow", base, ctx.const(ctx.attr("beta", 0.75), dtype)))
