"""RoiAlign: bilinear samples averaged (or maximised) in the bins of each region.

`roi_align` takes a fixed number of samples per bin; `roi_align_adaptive` as many as the size of the region asks for,
which is data, so it runs on the host.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.interpolation import clamp


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, rois, batch = ctx.type(0), ctx.type(1), ctx.type(2)
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 4 or batch.rank != 1 or not batch.dtype.is_int:
        raise ValueError(
            f"roi_align takes data [N, C, H, W], regions [R, 4] and batch indices [R], not {x}, {rois}, {batch}"
        )
    return (TensorType(x.dtype, (rois.shape[0], x.shape[1], *ctx.attr("pooled"))),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Regions are rows (x1, y1, x2, y2); computed in f64."""
    x, rois, batch = inputs
    assert x is not None and rois is not None and batch is not None
    out = np.zeros((len(rois), x.shape[1], *attrs["pooled"]))
    shift = 0.5 if attrs["half_pixel"] else 0.0
    for r, (x1, y1, x2, y2) in enumerate(rois.astype(np.float64) * attrs["scale"] - shift):
        tall, wide = attrs["pooled"]
        points = [_points(y1, y2, tall, attrs), _points(x1, x2, wide, attrs)]
        counts = [p.shape[1] for p in points]
        samples = _products(x[int(batch[r])].astype(np.float64), points[0].ravel(), points[1].ravel())
        folded = samples.reshape(4, x.shape[1], tall, counts[0], wide, counts[1])
        if attrs["mode"] == "max":
            out[r] = folded.max(axis=(0, 3, 5)) if folded.size else 0
        else:
            out[r] = folded.sum(axis=(0, 3, 5)) / max(counts[0] * counts[1], 1)
    return (out.astype(x.dtype),)


def _points(low: float, high: float, pooled: int, attrs: Mapping[str, Any]) -> np.ndarray:
    """Coordinates [pooled, samples] along one axis."""
    length = high - low if attrs["half_pixel"] else max(high - low, 1.0)
    step = length / pooled
    count = attrs["samples"] or int(np.ceil(step))
    inner = (np.arange(count) + 0.5) * step / max(count, 1)
    return np.asarray(low + np.arange(pooled)[:, None] * step + inner)


