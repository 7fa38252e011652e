"""NonMaxSuppression and MaxRoiPool: their sizes and ranges are data, so they run on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, minimum
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _nms_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    boxes, scores = ctx.type(0), ctx.type(1)
    if boxes.rank != 3 or scores.rank != 3 or boxes.shape[2] != 4:
        raise ValueError(f"NMS takes boxes [N, B, 4] and scores [N, classes, B], not {boxes} and {scores}")
    most: Dim = scores.shape[2]
    limit = ctx.value(2)
    if limit is not None and limit.dtype != object:
        most = minimum(most, max(0, int(limit.reshape(())))) if limit.size == 1 else most
    assert ctx.fresh is not None
    return (TensorType(dt.i64, (ctx.fresh("boxes", scores.shape[0] * scores.shape[1] * most), 3)),)


def _corners(boxes: np.ndarray, center: bool) -> np.ndarray:
    """[..., 4] as (low y, low x, high y, high x)."""
    if center:
        x, y, w, h = np.moveaxis(boxes, -1, 0)
        return np.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], -1)
    a, b = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], -1)


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with others; 0 where either is empty."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=1)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = area + areas - both
    real = (both > 0) & (area > 0) & (areas > 0) & (union > 0)
    return np.where(real, both / np.where(union == 0, 1, union), 0)


def _nms_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Greedy per batch and class, best score first, lower index first on ties: rows (batch, class, box)."""
    boxes, scores, *given = inputs
    assert boxes is not None and scores is not None
    limit, overlap, least = (None if g is None else g.reshape(-1)[0] for g in (*given, *(None,) * (3 - len(given))))
    most, allowed = (0 if limit is None else int(limit)), (0.0 if overlap is None else float(overlap))
    corners = _corners(boxes.astype(np.float32), attrs["center"])
    chosen: list[tuple[int, int, int]] = []
    for batch, cls in np.ndindex(*scores.shape[:2]):
        score = scores[batch, cls]
        order = np.argsort(-score, kind="stable")
        if least is not None:
            order = order[score[order] > least]
        kept = 0
        while len(order) and kept < most:
            best, order = order[0], order[1:]
            chosen.append((batch, cls, int(best)))
            kept += 1
            order = order[_overlap(corners[batch, best], corners[batch, order]) <= allowed]
    return (np.array(chosen, np.int64).reshape(-1, 3),)


def _nms_samples(rng: np.random.Generator) -> Sequence[Sample]:
    at = rng.uniform(0, 8, (2, 20, 2))
    boxes = np.concatenate([at, at + rng.uniform(1, 4, (2, 20, 2))], -1).astype(np.float32)
    scores = rng.random((2, 3, 20)).astype(np.float32)
    limits = (np.array([5]), np.array([0.4], np.float32), np.array([0.2], np.float32))
    return (
        Sample((boxes, scores, *limits), {"center": False}),
        Sample((boxes, scores, limits[0], limits[1], None), {"center": True}),
    )


register(OpDef("nms", _nms_infer, _nms_reference, Fusion.HOST, samples=_nms_samples))


@onnx_op("NonMaxSuppression", since=(10, 11))
def _import_nms(ctx: ImportContext) -> Values:
    limits = (ctx.input(k) if ctx.has(k) else None for k in (2, 3, 4))
    return ctx.emit("nms", ctx.input(0), ctx.input(1), *limits, center=bool(ctx.attr("center_point_box", 0)))


def _roi_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, rois = ctx.type(0), ctx.type(1)
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 5:
        raise ValueError(f"max_roi_pool takes data [N, C, H, W] and regions [R, 5], not {x} and {rois}")
    return (TensorType(x.dtype, (rois.shape[0], x.shape[1], *ctx.attr("pooled"))),)


def _roi_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Region rows are (batch, x1, y1, x2, y2), rounded to whole elements; an empty bin gives 0."""
    x, rois = inputs
    assert x is not None and rois is not None
    out = np.zeros((len(rois), x.shape[1], *attrs["pooled"]), x.dtype)
    for r, (batch, x1, y1, x2, y2) in enumerate(rois.astype(np.float64)):
        spans = [
            _bins(low, high, pooled, size, attrs["scale"])
            for low, high, pooled, size in zip((y1, x1), (y2, x2), attrs["pooled"], x.shape[2:], strict=True)
        ]
        for i, rows in enumerate(spans[0]):
            for j, columns in enumerate(spans[1]):
                window = x[int(batch), :, rows, columns]
                if window.size:
                    out[r, :, i, j] = window.max(axis=(1, 2))
    return (out,)


def _bins(low: float, high: float, pooled: int, size: int, scale: float) -> list[slice]:
    start, end = (int(np.floor(v * scale + 0.5)) for v in (low, high))
    step = max(end - start + 1, 1) / pooled
    edges = [(int(np.floor(k * step)) + start, int(np.ceil((k + 1) * step)) + start) for k in range(pooled)]
    return [slice(min(max(a, 0), size), min(max(b, 0), size)) for a, b in edges]


def _roi_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 3, 8, 9)).astype(np.float32)
    rois = np.array([[0, 1, 1, 12, 10], [1, 4, 2, 5, 15], [0, 30, 30, 40, 40]], np.float32)
    return (Sample((x, rois), {"pooled": (2, 3), "scale": 0.5}),)


register(OpDef("max_roi_pool", _roi_infer, _roi_reference, Fusion.HOST, samples=_roi_samples))


@onnx_op("MaxRoiPool", since=(1, 22))
def _import_max_roi_pool(ctx: ImportContext) -> Values:
    pooled, scale = tuple(ctx.attr("pooled_shape")), float(ctx.attr("spatial_scale", 1.0))
    return ctx.emit("max_roi_pool", ctx.input(0), ctx.input(1), pooled=pooled, scale=scale)
