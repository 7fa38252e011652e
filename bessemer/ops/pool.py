"""Pooling over windows: op `pool` (max, average, Lp), and global pools as reductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, minimum
from bessemer.core.interval import compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.window_shape import assemble, channel_axis, patches, resolve_pads, spatial_axes, windows

KINDS = ("max", "avg", "lp")


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, layout = ctx.type(0), ctx.attr("layout")
    if ctx.attr("kind") not in KINDS or x.rank < 3 or len(ctx.attr("kernel")) != x.rank - 2:
        raise ValueError(f"{ctx.attr('kind')} pool with kernel {ctx.attr('kernel')} does not fit {x}")
    channels = x.shape[channel_axis(x.rank, layout)]
    return (TensorType(x.dtype, assemble(x.shape[0], channels, ctx.attr("out"), layout)),)


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Floats are summed in f64."""
    (x,) = inputs
    assert x is not None
    last = attrs["layout"] == "NHWC"
    data = np.moveaxis(x, -1, 1) if last else x
    rank, kernel = data.ndim - 2, attrs["kernel"]
    over = tuple(range(2 + rank, 2 + 2 * rank))
    fill = _lowest(data.dtype) if attrs["kind"] == "max" else 0
    out = [int(d) for d in attrs["out"]]
    view = patches(data, kernel, attrs["strides"], attrs["dilations"], attrs["pads"], out, fill)
    if attrs["kind"] == "max":
        y = view.max(axis=over)
    elif attrs["kind"] == "lp":
        y = (np.abs(view.astype(np.float64)) ** attrs["p"]).sum(axis=over) ** (1.0 / attrs["p"])
    else:
        counted = _counted(data.shape[2:], attrs)
        ones = patches(counted, kernel, attrs["strides"], attrs["dilations"], _reach(attrs, rank), out, 0)
        y = view.astype(np.float64).sum(axis=over) / ones.sum(axis=over)
    return (np.ascontiguousarray(np.moveaxis(y, 1, -1) if last else y).astype(x.dtype),)


def _counted(sizes: Sequence[int], attrs: Mapping[str, Any]) -> np.ndarray:
    """Ones where an element counts for the average: the data, and the padding if that is asked for."""
    if not attrs["count_include_pad"]:
        return np.ones((1, 1, *sizes))
    n, pads = len(sizes), attrs["pads"]
    return np.ones((1, 1, *(s + pads[k] + pads[n + k] for k, s in enumerate(sizes))))


def _reach(attrs: Mapping[str, Any], rank: int) -> Sequence[int]:
    return (0,) * (2 * rank) if attrs["count_include_pad"] else attrs["pads"]


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, (out,), layout, kind = ctx.type(0), _infer(ctx), ctx.attr("layout"), ctx.attr("kind")
    axes, acc = ex.out_axes(out.rank), dt.accumulator(x.dtype)
    frames = [_Frame.of(ctx, k, x.shape[a], axes[a]) for k, a in enumerate(spatial_axes(x.rank, layout))]
    at = [f.position(ex.Axis(f"r{k}")) for k, f in enumerate(frames)]
    inside = [test for f, i in zip(frames, at) for test in f.tests(i)]
    index = (axes[0], axes[1], *at) if layout == "NCHW" else (axes[0], *at, axes[-1])
    extents = tuple((f"r{k}", size) for k, size in enumerate(ctx.attr("kernel")))
    value: ex.Expr = ex.cast(ex.load(0, index, x.dtype), acc)
    if kind == "lp":
        value = ex.call("pow", ex.call("abs", value), ex.lit(ctx.attr("p"), acc))
    fill = ex.lit(_lowest(acc.numpy) if kind == "max" else 0, acc)
    body = ex.Select(reduce(lambda a, b: ex.call("and", a, b), inside), value, fill) if inside else value
    total: ex.Expr = ex.Reduce("max" if kind == "max" else "sum", extents, body, acc)
    if kind == "lp":
        total = ex.call("pow", total, ex.lit(1.0 / ctx.attr("p"), acc))
    elif kind == "avg":
        counts = [f.count(ctx.attr("count_include_pad")) for f in frames]
        total = ex.call("div", total, ex.cast(reduce(lambda a, b: ex.call("mul", a, b), counts), acc))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


