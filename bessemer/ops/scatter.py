"""Writes at indices that are data: ScatterElements, ScatterND and TensorScatter.

ScatterND at constant indices becomes a gather through the inverse map; other scatters run on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.interval import compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.bounds import at_most

REDUCTIONS: Mapping[str, Any] = {
    "none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip
INVERSE_LIMIT = 1 << 22  # elements of the inverse map of a constant scatter


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, indices, updates = ctx.type(0), ctx.type(1), ctx.type(2)
    if updates.dtype != x.dtype or not indices.dtype.is_int:
        raise ValueError(f"cannot scatter {updates} at {indices} into {x}")
    if ctx.attr("reduction") not in REDUCTIONS:
        raise ValueError(f"unknown reduction {ctx.attr('reduction')!r}; known: {', '.join(REDUCTIONS)}")
    return (x,)


def _elements_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, indices, updates = ctx.type(0), ctx.type(1), ctx.type(2)
    if not x.rank == indices.rank == updates.rank:
        raise ValueError(f"data, indices and updates must have one rank, not {x}, {indices} and {updates}")
    return _infer(ctx)


def _elements_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    x, indices, updates = ctx.type(0), ctx.type(1), ctx.type(2)
    yield from zip(indices.shape, updates.shape)
    for k, (d, size) in enumerate(zip(indices.shape, x.shape)):
        if k != ctx.attr("axis"):
            yield from at_most(d, size, ctx.ranges)


def _depth(ctx: InferContext) -> int:
    """Axes of the data that one index is for, by the ranks; 0 where the operands have no indices."""
    x, indices, updates = ctx.type(0), ctx.type(1), ctx.type(2)
    return indices.rank - 1 + x.rank - updates.rank if indices.rank else 0


def _nd_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, indices, updates = ctx.type(0), ctx.type(1), ctx.type(2)
    depth = _depth(ctx)
    if not 0 < depth <= x.rank or compare(indices.shape[-1], depth, ctx.ranges)[0] is False:
        raise ValueError(f"cannot scatter {updates} at {indices} into {x}")
    return _infer(ctx)


def _nd_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    """The updates are as many as the indices, each of what one index leaves of the data."""
    x, indices, updates = ctx.type(0), ctx.type(1), ctx.type(2)
    yield indices.shape[-1], _depth(ctx)
    yield from zip(updates.shape, (*indices.shape[:-1], *x.shape[_depth(ctx) :]))


def _write(out: np.ndarray, at: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str) -> tuple[np.ndarray, ...]:
    ufunc = REDUCTIONS[reduction]
    if ufunc is None:
        out[at] = updates
    else:
        ufunc.at(out, at, updates)
    return (out,)


def _elements_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, indices, updates = inputs
    assert x is not None and indices is not None and updates is not None
    at: list[Any] = list(np.ogrid[tuple(slice(d) for d in indices.shape)])
    at[attrs["axis"]] = indices.astype(np.int64)
    return _write(x.copy(), tuple(at), updates, attrs["reduction"])


def _elements_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x, updates = (rng.standard_normal((4, 5)).astype(np.float32) for _ in range(2))
    rows = np.stack([rng.permutation(4) for _ in range(3)], 1) - 4 * rng.integers(0, 2, (4, 3))
    repeated = rng.integers(-5, 5, (3, 4))
    return [
        Sample((x, rows, updates[:, :3]), {"axis": 0, "reduction": "none"}),
        *(Sample((x, repeated, updates[:3, :4]), {"axis": 1, "reduction": r}) for r in ("add", "mul", "max", "min")),
    ]


register(
    OpDef(
        "scatter_elements", _elements_infer, _elements_reference, Fusion.HOST, samples=_elements_samples,
        taken=_elements_taken,
    )
)  # fmt: skip


@onnx_op("Scatter", since=(9, 11))
@onnx_op("ScatterElements", since=(11, 13, 16, 18))
def _scatter_elements(ctx: ImportContext) -> Values:
    x, reduction = ctx.input(0), ctx.attr("reduction", "none")
    axis = ctx.axis(ctx.attr("axis", 0), ctx.rank(x))
    return ctx.emit("scatter_elements", x, ctx.input(1), ctx.input(2), axis=axis, reduction=reduction)


# -- scatter_nd ---------------------------------------------------------------------------------------------------


def _nd_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, indices, updates = inputs
    assert x is not None and indices is not None and updates is not None
    return _write(x.copy(), tuple(np.moveaxis(indices.astype(np.int64), -1, 0)), updates, attrs["reduction"])


def _nd_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x, updates = (rng.standard_normal((4, 5, 2)).astype(np.float32) for _ in range(2))
    distinct = rng.permutation(20)[:6].reshape(2, 3)
    pairs = np.stack([distinct // 5, distinct % 5 - 5], -1)
    return [
        Sample((x, pairs, updates[:2, :3]), {"reduction": "none"}),
        Sample((x, rng.integers(-4, 4, (4, 1)), updates), {"reduction": "add"}),
        *(Sample((x, rng.integers(0, 2, (4, 5, 3)), updates[..., 0]), {"reduction": r}) for r in ("mul", "max", "min")),
    ]


register(OpDef("scatter_nd", _nd_infer, _nd_reference, Fusion.HOST, samples=_nd_samples, taken=_nd_taken))


@onnx_op("ScatterND", since=(11, 13, 16, 18))
def _scatter_nd(ctx: ImportContext) -> Values:
    x, indices, updates = (ctx.input(k) for k in range(3))
    reduction = ctx.attr("reduction", "none")
    source = _inverse(ctx, x, indices) if reduction == "none" else None
    if source is None:
        return ctx.emit("scatter_nd", x, indices, updates, reduction=reduction)
    shape, depth = ctx.shape(x), source.ndim
    rows = ctx.emit("reshape", updates, shape=(product(ctx.shape(indices)[:-1]), *shape[depth:]))
    taken = ctx.emit("gather", rows, ctx.const(np.maximum(source, 0), dt.i64), axis=0)
    if (source >= 0).all():
        return taken
    hit = ctx.const((source >= 0).reshape(source.shape + (1,) * (len(shape) - depth)), dt.bool_)
    return ctx.emit("where", hit, taken, x)


def _inverse(ctx: ImportContext, x: str, indices: str) -> np.ndarray | None:
    """For constant indices: which row of the updates each place gets, or -1; None where that is not known."""
    known = ctx.builder.constant_of(indices)
    if known is None:
        return None
    depth = known.type.shape[-1]
    assert isinstance(depth, int)
    shape = tuple(d for d in ctx.shape(x)[:depth] if isinstance(d, int))
    if len(shape) != depth or math.prod(shape) > INVERSE_LIMIT:
        return None
    at = known.load().astype(np.int64).reshape(-1, depth)
    if not at.size or not ((at >= -np.array(shape)) & (at < np.array(shape))).all():
        return None
    out = np.full(shape, -1, np.int64)
    out[tuple(at.T)] = np.arange(len(at))
    return out


# -- tensor_scatter -----------------------------------------------------------------------------------------------


def _cache_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    cache, update, axis = ctx.type(0), ctx.type(1), ctx.attr("axis")
    if update.dtype != cache.dtype or update.rank != cache.rank or not 0 < axis < cache.rank:
        raise ValueError(f"cannot write {update} into {cache} along axis {axis}")
    if ctx.has(2) and not (ctx.type(2).dtype.is_int and ctx.type(2).rank == 1):
        raise ValueError(f"the write indices must be a vector of integers, not {ctx.type(2)}")
    return (cache,)


def _cache_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    cache, update, *given = inputs
    assert cache is not None and update is not None
    axis, out = attrs["axis"], cache.copy()
    length, size = update.shape[axis], cache.shape[axis]
    starts = given[0] if given and given[0] is not None else np.zeros(len(cache), np.int64)
    for b, start in enumerate(starts.tolist()):
        at = start + np.arange(length)
        where = (slice(None),) * (axis - 1) + (at % size if attrs["circular"] else at,)
        out[b][where] = update[b]
    return (out,)


def _cache_compute(ctx: InferContext) -> ex.ComputeDef:
    cache, update, axis = ctx.type(0), ctx.type(1), ctx.attr("axis")
    axes = ex.out_axes(cache.rank)
    at: ex.Expr = axes[axis]
    if ctx.has(2):
        at = ex.call("sub", at, ex.cast(ex.load(2, (axes[0],), ctx.type(2).dtype), dt.i64))
    if ctx.attr("circular"):
        at = ex.call("floormod", at, ex.idx(cache.shape[axis]))
    inside = ex.call("and", ex.call("ge", at, ex.lit(0, dt.i64)), ex.call("lt", at, ex.idx(update.shape[axis])))
    new = ex.load(1, (*axes[:axis], at, *axes[axis + 1 :]), cache.dtype)
    return ex.ComputeDef(cache.shape, cache.dtype, ex.Select(inside, new, ex.load(0, axes, cache.dtype)))


def _cache_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    cache, update = ctx.type(0), ctx.type(1)
    for k, (d, size) in enumerate(zip(update.shape, cache.shape)):
        if k != ctx.attr("axis"):
            yield d, size
        else:
            yield from at_most(d, size, ctx.ranges)
    if ctx.has(2):
        yield ctx.type(2).shape[0], cache.shape[0]


def _cache_samples(rng: np.random.Generator) -> Sequence[Sample]:
    cache, update = (rng.standard_normal((3, 2, n, 4)).astype(np.float32) for n in (7, 3))
    return [
        Sample((cache, update, rng.integers(0, 5, 3)), {"axis": 2, "circular": False}),
        Sample((cache, update, rng.integers(0, 9, 3)), {"axis": 2, "circular": True}),
        Sample((cache[:, 0], update[:, 0]), {"axis": 1, "circular": False}),
    ]


register(
    OpDef(
        "tensor_scatter", _cache_infer, _cache_reference, Fusion.INJECTIVE,
        compute=_cache_compute, samples=_cache_samples, taken=_cache_taken,
    )
)  # fmt: skip


@onnx_op("TensorScatter", since=(24,))
def _tensor_scatter(ctx: ImportContext) -> Values:
    cache, circular = ctx.input(0), ctx.attr("mode", "linear") == "circular"
    starts = (ctx.input(2),) if ctx.has(2) else ()
    axis = ctx.axis(ctx.attr("axis", -2), ctx.rank(cache))
    return ctx.emit("tensor_scatter", cache, ctx.input(1), *starts, axis=axis, circular=circular)
