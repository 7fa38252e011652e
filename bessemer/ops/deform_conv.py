"""Deformable convolution without bias: op `deform_conv`, whose taps lie at real offsets that another operand holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import same_dim
from bessemer.ops.conv import emit_bias
from bessemer.ops.interpolation import clamp, inside
from bessemer.ops.window_shape import resolve_pads, windows


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    """Operands x [N, C, H, W], w [OC, C / groups, *kernel], offsets [N, offset_groups * taps * 2, *out], and a mask
    [N, offset_groups * taps, *out] where the attribute has_mask says so."""
    x, w, offsets = ctx.type(0), ctx.type(1), ctx.type(2)
    if x.rank != 4 or w.rank != 4 or offsets.rank != 4 or not x.dtype == w.dtype == offsets.dtype:
        raise ValueError(f"deform_conv takes tensors of rank 4 and one dtype, not {x}, {w} and {offsets}")
    if ctx.attr("has_mask") and ctx.type(3).rank != 4:
        raise ValueError(f"the mask must be of rank 4, not {ctx.type(3)}")
    for a, b in _taken(ctx):
        same_dim(a, b, ctx.ranges)
    return (TensorType(x.dtype, (x.shape[0], w.shape[0], *_out_sizes(ctx))),)


def _out_sizes(ctx: InferContext) -> list[Dim]:
    x, w, pads = ctx.type(0), ctx.type(1), ctx.attr("pads")
    return [
        windows(x.shape[2 + k], w.shape[2 + k], ctx.attr("strides")[k], ctx.attr("dilations")[k], pads[k], pads[2 + k])
        for k in range(2)
    ]


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    x, w, out = ctx.type(0), ctx.type(1), _out_sizes(ctx)
    taps = product(w.shape[2:]) * ctx.attr("offset_groups")
    yield x.shape[1], w.shape[1] * ctx.attr("groups")
    yield from zip((x.shape[0], taps * 2, *out), ctx.type(2).shape)
    if ctx.attr("has_mask"):
        yield from zip((x.shape[0], taps, *out), ctx.type(3).shape)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Bilinear taps, zero outside; computed in f64."""
    x, w, offsets = (np.asarray(a, np.float64) for a in inputs[:3])
    (n, channels), (oc, _, *kernel), out, og = x.shape[:2], w.shape, offsets.shape[2:], attrs["offset_groups"]
    taps = int(np.prod(kernel))
    moves = offsets.reshape(n, og, taps, 2, *out)
    mask = np.asarray(inputs[3], np.float64).reshape(n, og, taps, *out) if attrs["has_mask"] else None
    sampled = np.zeros((n, channels, taps, *out))
    per = channels // og
    for tap, place in enumerate(np.ndindex(*kernel)):
        base = [
            np.arange(out[k]) * attrs["strides"][k] - attrs["pads"][k] + place[k] * attrs["dilations"][k]
            for k in range(2)
        ]
        for g in range(og):
            at = [base[0][:, None] + moves[:, g, tap, 0], base[1][None, :] + moves[:, g, tap, 1]]
            value = _bilinear(x[:, g * per : (g + 1) * per], at)
            sampled[:, g * per : (g + 1) * per, tap] = value if mask is None else value * mask[:, g, tap][:, None]
    groups = attrs["groups"]
    columns = sampled.reshape(n, groups, channels // groups * taps, -1)
    y = (w.reshape(groups, oc // groups, -1) @ columns).reshape(n, oc, *out)
    assert inputs[0] is not None
    return (y.astype(inputs[0].dtype),)


def _bilinear(x: np.ndarray, at: Sequence[np.ndarray]) -> np.ndarray:
    """x [N, C, H, W] at real coordinates [N, *out] per axis -> [N, C, *out]."""
    low = [np.floor(v) for v in at]
    total: Any = 0
    batch = np.arange(len(x))[:, None, None]
    for corner in itertools.product((0, 1), (0, 1)):
        index, weight = [], np.ones(at[0].shape)
        for k, far in enumerate(corner):
            i = low[k].astype(np.int64) + far
            weight = weight * (at[k] - low[k] if far else 1 - (at[k] - low[k])) * ((i >= 0) & (i < x.shape[2 + k]))
            index.append(np.clip(i, 0, x.shape[2 + k] - 1))
        total = total + np.moveaxis(x[batch, :, index[0], index[1]], -1, 1) * weight[:, None]
    return np.asarray(total)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, w, (out,) = ctx.type(0), ctx.type(1), _infer(ctx)
    axes, acc = ex.out_axes(4), dt.accumulator(x.dtype)
    inner, taps = ex.Axis("r0"), (ex.Axis("r1"), ex.Axis("r2"))
    c: ex.Expr = inner
    if ctx.attr("groups") != 1:
        group = ex.call("floordiv", axes[1], ex.idx(w.shape[0] // ctx.attr("groups")))
        c = ex.call("add", ex.call("mul", group, ex.idx(w.shape[1])), inner)
    each = ex.idx(x.shape[1] // ctx.attr("offset_groups"))
    tap = ex.call("add", ex.call("mul", taps[0], ex.idx(w.shape[3])), taps[1])
    slot = ex.call("add", ex.call("mul", ex.call("floordiv", c, each), ex.idx(product(w.shape[2:]))), tap)
    at = [_place(ctx, axes, slot, taps[k], k) for k in range(2)]
    value = _bilinear_expr(x, axes[0], c, at)
    if ctx.attr("has_mask"):
        value = ex.call("mul", value, ex.cast(ex.load(3, (axes[0], slot, axes[2], axes[3]), x.dtype), acc))
    weight = ex.cast(ex.load(1, (axes[1], inner, *taps), w.dtype), acc)
    extents = (("r0", w.shape[1]), ("r1", w.shape[2]), ("r2", w.shape[3]))
    total = ex.Reduce("sum", extents, ex.call("mul", value, weight), acc)
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _place(ctx: InferContext, axes: Sequence[ex.Expr], slot: ex.Expr, tap: ex.Expr, k: int) -> ex.Expr:
    """The real coordinate that a tap reads along spatial axis `k`."""
    offsets = ctx.type(2)
    start = ex.call("sub", ex.call("mul", axes[2 + k], ex.idx(ctx.attr("strides")[k])), ex.idx(ctx.attr("pads")[k]))
    base = ex.call("add", start, ex.call("mul", tap, ex.idx(ctx.attr("dilations")[k])))
    row = ex.call("add", ex.call("mul", slot, ex.idx(2)), ex.idx(k))
    acc = dt.accumulator(offsets.dtype)
    moved = ex.cast(ex.load(2, (axes[0], row, axes[2], axes[3]), offsets.dtype), acc)
    return ex.call("add", ex.cast(base, acc), moved)


def _bilinear_expr(x: TensorType, n: ex.Expr, c: ex.Expr, at: Sequence[ex.Expr]) -> ex.Expr:
    acc = dt.accumulator(x.dtype)
    low = [ex.call("floor", v) for v in at]
    up = [ex.call("sub", v, f) for v, f in zip(at, low)]
    weights = [(ex.call("sub", ex.lit(1, acc), u), u) for u in up]
    total: ex.Expr | None = None
    for corner in itertools.product((0, 1), (0, 1)):
        index = [ex.call("add", ex.cast(low[k], dt.i64), ex.idx(corner[k])) for k in range(2)]
        guard = ex.call("and", inside(index[0], x.shape[2]), inside(index[1], x.shape[3]))
        held = (clamp(index[0], x.shape[2]), clamp(index[1], x.shape[3]))
        value = ex.Select(guard, ex.cast(ex.load(0, (n, c, *held), x.dtype), acc), ex.lit(0, acc))
        term = ex.call("mul", ex.call("mul", weights[0][corner[0]], weights[1][corner[1]]), value)
        total = term if total is None else ex.call("add", total, term)
    assert total is not None
    return total


def _flops(ctx: InferContext) -> Dim:
    return 2 * _infer(ctx)[0].numel * product(ctx.type(1).shape[1:])


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def case(x: Any, w: Any, out: Any, groups: int, og: int, mask: bool, *window: int) -> Sample:
        taps, (stride, dilation, pad) = w[2] * w[3], window
        shapes = [x, w, (x[0], og * taps * 2, *out)] + ([(x[0], og * taps, *out)] if mask else [])
        arrays = tuple(np.asarray(rng.standard_normal(s), np.float32) for s in shapes)
        attrs: dict[str, Any] = {
            "strides": (stride,) * 2, "dilations": (dilation,) * 2, "pads": (pad,) * 4, "groups": groups,
            "offset_groups": og, "has_mask": mask,
        }  # fmt: skip
        return Sample(arrays, attrs, 1e-4)

    return (
        case((2, 4, 6, 7), (5, 4, 3, 3), (6, 7), 1, 1, False, 1, 1, 1),
        case((1, 4, 6, 7), (6, 2, 2, 3), (3, 3), 2, 2, True, 2, 1, 0),
        case((1, 2, 9, 9), (3, 2, 3, 3), (5, 5), 1, 2, True, 1, 2, 0),
    )


register(
    OpDef(
        "deform_conv", _infer, _reference, Fusion.REDUCTION, compute=_compute, flops=_flops, samples=_samples,
        taken=_taken,
    )
)  # fmt: skip


@onnx_op("DeformConv", since=(19, 22))
def _import(ctx: ImportContext) -> Values:
    x, w = ctx.input(0), ctx.input(1)
    if ctx.rank(x) != 4:
        ctx.unsupported(f"data of rank {ctx.rank(x)}; images [N, C, H, W] are supported")
    strides, dilations = tuple(ctx.attr("strides", (1, 1))), tuple(ctx.attr("dilations", (1, 1)))
    y = ctx.emit(
        "deform_conv", x, w, ctx.input(2), *((ctx.input(4),) if ctx.has(4) else ()), strides=strides,
        dilations=dilations, pads=resolve_pads(ctx, ctx.shape(x)[2:], ctx.shape(w)[2:], strides, dilations),
        groups=ctx.attr("group", 1), offset_groups=ctx.attr("offset_group", 1), has_mask=ctx.has(4),
    )  # fmt: skip
    return emit_bias(ctx, y, ctx.input(3)) if ctx.has(3) else y