@dataclass(frozen=True)
class _Frame:
    """One spatial axis of a pool: where the window of an output starts, and how far the data and the pads reach."""

    start: ex.Expr
    kernel: int
    dilation: int
    size: Dim
    begin: Dim
    end: Dim
    natural: bool  # no window reaches beyond the padding

    @classmethod
    def of(cls, ctx: InferContext, k: int, size: Dim, axis: ex.Expr) -> _Frame:
        kernel, stride, dilation = (ctx.attr(name)[k] for name in ("kernel", "strides", "dilations"))
        begin, end = ctx.attr("pads")[k], ctx.attr("pads")[len(ctx.attr("kernel")) + k]
        natural = ctx.attr("out")[k] == windows(size, kernel, stride, dilation, begin, end)
        start = ex.call("sub", ex.call("mul", axis, ex.idx(stride)), ex.idx(begin))
        return cls(start, kernel, dilation, size, begin, end, natural)

    def position(self, tap: ex.Expr) -> ex.Expr:
        """The coordinate that a tap reads."""
        return ex.call("add", self.start, ex.call("mul", tap, ex.idx(self.dilation)))

    def tests(self, i: ex.Expr) -> list[ex.Expr]:
        """What must hold for coordinate `i` to lie in the data."""
        low = [ex.call("ge", i, ex.idx(0))] if self.begin != 0 else []
        return low if self.end == 0 and self.natural else [*low, ex.call("lt", i, ex.idx(self.size))]

    def count(self, padding: bool) -> ex.Expr:
        """How many taps lie in the data, and the padding where that counts."""
        step, last = ex.idx(self.dilation), ex.idx(self.kernel - 1)
        first: ex.Expr = ex.idx(0)
        if self.begin != 0 and not padding:
            behind = ex.call("sub", ex.idx(self.dilation - 1), self.start)
            first = ex.call("max", ex.call("floordiv", behind, step), ex.idx(0))
        if not self.natural or (self.end != 0 and not padding):
            reach = ex.idx(self.size - 1 + (self.end if padding else 0))
            last = ex.call("min", ex.call("floordiv", ex.call("sub", reach, self.start), step), last)
        return ex.call("add", ex.call("sub", last, first), ex.idx(1))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def attrs(kind: str, layout: str, out: tuple[int, ...], pad: int = 0, stride: int = 2, **more: Any) -> Any:
        rank = len(out)
        return {"kind": kind, "kernel": (3,) * rank, "strides": (stride,) * rank, "dilations": (1,) * rank,
                "pads": (pad,) * 2 * rank, "out": out, "layout": layout, "count_include_pad": False, "p": 0,
                **more}  # fmt: skip

    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return (
        Sample((x(2, 9, 11, 5),), attrs("max", "NHWC", (5, 6), 1)),
        Sample((x(2, 5, 9, 11),), attrs("max", "NCHW", (5, 6), 1)),
        Sample((x(1, 9, 9, 20),), attrs("avg", "NHWC", (5, 5), 1)),
        Sample((x(1, 3, 10, 10),), attrs("avg", "NCHW", (5, 5), 1, count_include_pad=True), note="ceil"),
        Sample((x(1, 3, 10, 9),), attrs("avg", "NCHW", (6, 5), 1), note="ceil, without padding"),
        Sample((x(1, 2, 9, 9),), attrs("avg", "NCHW", (7, 7), 1, 1, dilations=(2, 2)), note="dilated"),
        Sample((x(1, 3, 13),), attrs("avg", "NCHW", (6,)), note="1-D"),
        Sample((x(1, 2, 5, 5, 5),), attrs("max", "NCHW", (2, 2, 2)), note="3-D"),
        Sample((x(1, 2, 7, 7),), attrs("lp", "NCHW", (3, 3), p=2)),
    )


register(OpDef("pool", _infer, _reference, Fusion.TEMPLATE, _compute, samples=_samples))


@onnx_op("MaxPool", since=(8, 10, 11, 12, 22))
@onnx_op("AveragePool", since=(7, 10, 11, 19, 22))
@onnx_op("LpPool", since=(2, 11, 18, 22))
def _import_pool(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    sizes, kernel = ctx.shape(x)[2:], tuple(ctx.attr("kernel_shape"))
    ones = (1,) * len(sizes)
    strides, dilations = tuple(ctx.attr("strides", ones)), tuple(ctx.attr("dilations", ones))
    pads = resolve_pads(ctx, sizes, kernel, strides, dilations)
    kind = {"MaxPool": "max", "AveragePool": "avg", "LpPool": "lp"}[ctx.op_type]
    attrs: dict[str, Any] = {
        "kind": kind, "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "layout": "NCHW",
        "out": _out_sizes(ctx, sizes, kernel, strides, dilations, pads),
        "count_include_pad": bool(ctx.attr("count_include_pad", 0)),
        "p": int(ctx.attr("p", 2)) if kind == "lp" else 0,
    }  # fmt: skip
    y = ctx.emit("pool", x, **attrs)
    if not ctx.wants(1):
        return y
    kept = ("kernel", "strides", "dilations", "pads", "out")
    column_major = bool(ctx.attr("storage_order", 0))
    return y, ctx.emit("max_pool_indices", x, column_major=column_major, **{k: attrs[k] for k in kept})


def _out_sizes(
    ctx: ImportContext, sizes: Sequence[Dim], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    pads: Sequence[Dim],
) -> tuple[Dim, ...]:  # fmt: skip
    """Output sizes; with ceil_mode a last window must start inside the data or the leading padding."""
    n, ceil = len(sizes), bool(ctx.attr("ceil_mode", 0))
    out: list[Dim] = []
    for k, size in enumerate(sizes):
        if not ceil or ctx.attr("auto_pad", "NOTSET") != "NOTSET":
            out.append(windows(size, kernel[k], strides[k], dilations[k], pads[k], pads[n + k]))
            continue
        count = ceildiv(size + pads[k] + pads[n + k] - dilations[k] * (kernel[k] - 1) - 1, strides[k]) + 1
        starts = ceildiv(size + pads[k], strides[k])  # windows that start inside
        fewer = compare(starts, count, ctx.ranges)[1]
        out.append(count if fewer is False else starts if fewer else minimum(count, starts))
    return tuple(out)


@onnx_op("GlobalAveragePool", since=(1, 22))
@onnx_op("GlobalMaxPool", since=(1, 22))
def _import_global(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    kind = "mean" if ctx.op_type == "GlobalAveragePool" else "max"
    return ctx.emit("reduce", x, kind=kind, axes=tuple(range(2, ctx.rank(x))), keepdims=True)


@onnx_op("GlobalLpPool", since=(2, 22))
def _import_global_lp(ctx: ImportContext) -> Values:
    x, p = ctx.input(0), ctx.attr("p", 2)
    dtype, axes = ctx.dtype(x), tuple(range(2, ctx.rank(x)))
    if p == 2:
        return ctx.emit("reduce", x, kind="l2", axes=axes, keepdims=True)
    powers = ctx.emit("pow", ctx.emit("abs", x), ctx.const(float(p), dtype))
    total = ctx.emit("reduce", powers, kind="sum", axes=axes, keepdims=True)
    return ctx.emit("pow", total, ctx.const(1.0 / p, dtype))
