"""CenterCropPad: a slice and a pad where the target shape is known, else a host op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, floordiv
from bessemer.core.interval import Ranges
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.pad import emit_pad
from bessemer.ops.slice import emit_slice, greater


def _centred(size: Dim, target: Dim, ranges: Ranges) -> tuple[tuple[Dim, Dim], tuple[Dim, Dim]]:
    """((start, size) of what is kept, (begin, end) pads) that bring an axis of `size` to `target`."""
    crop, fill = greater(size - target, 0, ranges), greater(target - size, 0, ranges)
    return (floordiv(crop, 2), size - crop), (floordiv(fill, 2), fill - floordiv(fill, 2))


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x, axes = ctx.type(0), ctx.attr("axes")
    return (TensorType(x.dtype, tuple(ctx.fresh("crop", None) if k in axes else d for k, d in enumerate(x.shape))),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, wanted = inputs
    assert x is not None and wanted is not None
    for axis, target in zip(attrs["axes"], wanted.tolist()):
        (start, size), pads = _centred(x.shape[axis], target, {})
        assert isinstance(start, int) and isinstance(size, int)
        x = np.take(x, range(start, start + size), axis)
        x = np.pad(x, [pads if k == axis else (0, 0) for k in range(x.ndim)])  # type: ignore[arg-type]
    return (x,)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((7, 4, 3)).astype(np.float32)
    return (Sample((x, np.array([4, 9])), {"axes": (0, 1)}),)


register(OpDef("center_crop_pad_dynamic", _infer, _reference, Fusion.HOST, samples=_samples))


@onnx_op("CenterCropPad", since=(18,))
def _center_crop_pad(ctx: ImportContext) -> Values:
    x, wanted = ctx.input(0), ctx.dims(ctx.input(1))
    rank, shape = ctx.rank(x), ctx.shape(x)
    axes = tuple(ctx.axis(a, rank) for a in ctx.attr("axes", tuple(range(rank))))
    if wanted is None:
        return ctx.emit("center_crop_pad_dynamic", x, ctx.input(1), axes=axes)
    cut: dict[int, tuple[Dim, Dim, int]] = {}
    pads: list[Dim] = [0] * (2 * rank)
    for axis, target in zip(axes, wanted):
        (start, size), (pads[axis], pads[axis + rank]) = _centred(shape[axis], target, ctx.ranges)
        cut[axis] = (start, size, 1)
    return emit_pad(ctx, emit_slice(ctx, x, cut), pads)
