"""Tensors made from nothing: range, fill (ConstantOfShape) and eye, and their host forms for sizes that are data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, DimExpr, ceildiv, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.dynamic import length, vector
from bessemer.ops.slice import greater

CONSTANT_LIMIT = 1 << 20  # elements up to which a tensor of known shape becomes a constant, which then folds


def _as(values: np.ndarray, dtype: DType) -> np.ndarray:
    return values.astype(np.float32 if dtype == dt.bf16 else dtype.numpy)


# -- range --------------------------------------------------------------------------------------------------------


def _range_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    return (TensorType(ctx.attr("dtype"), (ctx.attr("size"),)),)


def _range_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    dtype: DType = attrs["dtype"]
    wide = np.float64 if dtype.is_float else np.int64
    return (_as(np.arange(attrs["size"]).astype(wide) * wide(attrs["step"]) + wide(attrs["start"]), dtype),)


def _range_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _range_infer(ctx)
    (axis,) = ex.out_axes(1)
    start, step = ctx.attr("start"), ctx.attr("step")
    if out.dtype.is_float:
        wide = dt.f64 if out.dtype == dt.f64 else dt.f32
        first = ex.cast(ex.idx(start), wide) if isinstance(start, DimExpr) else ex.lit(start, wide)
        value = ex.call("add", ex.call("mul", ex.cast(axis, wide), ex.lit(step, wide)), first)
    else:
        value = ex.call("add", ex.call("mul", axis, ex.idx(step)), ex.idx(start))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(value, out.dtype))


def _range_samples(rng: np.random.Generator) -> Sequence[Sample]:
    start, size = int(rng.integers(-9, 9)), int(rng.integers(3, 40))
    return [
        Sample((), {"start": start, "step": -3, "size": size, "dtype": dt.i64}),
        Sample((), {"start": 0, "step": 1, "size": size, "dtype": dt.i32}),
        Sample((), {"start": 0.5, "step": 0.25, "size": size, "dtype": dt.f32}),
        Sample((), {"start": -1, "step": 2, "size": size, "dtype": dt.f16}),
    ]


register(
    OpDef("range", _range_infer, _range_reference, Fusion.INJECTIVE, compute=_range_compute, samples=_range_samples)
)


def emit_range(ctx: ImportContext, size: Dim, dtype: DType, start: Any = 0, step: Any = 1) -> str:
    """start, start + step, ...: `size` elements of `dtype`."""
    attrs: dict[str, Attr] = {"start": start, "step": step, "size": size, "dtype": dtype}
    if isinstance(size, int) and size <= CONSTANT_LIMIT and not isinstance(start, DimExpr):
        return ctx.const(_range_reference((), attrs)[0], dtype)
    return ctx.emit("range", **attrs)


@onnx_op("Range", since=(11, 27))
def _range(ctx: ImportContext) -> Values:
    start, limit, delta = (ctx.input(k) for k in range(3))
    dtype = ctx.dtype(start)
    if dtype.is_float:
        found = [ctx.value(v) for v in (start, limit, delta)]
        if all(v is not None for v in found):
            a, b, step = (float((dt.from_bf16(v) if dtype == dt.bf16 else v).item()) for v in found if v is not None)
            return emit_range(ctx, max(0, int(np.ceil((b - a) / step))), dtype, a, step)
    else:
        dims = [ctx.dims(v) for v in (start, limit, delta)]
        if all(d is not None for d in dims):
            first, last, by = (d[0] for d in dims if d is not None)
            if isinstance(by, int) and by:
                size = ceildiv(last - first, by) if by > 0 else ceildiv(first - last, -by)
                return emit_range(ctx, greater(size, 0, ctx.ranges), dtype, first, by)
    return ctx.emit("range_dynamic", start, limit, delta)


def _range_dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    return (TensorType(ctx.type(0).dtype, (ctx.fresh("range", None),)),)


def _range_dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    start, limit, delta = (x.item() for x in inputs if x is not None)
    size = max(0, int(np.ceil((limit - start) / delta)))
    return (np.asarray(start + np.arange(size) * delta, inputs[0].dtype),)  # type: ignore[union-attr]


def _range_dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return [
        Sample((np.array(9), np.array(1), np.array(-3))),
        Sample((np.array(0.5, np.float32), np.array(4, np.float32), np.array(0.75, np.float32))),
    ]


register(
    OpDef(
        "range_dynamic", _range_dynamic_infer, _range_dynamic_reference, Fusion.HOST, samples=_range_dynamic_samples
    )
)


# -- fill ---------------------------------------------------------------------------------------------------------


def _shape_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    return (TensorType(ctx.attr("dtype"), tuple(ctx.attr("shape"))),)


def _fill_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    return (_as(np.full(attrs["shape"], attrs["value"]), attrs["dtype"]),)


def _fill_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _shape_infer(ctx)
    return ex.ComputeDef(out.shape, out.dtype, ex.lit(ctx.attr("value"), out.dtype))


def _fill_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return [
        Sample((), {"shape": (3, 5), "value": float(rng.standard_normal()), "dtype": dt.f32}),
        Sample((), {"shape": (), "value": int(rng.integers(-9, 9)), "dtype": dt.i64}),
        Sample((), {"shape": (7,), "value": True, "dtype": dt.bool_}),
    ]


register(OpDef("fill", _shape_infer, _fill_reference, Fusion.INJECTIVE, compute=_fill_compute, samples=_fill_samples))


def emit_fill(ctx: ImportContext, shape: Sequence[Dim], value: Any, dtype: DType) -> str:
    """A tensor of `shape` that holds `value` everywhere."""
    count = product(shape)
    if isinstance(count, int) and count <= CONSTANT_LIMIT and all(isinstance(d, int) for d in shape):
        return ctx.const(np.full(shape, value), dtype)
    return ctx.emit("fill", shape=tuple(shape), value=value, dtype=dtype)


@onnx_op("ConstantOfShape", since=(9, 20, 21, 23, 24, 25))
def _constant_of_shape(ctx: ImportContext) -> Values:
    given, dtype = ctx.attr("value", None), ctx.tensor_dtypes.get("value", dt.f32)
    value = 0.0 if given is None else (dt.from_bf16(given) if dtype == dt.bf16 else given).item()
    shape = ctx.dims(ctx.input(0))
    if shape is None:
        return ctx.emit("fill_dynamic", vector(ctx, 0), value=value, dtype=dtype)
    return emit_fill(ctx, shape, value, dtype)


def _fill_dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    return (TensorType(ctx.attr("dtype"), tuple(ctx.fresh("fill", None) for _ in range(length(ctx, 0)))),)


def _fill_dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (shape,) = inputs
    assert shape is not None
    return (_as(np.full(shape.tolist(), attrs["value"]), attrs["dtype"]),)


def _fill_dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((np.array([2, 3]),), {"value": 1.5, "dtype": dt.f32}),)


register(
    OpDef("fill_dynamic", _fill_dynamic_infer, _fill_dynamic_reference, Fusion.HOST, samples=_fill_dynamic_samples)
)


# -- eye ----------------------------------------------------------------------------------------------------------


def _eye_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    rows, columns = attrs["shape"]
    return (_as(np.eye(rows, columns, attrs["k"]), attrs["dtype"]),)


def _eye_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _shape_infer(ctx)
    row, column = ex.out_axes(2)
    hit = ex.call("eq", ex.call("sub", column, row), ex.lit(ctx.attr("k"), dt.i64))
    return ex.ComputeDef(out.shape, out.dtype, ex.Select(hit, ex.lit(1, out.dtype), ex.lit(0, out.dtype)))


def _eye_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return [
        Sample((), {"shape": (4, 7), "k": 2, "dtype": dt.f32}),
        Sample((), {"shape": (5, 3), "k": -1, "dtype": dt.i64}),
        Sample((), {"shape": (3, 3), "k": 0, "dtype": dt.bool_}),
    ]


register(OpDef("eye", _shape_infer, _eye_reference, Fusion.INJECTIVE, compute=_eye_compute, samples=_eye_samples))


@onnx_op("EyeLike", since=(9, 22))
def _eye_like(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    if ctx.rank(x) != 2:
        ctx.unsupported(f"the input has rank {ctx.rank(x)}, not 2")
    return ctx.emit("eye", shape=ctx.shape(x), k=ctx.attr("k", 0), dtype=ctx.dtype_attr("dtype", ctx.dtype(x)))
