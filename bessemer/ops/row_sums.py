"""Normalisation of rows by sums that were taken where the rows were made.

A layer norm reads each row to the end before it can write the first element. Cut in two, the kernel that makes the rows
adds up runs of them (`run_sums`), and those that read them finish the sums and normalise (`normalize_rows`): see
passes/normalize_readers.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register

RUN = 64  # neighbours that are added up


def sums_of(x: TensorType) -> TensorType:
    """The type of the sums of the rows of `x` [..., n]: f32 [..., n / RUN, 2], the sum and the sum of squares."""
    size = x.shape[-1] if x.rank else None
    if not isinstance(size, int) or size % RUN or not x.dtype.is_float:
        raise ValueError(f"adds up runs of {RUN} floats along the last axis, not {x}")
    return TensorType(dt.f32, (*x.shape[:-1], size // RUN, 2))


def sums_in_numpy(x: np.ndarray) -> np.ndarray:
    """What `sums_of` describes, added up in f64."""
    runs = x.astype(np.float64).reshape(*x.shape[:-1], -1, RUN)
    return np.stack([runs.sum(-1), (runs * runs).sum(-1)], axis=-1).astype(np.float32)


def _sums_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    return (sums_of(ctx.type(0)),)


def _sums_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x = inputs[0]
    assert x is not None
    return (sums_in_numpy(x),)


def _sums_compute(ctx: InferContext) -> ex.ComputeDef:
    x, out = ctx.type(0), sums_of(ctx.type(0))
    *rows, run, which = ex.out_axes(out.rank)
    column = ex.call("add", ex.call("mul", run, ex.idx(RUN)), ex.Axis("r"))
    value = ex.cast(ex.load(0, (*rows, column), x.dtype), dt.f32)
    term = ex.Select(ex.call("eq", which, ex.idx(0)), value, ex.call("mul", value, value))
    return ex.ComputeDef(out.shape, dt.f32, ex.Reduce("sum", (("r", RUN),), term, dt.f32))


def _sums_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return tuple(Sample((rng.standard_normal(shape).astype(np.float32),), {}) for shape in ((3, 128), (2, 5, 256)))


register(OpDef("run_sums", _sums_infer, _sums_reference, Fusion.REDUCTION, _sums_compute, samples=_sums_samples))


def _normalize_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, sums = ctx.type(0), ctx.type(1)
    if sums.dtype != dt.f32 or sums.rank != x.rank + 1 or sums.shape[-2:] != (ctx.attr("size") // RUN, 2):
        raise ValueError(f"{sums} are no sums of rows of {ctx.attr('size')} for {x}")
    return (TensorType(dt.f32, x.shape),)


def _normalize_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, sums, *weight = inputs
    assert x is not None and sums is not None
    mean, square = np.moveaxis(sums.astype(np.float64).sum(-2, keepdims=True), -1, 0) / attrs["size"]
    own = weight[0].astype(np.float64) if weight and weight[0] is not None else 1.0
    deviation = np.sqrt(np.maximum(square - mean * mean, 0.0) + attrs["epsilon"])
    return (((x.astype(np.float64) - mean * own) / deviation).astype(np.float32),)


def _normalize_compute(ctx: InferContext) -> ex.ComputeDef:
    x, sums, axes = ctx.type(0), ctx.type(1), ex.out_axes(ctx.type(0).rank)
    row = ex.broadcast_index(sums.shape[:-2], axes[:-1])

    def mean(which: int) -> ex.Expr:
        one = ex.load(1, (*row, ex.Axis("r"), ex.idx(which)), dt.f32)
        total = ex.Reduce("sum", (("r", sums.shape[-2]),), one, dt.f32)
        return ex.call("mul", total, ex.lit(1.0 / ctx.attr("size"), dt.f32))

    centre = mean(0)
    variance = ex.call("max", ex.call("sub", mean(1), ex.call("mul", centre, centre)), ex.lit(0.0, dt.f32))
    scale = ex.call("rsqrt", ex.call("add", variance, ex.lit(ctx.attr("epsilon"), dt.f32)))
    if ctx.has(2):
        weight = ctx.type(2)
        own = ex.cast(ex.load(2, ex.broadcast_index(weight.shape, axes), weight.dtype), dt.f32)
        centre = ex.call("mul", centre, own)
    value = ex.cast(ex.load(0, axes, x.dtype), dt.f32)
    return ex.ComputeDef(x.shape, dt.f32, ex.call("mul", ex.call("sub", value, centre), scale))


def _normalize_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 128), (128,)))
    stacked = rng.standard_normal((3, 5, 24)).astype(np.float32)
    attrs = {"size": 128, "epsilon": 1e-5}
    sums = sums_in_numpy(x)
    return (
        Sample((x, sums), attrs),
        Sample((x, sums, w), attrs),
        Sample((stacked, sums[None], w[:24]), attrs, note="batches of weights"),
    )


register(
    OpDef(
        "normalize_rows", _normalize_infer, _normalize_reference, Fusion.POINTWISE, _normalize_compute,
        samples=_normalize_samples,
    )
)  # fmt: skip
