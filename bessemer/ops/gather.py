"""Gather, GatherElements and GatherND: loads at indices that are data. Negative indices count from the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.interval import compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.bounds import at_most
from bessemer.ops.broadcasting import same_dim
from bessemer.ops.slice import emit_slice


def wrapped(index: ex.Expr, size: Dim) -> ex.Expr:
    """`index` (of any integer dtype) as an i64 counted from the front of an axis of `size`."""
    at = ex.cast(index, dt.i64)
    if index.dtype.kind == "u":
        return at
    return ex.Select(ex.call("lt", at, ex.lit(0, dt.i64)), ex.call("add", at, ex.idx(size)), at)


def _check_indices(ctx: InferContext) -> None:
    if not ctx.type(1).dtype.is_int:
        raise ValueError(f"indices must be integers, not {ctx.type(1)}")


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    _check_indices(ctx)
    x, indices, axis = ctx.type(0), ctx.type(1), ctx.attr("axis")
    if not 0 <= axis < x.rank:
        raise ValueError(f"axis {axis} is not an axis of {x}")
    return (TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, indices = inputs
    assert x is not None and indices is not None
    return (np.asarray(np.take(x, indices.astype(np.int64), attrs["axis"])),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _infer(ctx)
    x, indices, axis = ctx.type(0), ctx.type(1), ctx.attr("axis")
    axes, after = ex.out_axes(out.rank), axis + indices.rank
    at = wrapped(ex.load(1, axes[axis:after], indices.dtype), x.shape[axis])
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, (*axes[:axis], at, *axes[after:]), x.dtype))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((5, 7, 3)).astype(np.float32)
    return [
        Sample((x, rng.integers(-5, 5, (2, 4))), {"axis": 0}),
        Sample((x, rng.integers(-7, 7, (3,)).astype(np.int32)), {"axis": 1}),
        Sample((x, np.array(-1)), {"axis": 2}),
        Sample((rng.integers(0, 99, (9,)), rng.integers(0, 9, (3,))), {"axis": 0}),
        Sample((x.astype(np.float16), rng.integers(0, 5, (2, 1))), {"axis": 0}),
    ]


register(OpDef("gather", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, symbolic=True))


@onnx_op("Gather", since=(1, 11, 13))
def _gather(ctx: ImportContext) -> Values:
    x, indices = ctx.input(0), ctx.input(1)
    axis = ctx.axis(ctx.attr("axis", 0), ctx.rank(x))
    chosen = ctx.ints(indices) if ctx.rank(indices) == 0 else None
    if chosen is None:
        return ctx.emit("gather", x, indices, axis=axis)
    shape = ctx.shape(x)  # one known index: a slice, which fuses better and needs no load of the index
    start = chosen[0] if chosen[0] >= 0 else chosen[0] + shape[axis]
    part = emit_slice(ctx, x, {axis: (start, 1, 1)})
    return ctx.emit("reshape", part, shape=(*shape[:axis], *shape[axis + 1 :]))


# -- gather_elements ----------------------------------------------------------------------------------------------


def _elements_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    _check_indices(ctx)
    x, indices = ctx.type(0), ctx.type(1)
    if indices.rank != x.rank or not 0 <= ctx.attr("axis") < x.rank:
        raise ValueError(f"cannot gather elements of {x} at {indices} on axis {ctx.attr('axis')}")
    for k, (d, size) in enumerate(zip(indices.shape, x.shape)):
        if k != ctx.attr("axis") and compare(size, d, ctx.ranges)[1]:
            raise ValueError(f"the indices {indices} have more elements on axis {k} than {x}")
    return (TensorType(x.dtype, indices.shape),)


def _elements_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, indices = inputs
    assert x is not None and indices is not None
    axis = attrs["axis"]
    at: list[Any] = list(np.ogrid[tuple(slice(d) for d in indices.shape)])
    at[axis] = indices.astype(np.int64)
    return (x[tuple(at)],)


def _elements_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _elements_infer(ctx)
    x, axis, axes = ctx.type(0), ctx.attr("axis"), ex.out_axes(out.rank)
    at = wrapped(ex.load(1, axes, ctx.type(1).dtype), x.shape[axis])
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, (*axes[:axis], at, *axes[axis + 1 :]), x.dtype))


def _elements_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    for k, (d, size) in enumerate(zip(ctx.type(1).shape, ctx.type(0).shape)):
        if k != ctx.attr("axis"):
            yield from at_most(d, size, ctx.ranges)


def _elements_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((5, 7, 3)).astype(np.float32)
    return [
        Sample((x, rng.integers(-7, 7, (5, 4, 3))), {"axis": 1}),
        Sample((x, rng.integers(0, 5, (9, 2, 2)).astype(np.int32)), {"axis": 0}),
    ]


register(
    OpDef(
        "gather_elements", _elements_infer, _elements_reference, Fusion.INJECTIVE,
        compute=_elements_compute, samples=_elements_samples, taken=_elements_taken,
    )
)  # fmt: skip


@onnx_op("GatherElements", since=(11, 13))
def _gather_elements(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    return ctx.emit("gather_elements", x, ctx.input(1), axis=ctx.axis(ctx.attr("axis", 0), ctx.rank(x)))


# -- gather_nd ----------------------------------------------------------------------------------------------------


def _nd_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    _check_indices(ctx)
    x, indices, batch = ctx.type(0), ctx.type(1), ctx.attr("batch_dims")
    depth = indices.shape[-1] if indices.rank else 0
    if not isinstance(depth, int) or not batch < indices.rank or batch + depth > x.rank:
        raise ValueError(f"cannot gather from {x} at {indices} with {batch} batch dimensions")
    lead = tuple(same_dim(a, b, ctx.ranges) for a, b in zip(x.shape[:batch], indices.shape))
    return (TensorType(x.dtype, (*lead, *indices.shape[batch:-1], *x.shape[batch + depth :])),)


def _nd_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, indices = inputs
    assert x is not None and indices is not None
    batch: int = attrs["batch_dims"]
    rows = tuple(np.moveaxis(indices.astype(np.int64), -1, 0))
    lead = np.ogrid[tuple(slice(d) for d in indices.shape[:-1])][:batch] if batch else []
    return (np.asarray(x[(*lead, *rows)]),)


def _nd_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _nd_infer(ctx)
    x, indices, batch = ctx.type(0), ctx.type(1), ctx.attr("batch_dims")
    axes, depth = ex.out_axes(out.rank), indices.shape[-1]
    assert isinstance(depth, int)
    row = axes[: indices.rank - 1]
    at = [
        wrapped(ex.load(1, (*row, ex.lit(k, dt.i64)), indices.dtype), x.shape[batch + k]) for k in range(depth)
    ]
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, (*axes[:batch], *at, *axes[indices.rank - 1 :]), x.dtype))


def _nd_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield from zip(ctx.type(0).shape[: ctx.attr("batch_dims")], ctx.type(1).shape)


def _nd_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 4, 5, 2)).astype(np.float32)
    return [
        Sample((x, np.stack([rng.integers(-3, 3, (2, 6)), rng.integers(-4, 4, (2, 6))], -1)), {"batch_dims": 0}),
        Sample((x, rng.integers(-4, 4, (3, 7, 1))), {"batch_dims": 1}),
        Sample((x, rng.integers(-2, 2, (3, 4, 2))), {"batch_dims": 2}),
        Sample((x, rng.integers(0, 2, (4,))), {"batch_dims": 0}),
    ]


register(
    OpDef(
        "gather_nd", _nd_infer, _nd_reference, Fusion.INJECTIVE, compute=_nd_compute, samples=_nd_samples,
        taken=_nd_taken,
    )
)


@onnx_op("GatherND", since=(11, 12, 13))
def _gather_nd(ctx: ImportContext) -> Values:
    return ctx.emit("gather_nd", ctx.input(0), ctx.input(1), batch_dims=ctx.attr("batch_dims", 0))
