"""Elements chosen by their values, so that how many come out is data: compress, nonzero and unique (host ops)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _nonzero_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x = ctx.type(0)
    return (TensorType(dt.i64, (x.rank, ctx.fresh("nonzero", x.numel))),)


def _nonzero_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    if x.ndim == 0:
        return (np.zeros((0, int(x != 0)), np.int64),)
    return (np.stack(np.nonzero(x)).astype(np.int64),)


def _nonzero_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.integers(0, 2, (3, 4)).astype(np.float32)
    return (Sample((x,)), Sample((x[0] > 0,)), Sample((np.zeros((2, 3), np.int64),)))


register(OpDef("nonzero", _nonzero_infer, _nonzero_reference, Fusion.HOST, samples=_nonzero_samples))


@onnx_op("NonZero", since=(9, 13))
def _nonzero(ctx: ImportContext) -> Values:
    return ctx.emit("nonzero", ctx.input(0))


# -- compress -----------------------------------------------------------------------------------------------------


def _compress_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x, axis = ctx.type(0), ctx.attr("axis")
    if ctx.type(1).dtype != dt.bool_ or ctx.type(1).rank != 1:
        raise ValueError(f"the condition must be a vector of bool, not {ctx.type(1)}")
    if axis is None:
        return (TensorType(x.dtype, (ctx.fresh("compress", x.numel),)),)
    return (TensorType(x.dtype, (*x.shape[:axis], ctx.fresh("compress", x.shape[axis]), *x.shape[axis + 1 :])),)


def _compress_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, condition = inputs
    assert x is not None and condition is not None
    return (np.compress(condition, x, attrs["axis"]),)


def _compress_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x, truth = rng.standard_normal((3, 5)).astype(np.float32), rng.integers(0, 2, 5).astype(bool)
    return (Sample((x, truth), {"axis": 1}), Sample((x, truth[:2]), {"axis": 0}), Sample((x, truth), {"axis": None}))


register(OpDef("compress", _compress_infer, _compress_reference, Fusion.HOST, samples=_compress_samples))


@onnx_op("Compress", since=(9, 11, 28))
def _compress(ctx: ImportContext) -> Values:
    x, axis = ctx.input(0), ctx.attr("axis", None)
    return ctx.emit("compress", x, ctx.input(1), axis=None if axis is None else ctx.axis(axis, ctx.rank(x)))


# -- unique -------------------------------------------------------------------------------------------------------


def _unique_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x, axis = ctx.type(0), ctx.attr("axis")
    extent = x.numel if axis is None else x.shape[axis]
    count = ctx.fresh("unique", extent)
    shape = (count,) if axis is None else (*x.shape[:axis], count, *x.shape[axis + 1 :])
    counts = TensorType(dt.i64, (count,))
    return (TensorType(x.dtype, shape), counts, TensorType(dt.i64, (extent,)), counts)


def _unique_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    axis = attrs["axis"]
    y, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not attrs["sorted"]:
        order = np.argsort(first)
        y, first, counts = np.take(y, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


def _unique_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.integers(0, 3, (4, 5)).astype(np.float32)
    attrs: list[dict[str, Attr]] = [
        {"axis": axis, "sorted": ordered} for axis in (None, 0) for ordered in (True, False)
    ]
    return [Sample((x,), a) for a in attrs]


register(OpDef("unique", _unique_infer, _unique_reference, Fusion.HOST, samples=_unique_samples))


@onnx_op("Unique", since=(11, 28))
def _unique(ctx: ImportContext) -> Values:
    x, axis = ctx.input(0), ctx.attr("axis", None)
    at = None if axis is None else ctx.axis(axis, ctx.rank(x))
    return ctx.emit_all("unique", x, axis=at, sorted=bool(ctx.attr("sorted", 1)))
