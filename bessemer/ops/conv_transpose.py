"""Transposed convolution without bias: op `conv_transpose`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, floordiv, product
from bessemer.core.interval import compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.conv import emit_bias
from bessemer.ops.window_shape import assemble, channel_axis, spatial_axes


def _size(size: Dim, kernel: Dim, stride: int, dilation: int, begin: Dim, end: Dim, extra: Dim) -> Dim:
    return (size - 1) * stride + dilation * (kernel - 1) + 1 + extra - begin - end


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, w, layout = ctx.type(0), ctx.type(1), ctx.attr("layout")
    if x.rank < 3 or w.rank != x.rank or x.dtype != w.dtype:
        raise ValueError(f"conv_transpose takes data and weights of one rank (3 or more) and dtype, not {x} and {w}")
    channels = x.shape[channel_axis(x.rank, layout)]
    if isinstance(channels, int) and isinstance(w.shape[0], int) and channels != w.shape[0]:
        raise ValueError(f"{channels} channels do not fit weights {w}")
    sizes, pads = [x.shape[a] for a in spatial_axes(x.rank, layout)], ctx.attr("pads")
    n = len(sizes)
    out = [
        _size(sizes[k], w.shape[2 + k], ctx.attr("strides")[k], ctx.attr("dilations")[k], pads[k], pads[n + k],
              ctx.attr("output_padding")[k])
        for k in range(n)
    ]  # fmt: skip
    return (TensorType(x.dtype, assemble(x.shape[0], w.shape[1] * ctx.attr("groups"), out, layout)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Each tap of the kernel adds a strided copy of the data times its weights."""
    x, w = inputs
    assert x is not None and w is not None
    dtype, last = x.dtype, attrs["layout"] == "NHWC"
    x = np.moveaxis(x, -1, 1) if last else x
    x, w = (a.astype(np.float32) if dtype == np.float16 else a for a in (x, w))
    rank, groups = x.ndim - 2, attrs["groups"]
    strides, dilations, pads = attrs["strides"], attrs["dilations"], attrs["pads"]
    full = [
        (x.shape[2 + k] - 1) * strides[k] + dilations[k] * (w.shape[2 + k] - 1) + 1 + int(attrs["output_padding"][k])
        for k in range(rank)
    ]
    per_in, per_out = w.shape[0] // groups, w.shape[1]
    y = np.zeros((x.shape[0], per_out * groups, *full), x.dtype)
    for g in range(groups):
        data, weights = x[:, g * per_in : (g + 1) * per_in], w[g * per_in : (g + 1) * per_in]
        for tap in np.ndindex(*w.shape[2:]):
            part = np.moveaxis(np.tensordot(data, weights[(slice(None), slice(None), *tap)], (1, 0)), -1, 1)
            where = tuple(
                slice(t * dilations[k], t * dilations[k] + (x.shape[2 + k] - 1) * strides[k] + 1, strides[k])
                for k, t in enumerate(tap)
            )
            y[(slice(None), slice(g * per_out, (g + 1) * per_out), *where)] += part
    crop = tuple(slice(int(pads[k]), full[k] - int(pads[rank + k])) for k in range(rank))
    y = y[(slice(None), slice(None), *crop)]
    return (np.ascontiguousarray(np.moveaxis(y, 1, -1) if last else y).astype(dtype),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, w, (out,), layout = ctx.type(0), ctx.type(1), _infer(ctx), ctx.attr("layout")
    axes, rank, groups = ex.out_axes(out.rank), x.rank - 2, ctx.attr("groups")
    channel, spatial = channel_axis(x.rank, layout), spatial_axes(x.rank, layout)
    at, guard = [], []
    for k in range(rank):
        stride = ctx.attr("strides")[k]
        reach = ex.call("mul", ex.Axis(f"r{k + 1}"), ex.idx(ctx.attr("dilations")[k]))
        i = ex.call("sub", ex.call("add", axes[spatial[k]], ex.idx(ctx.attr("pads")[k])), reach)
        source = ex.call("floordiv", i, ex.idx(stride))
        at.append(source)
        guard += [ex.call("ge", i, ex.idx(0)), ex.call("lt", source, ex.idx(x.shape[spatial[k]]))]
        if stride != 1:
            guard.append(ex.call("eq", ex.call("floormod", i, ex.idx(stride)), ex.idx(0)))
    per_in, per_out = (w.shape[0] if groups == 1 else w.shape[0] // groups), w.shape[1]
    c: ex.Expr = ex.Axis("r0")
    out_channel: ex.Expr = axes[channel]
    if groups != 1:
        group = ex.call("floordiv", axes[channel], ex.idx(per_out))
        c = ex.call("add", ex.call("mul", group, ex.idx(per_in)), c)
        out_channel = ex.call("floormod", axes[channel], ex.idx(per_out))
    index = (axes[0], c, *at) if layout == "NCHW" else (axes[0], *at, c)
    inside = guard[0]
    for condition in guard[1:]:
        inside = ex.call("and", inside, condition)
    acc = dt.f32 if x.dtype in (dt.f16, dt.bf16) else x.dtype
    value = ex.Select(inside, ex.cast(ex.load(0, index, x.dtype), acc), ex.lit(0, acc))
    weight = ex.load(1, (c, out_channel, *(ex.Axis(f"r{k + 1}") for k in range(rank))), w.dtype)
    extents = (("r0", per_in), *((f"r{k + 1}", w.shape[2 + k]) for k in range(rank)))
    total = ex.Reduce("sum", extents, ex.call("mul", value, ex.cast(weight, acc)), acc)
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _flops(ctx: InferContext) -> Dim:
    return 2 * ctx.type(0).numel * product(ctx.type(1).shape[1:])


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def attrs(rank: int, layout: str, stride: int, pad: int = 0, groups: int = 1, extra: int = 0) -> Any:
        return {"layout": layout, "strides": (stride,) * rank, "dilations": (1,) * rank, "pads": (pad,) * (2 * rank),
                "output_padding": (extra,) * rank, "groups": groups}  # fmt: skip

    return (
        Sample((x(1, 6, 5, 7), x(6, 4, 2, 2)), attrs(2, "NCHW", 2)),
        Sample((x(2, 5, 7, 6), x(6, 4, 3, 3)), attrs(2, "NHWC", 2, 1, extra=1)),
        Sample((x(1, 5, 5, 6), x(6, 2, 4, 4)), attrs(2, "NHWC", 2, 1, groups=3), note="grouped"),
        Sample((x(1, 3, 9), x(3, 5, 4)), attrs(1, "NCHW", 3, 1), note="1-D"),
    )


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    x, w = ctx.type(0), ctx.type(1)
    yield x.shape[channel_axis(x.rank, ctx.attr("layout"))], w.shape[0]
    yield w.shape[0] % ctx.attr("groups"), 0


register(OpDef("conv_transpose", _infer, _reference, Fusion.TEMPLATE, _compute, _flops, _samples, taken=_taken))


@onnx_op("ConvTranspose", since=(1, 11, 22))
def _import(ctx: ImportContext) -> Values:
    x, w = ctx.input(0), ctx.input(1)
    sizes, kernel = ctx.shape(x)[2:], ctx.shape(w)[2:]
    n, ones = len(sizes), (1,) * len(sizes)
    strides, dilations = tuple(ctx.attr("strides", ones)), tuple(ctx.attr("dilations", ones))
    extra = list(ctx.attr("output_padding", (0,) * n))
    given = ctx.attr("pads", (0,) * (2 * n))
    begins, ends = list(given[:n]), list(given[n:])
    mode, wanted = ctx.attr("auto_pad", "NOTSET"), ctx.attr("output_shape", None)
    if wanted is not None or mode.startswith("SAME"):
        for k in range(n):
            target = wanted[-n:][k] if wanted is not None else sizes[k] * strides[k]
            surplus = _size(sizes[k], kernel[k], strides[k], dilations[k], 0, 0, extra[k]) - target
            _, larger = compare(surplus, 0, ctx.ranges)
            if larger is None:
                ctx.unsupported(f"whether its output of {target} needs padding depends on the dynamic size {sizes[k]}")
            if larger:  # a larger output is asked for: zeros at its end
                extra[k], surplus = extra[k] - surplus, 0
            total = surplus
            small = floordiv(total, 2)
            begins[k] = small if mode == "SAME_UPPER" else total - small
            ends[k] = total - begins[k]
    y = ctx.emit(
        "conv_transpose", x, w, layout="NCHW", strides=strides, dilations=dilations, pads=(*begins, *ends),
        output_padding=tuple(extra), groups=ctx.attr("group", 1),
    )  # fmt: skip
    return emit_bias(ctx, y, ctx.input(2)) if ctx.has(2) else y
