"""Elements chosen by position: one_hot, trilu and reverse_sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.gather import wrapped

# -- one_hot ------------------------------------------------------------------------------------------------------


def _one_hot_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    indices, values, axis = ctx.type(0), ctx.type(1), ctx.attr("axis")
    if values.shape != (2,) or not 0 <= axis <= indices.rank:
        raise ValueError(f"cannot place the values {values} of {indices} on axis {axis}")
    return (TensorType(values.dtype, (*indices.shape[:axis], ctx.attr("depth"), *indices.shape[axis:])),)


def _one_hot(indices: np.ndarray, values: np.ndarray, depth: int, axis: int) -> Any:
    at = np.where(indices < 0, indices.astype(np.int64) + depth, indices.astype(np.int64))
    column = np.arange(depth).reshape((depth,) + (1,) * (indices.ndim - axis))
    return np.where(np.expand_dims(at, axis) == column, values[1], values[0])


def _one_hot_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    indices, values = inputs
    assert indices is not None and values is not None
    return (_one_hot(indices, values, attrs["depth"], attrs["axis"]),)


def _one_hot_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _one_hot_infer(ctx)
    axis, axes = ctx.attr("axis"), ex.out_axes(out.rank)
    at = wrapped(ex.load(0, (*axes[:axis], *axes[axis + 1 :]), ctx.type(0).dtype), ctx.attr("depth"))
    off, on = (ex.load(1, (ex.lit(k, dt.i64),), out.dtype) for k in (0, 1))
    return ex.ComputeDef(out.shape, out.dtype, ex.Select(ex.call("eq", at, axes[axis]), on, off))


def _one_hot_samples(rng: np.random.Generator) -> Sequence[Sample]:
    indices, values = rng.integers(-8, 9, (3, 4)), rng.standard_normal(2).astype(np.float32)
    return [
        *(Sample((indices, values), {"axis": axis, "depth": 6}) for axis in (0, 1, 2)),
        Sample((indices[0].astype(np.int32), np.array([0, 1])), {"axis": 1, "depth": 5}),
    ]


register(
    OpDef(
        "one_hot", _one_hot_infer, _one_hot_reference, Fusion.INJECTIVE,
        compute=_one_hot_compute, samples=_one_hot_samples,
    )
)  # fmt: skip


def _one_hot_dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    indices, values, axis = ctx.type(0), ctx.type(1), ctx.attr("axis")
    assert ctx.fresh is not None
    return (TensorType(values.dtype, (*indices.shape[:axis], ctx.fresh("depth", None), *indices.shape[axis:])),)


def _one_hot_dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    indices, values, depth = inputs
    assert indices is not None and values is not None and depth is not None
    return (_one_hot(indices, values, int(depth.reshape(())), attrs["axis"]),)


def _one_hot_dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.integers(0, 5, (3,)), np.array([0, 2], np.float32), np.array(5)), {"axis": 1}),)


register(
    OpDef(
        "one_hot_dynamic", _one_hot_dynamic_infer, _one_hot_dynamic_reference, Fusion.HOST,
        samples=_one_hot_dynamic_samples,
    )
)  # fmt: skip


@onnx_op("OneHot", since=(9, 11, 28))
def _import_one_hot(ctx: ImportContext) -> Values:
    indices, values = ctx.input(0), ctx.input(2)
    if not ctx.dtype(indices).is_int:
        indices = ctx.cast(indices, dt.i64)
    axis, depth = ctx.axis(ctx.attr("axis", -1), ctx.rank(indices) + 1), ctx.dims(ctx.input(1))
    if depth is None:
        return ctx.emit("one_hot_dynamic", indices, values, ctx.input(1), axis=axis)
    return ctx.emit("one_hot", indices, values, axis=axis, depth=depth[0])


# -- trilu --------------------------------------------------------------------------------------------------------


def _trilu_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    if x.rank < 2:
        raise ValueError(f"{x} is no matrix")
    if ctx.has(1) and (ctx.type(1).dtype != dt.i64 or ctx.type(1).numel != 1):
        raise ValueError(f"the diagonal must be one i64, not {ctx.type(1)}")
    return (x,)


def _trilu_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, *given = inputs
    assert x is not None
    k = int(given[0].reshape(())) if given and given[0] is not None else attrs["k"]
    return ((np.triu if attrs["upper"] else np.tril)(x, k),)


def _trilu_compute(ctx: InferContext) -> ex.ComputeDef:
    x = ctx.type(0)
    axes = ex.out_axes(x.rank)
    zeros = (ex.lit(0, dt.i64),) * (ctx.type(1).rank if ctx.has(1) else 0)
    k = ex.load(1, zeros, dt.i64) if ctx.has(1) else ex.idx(ctx.attr("k"))
    offset = ex.call("sub", axes[-1], axes[-2])
    kept = ex.call("ge" if ctx.attr("upper") else "le", offset, k)
    return ex.ComputeDef(x.shape, x.dtype, ex.Select(kept, ex.load(0, axes, x.dtype), ex.lit(0, x.dtype)))


def _trilu_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 5, 7)).astype(np.float32)
    return [
        *(Sample((x,), {"upper": upper, "k": k}) for upper in (True, False) for k in (-2, 0, 1, 9)),
        Sample((rng.integers(0, 9, (4, 4)), np.array(1)), {"upper": False, "k": 0}),
    ]


register(
    OpDef("trilu", _trilu_infer, _trilu_reference, Fusion.INJECTIVE, compute=_trilu_compute, samples=_trilu_samples)
)


@onnx_op("Trilu", since=(14,))
def _trilu(ctx: ImportContext) -> Values:
    upper, k = bool(ctx.attr("upper", 1)), ctx.dims(ctx.input(1)) if ctx.has(1) else (0,)
    if k is None:
        return ctx.emit("trilu", ctx.input(0), ctx.input(1), upper=upper, k=0)
    return ctx.emit("trilu", ctx.input(0), upper=upper, k=k[0])


# -- reverse_sequence ---------------------------------------------------------------------------------------------


def _reverse_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, lengths = ctx.type(0), ctx.type(1)
    if lengths.rank != 1 or {ctx.attr("batch_axis"), ctx.attr("time_axis")} != {0, 1} or x.rank < 2:
        raise ValueError(f"cannot reverse sequences of lengths {lengths} in {x}")
    return (x,)


def _reverse_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, lengths = inputs
    assert x is not None and lengths is not None
    batch, time = np.ogrid[: len(lengths), : x.shape[attrs["time_axis"]]]
    source = np.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    if attrs["batch_axis"] == 0:
        return (x[batch, source],)
    return (x[source.T, batch.T],)


def _reverse_compute(ctx: InferContext) -> ex.ComputeDef:
    x, axes = ctx.type(0), ex.out_axes(ctx.type(0).rank)
    time = axes[ctx.attr("time_axis")]
    length = ex.cast(ex.load(1, (axes[ctx.attr("batch_axis")],), ctx.type(1).dtype), dt.i64)
    mirrored = ex.call("sub", ex.call("sub", length, ex.lit(1, dt.i64)), time)
    source = ex.Select(ex.call("lt", time, length), mirrored, time)
    index = tuple(source if k == ctx.attr("time_axis") else axis for k, axis in enumerate(axes))
    return ex.ComputeDef(x.shape, x.dtype, ex.load(0, index, x.dtype))


def _reverse_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield ctx.type(1).shape[0], ctx.type(0).shape[ctx.attr("batch_axis")]


def _reverse_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((4, 6, 3)).astype(np.float32)
    return [
        Sample((x, rng.integers(0, 7, 4)), {"batch_axis": 0, "time_axis": 1}),
        Sample((x, rng.integers(0, 5, 6)), {"batch_axis": 1, "time_axis": 0}),
    ]


register(
    OpDef(
        "reverse_sequence", _reverse_infer, _reverse_reference, Fusion.INJECTIVE,
        compute=_reverse_compute, samples=_reverse_samples, taken=_reverse_taken,
    )
)  # fmt: skip


@onnx_op("ReverseSequence", since=(10, 28))
def _reverse_sequence(ctx: ImportContext) -> Values:
    batch, time = ctx.attr("batch_axis", 1), ctx.attr("time_axis", 0)
    return ctx.emit("reverse_sequence", ctx.input(0), ctx.input(1), batch_axis=batch, time_axis=time)
