"""Convolution without bias: op `conv` (the bias is an add, which fuses)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate, product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.window_shape import assemble, channel_axis, patches, resolve_pads, spatial_axes, windows

COLUMNS = 1 << 24  # elements of patches that the reference lays out at a time


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, w, layout = ctx.type(0), ctx.type(1), ctx.attr("layout")
    if x.rank < 3 or w.rank != x.rank or x.dtype != w.dtype:
        raise ValueError(f"conv takes data and weights of one rank (3 or more) and dtype, not {x} and {w}")
    channels, groups = x.shape[channel_axis(x.rank, layout)], ctx.attr("groups")
    if isinstance(channels, int) and isinstance(w.shape[1], int) and channels != w.shape[1] * groups:
        raise ValueError(f"{channels} channels do not fit weights {w} in {groups} groups")
    if isinstance(w.shape[0], int) and w.shape[0] % groups:
        raise ValueError(f"{w.shape[0]} output channels do not divide into {groups} groups")
    sizes = [x.shape[a] for a in spatial_axes(x.rank, layout)]
    n, pads = len(sizes), ctx.attr("pads")
    out = [
        windows(sizes[k], w.shape[2 + k], ctx.attr("strides")[k], ctx.attr("dilations")[k], pads[k], pads[n + k])
        for k in range(n)
    ]
    if any(isinstance(d, int) and d < 0 for d in out):
        raise ValueError(f"the kernel of {w} is larger than the padded input {x}")
    return (TensorType(x.dtype, assemble(x.shape[0], w.shape[0], out, layout)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Patches times weights, some rows of one image and group at a time; 16-bit floats accumulate in f32."""
    x, w = inputs
    assert x is not None and w is not None
    dtype, rank = x.dtype, x.ndim - 2
    last = attrs["layout"] == "NHWC"
    x = np.moveaxis(x, -1, 1) if last else x
    if dtype == np.float16:
        x, w = x.astype(np.float32), w.astype(np.float32)
    pads, strides, dilations, groups = attrs["pads"], attrs["strides"], attrs["dilations"], attrs["groups"]
    out = [
        evaluate(windows(x.shape[2 + k], w.shape[2 + k], strides[k], dilations[k], pads[k], pads[rank + k]), {})
        for k in range(rank)
    ]
    view = patches(x, w.shape[2:], strides, dilations, pads, out, 0)
    order = (*range(1, 1 + rank), 0, *range(1 + rank, 1 + 2 * rank))
    per_in, per_out = w.shape[1], w.shape[0] // groups
    y = np.empty((x.shape[0], *out, w.shape[0]), x.dtype)
    step = max(1, COLUMNS // max(1, math.prod(out[1:]) * math.prod(w.shape[1:])))
    for n, g, row in itertools.product(range(x.shape[0]), range(groups), range(0, out[0], step)):
        window = view[n, g * per_in : (g + 1) * per_in, row : row + step].transpose(order)
        filters = slice(g * per_out, (g + 1) * per_out)
        columns = window.reshape(math.prod(window.shape[:rank]), -1)
        part = columns @ w[filters].reshape(per_out, -1).T
        y[n, row : row + step, ..., filters] = part.reshape(*window.shape[:rank], per_out)
    return (np.ascontiguousarray(y if last else np.moveaxis(y, -1, 1)).astype(dtype),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, w, (out,), layout = ctx.type(0), ctx.type(1), _infer(ctx), ctx.attr("layout")
    axes, rank = ex.out_axes(out.rank), x.rank - 2
    groups = ctx.attr("groups")
    channel, spatial = channel_axis(x.rank, layout), spatial_axes(x.rank, layout)
    taps = [ex.Axis(f"r{k + 1}") for k in range(rank)]
    at, inside = [], []
    for k in range(rank):
        start = ex.call("mul", axes[spatial[k]], ex.idx(ctx.attr("strides")[k]))
        i = ex.call("add", start, ex.call("mul", taps[k], ex.idx(ctx.attr("dilations")[k])))
        i = ex.call("sub", i, ex.idx(ctx.attr("pads")[k]))
        at.append(i)
        if ctx.attr("pads")[k] != 0:
            inside.append(ex.call("ge", i, ex.idx(0)))
        if ctx.attr("pads")[rank + k] != 0:
            inside.append(ex.call("lt", i, ex.idx(x.shape[spatial[k]])))
    c: ex.Expr = ex.Axis("r0")
    if groups != 1:
        group = ex.call("floordiv", axes[channel], ex.idx(_per_group(w.shape[0], groups)))
        c = ex.call("add", ex.call("mul", group, ex.idx(w.shape[1])), c)
    index = [axes[0], c, *at] if layout == "NCHW" else [axes[0], *at, c]
    acc = dt.accumulator(x.dtype)
    value = ex.cast(ex.load(0, tuple(index), x.dtype), acc)
    if inside:
        value = ex.Select(reduce(lambda a, b: ex.call("and", a, b), inside), value, ex.lit(0, acc))
    weight = ex.load(1, (axes[channel], ex.Axis("r0"), *taps), w.dtype)
    extents = (("r0", w.shape[1]), *((f"r{k + 1}", w.shape[2 + k]) for k in range(rank)))
    total = ex.Reduce("sum", extents, ex.call("mul", value, ex.cast(weight, acc)), acc)
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _per_group(channels: Dim, groups: int) -> Dim:
    return channels // groups


def _flops(ctx: InferContext) -> Dim:
    return 2 * _infer(ctx)[0].numel * product(ctx.type(1).shape[1:])


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def attrs(
        rank: int, layout: str = "NCHW", stride: int = 1, dilation: int = 1, pad: int = 0, groups: int = 1
    ) -> Any:
        return {"layout": layout, "strides": (stride,) * rank, "dilations": (dilation,) * rank,
                "pads": (pad,) * (2 * rank), "groups": groups}  # fmt: skip

    return (
        Sample((x(2, 3, 9, 11), x(8, 3, 3, 3)), attrs(2, pad=1)),
        Sample((x(2, 9, 11, 3), x(8, 3, 3, 3)), attrs(2, "NHWC", pad=1)),
        Sample((x(1, 7, 5, 16), x(20, 16, 1, 1)), attrs(2, "NHWC"), note="pointwise"),
        Sample((x(1, 8, 9, 6), x(4, 6, 3, 3)), attrs(2, "NHWC", stride=2, pad=1)),
        Sample((x(1, 9, 9, 18), x(18, 1, 3, 3)), attrs(2, "NHWC", pad=1, groups=18), note="depthwise"),
        Sample((x(1, 8, 7, 7), x(6, 4, 3, 3)), attrs(2, dilation=2, pad=2, groups=2), note="grouped, dilated"),
        Sample((x(2, 3, 17), x(5, 3, 4)), attrs(1, stride=2, pad=1), note="1-D"),
        Sample((x(1, 2, 4, 5, 6), x(3, 2, 2, 3, 2)), attrs(3, pad=1), note="3-D"),
    )


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    x, w, groups = ctx.type(0), ctx.type(1), ctx.attr("groups")
    yield x.shape[channel_axis(x.rank, ctx.attr("layout"))], w.shape[1] * groups
    yield w.shape[0] % groups, 0


register(OpDef("conv", _infer, _reference, Fusion.TEMPLATE, _compute, _flops, _samples, taken=_taken))


def emit_bias(ctx: ImportContext, y: str, bias: str) -> str:
    """`y` plus a bias per channel (axis 1)."""
    rank = ctx.rank(y)
    return ctx.emit("add", y, ctx.emit("reshape", bias, shape=(1, ctx.shape(bias)[0], *(1,) * (rank - 2))))


@onnx_op("Conv", since=(1, 11, 22))
def _import_conv(ctx: ImportContext) -> Values:
    x, w = ctx.input(0), ctx.input(1)
    sizes, kernel = ctx.shape(x)[2:], ctx.shape(w)[2:]
    ones = (1,) * len(sizes)
    strides, dilations = tuple(ctx.attr("strides", ones)), tuple(ctx.attr("dilations", ones))
    y = ctx.emit(
        "conv", x, w, layout="NCHW", strides=strides, dilations=dilations, groups=ctx.attr("group", 1),
        pads=resolve_pads(ctx, sizes, kernel, strides, dilations),
    )  # fmt: skip
    return emit_bias(ctx, y, ctx.input(2)) if ctx.has(2) else y