def _products(x: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """The four weighted corners [4, C, ys, xs] of bilinear samples; zero beyond one element outside."""
    parts = []
    for v, size in ((ys, x.shape[1]), (xs, x.shape[2])):
        inside = (v >= -1) & (v <= size)
        held = np.clip(v, 0, size - 1)
        low = np.minimum(held.astype(np.int64), size - 1)
        up = held - low
        parts.append(((low, (1 - up) * inside), (np.minimum(low + 1, size - 1), up * inside)))
    corners = [
        x[:, i[:, None], j[None, :]] * (wi[:, None] * wj[None, :])
        for (i, wi), (j, wj) in itertools.product(parts[0], parts[1])
    ]
    return np.stack(corners)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, batch, (out,) = ctx.type(0), ctx.type(2), _infer(ctx)
    axes, acc, count = ex.out_axes(4), dt.accumulator(x.dtype), ctx.attr("samples")
    image = clamp(ex.cast(ex.load(2, (axes[0],), batch.dtype), dt.i64), x.shape[0])
    parts = []
    for k, (first, size) in enumerate(((1, x.shape[2]), (0, x.shape[3]))):
        at = _point(ctx, axes[0], axes[2 + k], ex.Axis(f"r{k}"), first, ctx.attr("pooled")[k], acc)
        parts.append(_corner_pair(at, size))
    corners = []
    for (i, wi), (j, wj) in itertools.product(parts[0], parts[1]):
        value = ex.cast(ex.load(0, (image, axes[1], i, j), x.dtype), acc)
        corners.append(ex.call("mul", ex.call("mul", wi, wj), value))
    fn = "max" if ctx.attr("mode") == "max" else "add"
    body = ex.call(fn, ex.call(fn, corners[0], corners[1]), ex.call(fn, corners[2], corners[3]))
    kind = "max" if ctx.attr("mode") == "max" else "sum"
    total: ex.Expr = ex.Reduce(kind, (("r0", count), ("r1", count)), body, acc)
    if kind == "sum":
        total = ex.call("div", total, ex.lit(count * count, acc))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _point(
    ctx: InferContext, roi: ex.Expr, cell: ex.Expr, sample: ex.Expr, first: int, pooled: int, acc: DType
) -> ex.Expr:
    """The coordinate of a sample in a cell; the region's ends are columns `first` and `first` + 2."""
    rois, count = ctx.type(1), ctx.attr("samples")
    scale, shift = ex.lit(ctx.attr("scale"), acc), ex.lit(0.5 if ctx.attr("half_pixel") else 0.0, acc)
    ends = [ex.cast(ex.load(1, (roi, ex.idx(first + k)), rois.dtype), acc) for k in (0, 2)]
    low, high = (ex.call("sub", ex.call("mul", e, scale), shift) for e in ends)
    span = ex.call("sub", high, low)
    span = span if ctx.attr("half_pixel") else ex.call("max", span, ex.lit(1, acc))
    step = ex.call("div", span, ex.lit(pooled, acc))
    half = ex.call("div", ex.call("add", ex.cast(sample, acc), ex.lit(0.5, acc)), ex.lit(count, acc))
    return ex.call("add", low, ex.call("mul", ex.call("add", ex.cast(cell, acc), half), step))


def _corner_pair(at: ex.Expr, size: Dim) -> list[tuple[ex.Expr, ex.Expr]]:
    """(index, weight) of the elements below and above a coordinate."""
    acc = at.dtype
    zero, one, last = ex.lit(0, acc), ex.lit(1, acc), ex.cast(ex.idx(size - 1), acc)
    reach = ex.call("and", ex.call("ge", at, ex.lit(-1, acc)), ex.call("le", at, ex.cast(ex.idx(size), acc)))
    held = ex.call("max", ex.call("min", at, last), zero)
    low = ex.call("floor", held)
    up = ex.call("sub", held, low)
    i = ex.cast(low, dt.i64)
    weights = (ex.Select(reach, ex.call("sub", one, up), zero), ex.Select(reach, up, zero))
    return [(clamp(i, size), weights[0]), (clamp(ex.call("add", i, ex.idx(1)), size), weights[1])]


def _samples_of(samples: int) -> Any:
    def draw(rng: np.random.Generator) -> Sequence[Sample]:
        x = rng.standard_normal((2, 3, 8, 9)).astype(np.float32)
        at = rng.uniform(-2, 12, (5, 2))
        rois = np.concatenate([at, at + rng.uniform(0.2, 9, (5, 2))], 1).astype(np.float32)
        batch = rng.integers(0, 2, 5)
        attrs: dict[str, Any] = {"pooled": (3, 2), "samples": samples, "scale": 0.7, "half_pixel": True, "mode": "avg"}
        return (
            Sample((x, rois, batch), attrs, 1e-4),
            Sample((x, rois, batch), {**attrs, "half_pixel": False, "mode": "max"}, 1e-4),
        )

    return draw


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield ctx.type(2).shape[0], ctx.type(1).shape[0]


register(
    OpDef(
        "roi_align", _infer, _reference, Fusion.REDUCTION, compute=_compute, samples=_samples_of(2), taken=_taken
    )
)
register(OpDef("roi_align_adaptive", _infer, _reference, Fusion.HOST, samples=_samples_of(0), taken=_taken))


@onnx_op("RoiAlign", since=(10, 16, 22))
def _import(ctx: ImportContext) -> Values:
    samples = ctx.attr("sampling_ratio", 0)
    mode = ctx.attr("mode", "avg")
    if mode not in ("avg", "max"):
        ctx.unsupported(f"mode {mode!r} is not avg or max")
    half = ctx.since > 10 and ctx.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    return ctx.emit(
        "roi_align" if samples > 0 else "roi_align_adaptive", ctx.input(0), ctx.input(1), ctx.input(2),
        pooled=(ctx.attr("output_height", 1), ctx.attr("output_width", 1)), samples=max(samples, 0),
        scale=float(ctx.attr("spatial_scale", 1.0)), half_pixel=half, mode=mode,
    )  # fmt: skip
