"""Conversions: cast (of values) and bitcast (of bytes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops import narrow, symbolic
from bessemer.ops.elementwise import register_pointwise


def _target(dtypes: Sequence[DType], attrs: Mapping[str, Any]) -> DType:
    to: DType = attrs["to"]
    return to


def convert(x: np.ndarray, to: DType) -> np.ndarray:
    """`x` converted to `to` as `cast` does; to bf16: as f32 values."""
    if x.dtype == object:
        return symbolic.elementwise(lambda v: not symbolic.equal(v, 0), 1)(x) if to == dt.bool_ else x
    with np.errstate(all="ignore"):
        return x.astype(np.float32 if to == dt.bf16 else to.numpy)


def _cast_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.uniform(-100, 100, (5, 7)).astype(np.float32)
    pairs = (
        (x, dt.f16), (x, dt.bf16), (x, dt.i64), (x, dt.i32), (x, dt.i8), (np.abs(x), dt.u8), (x, dt.f64), (x, dt.f32),
        (np.trunc(x / 40), dt.bool_), (x.astype(np.float16), dt.f32), (x.astype(np.int64) * 70000, dt.i32),
        (x.astype(np.int32), dt.i8), (x.astype(np.int8), dt.u8), (x > 0, dt.f32), (x > 0, dt.i64),
        (x.astype(np.int64), dt.f32), (x.astype(np.float16), dt.i32),
    )  # fmt: skip
    return [Sample((a,), {"to": to}, note=f"{a.dtype} to {to}") for a, to in pairs]


register_pointwise(
    "cast", 1, lambda x, attrs: convert(x, attrs["to"]), lambda x, attrs: ex.cast(x, attrs["to"]), _cast_samples,
    out=_target, symbolic=True,
)  # fmt: skip


@onnx_op("Cast", since=(9, 13, 19, 21, 23, 24, 25, 28))
def _cast(ctx: ImportContext) -> Values:
    return _converted(ctx, ctx.dtype_attr("to"))


@onnx_op("CastLike", since=(15, 19, 21, 23, 24, 25))
def _cast_like(ctx: ImportContext) -> Values:
    return _converted(ctx, ctx.dtype(ctx.input(1)))


def _converted(ctx: ImportContext, to: DType) -> str:
    return narrow.cast(ctx, ctx.input(0), to, bool(ctx.attr("saturate", 1)), ctx.attr("round_mode", "up"))


def _bitcast_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, to = ctx.type(0), ctx.attr("to")
    if x.dtype != ctx.attr("source") or x.dtype.itemsize != to.itemsize:
        raise ValueError(f"cannot reinterpret the bytes of {x} as {to}")
    return (TensorType(to, x.shape),)


def _bitcast_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    bits = dt.to_bf16(x) if attrs["source"] == dt.bf16 else np.ascontiguousarray(x)
    out = bits.view(attrs["to"].numpy)
    return ((dt.from_bf16(out) if attrs["to"] == dt.bf16 else out).reshape(x.shape),)


def _bitcast_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 5)).astype(np.float32)
    attrs: dict[str, Attr] = {"source": dt.f32, "to": dt.i32}
    return (Sample((x,), attrs), Sample((x.view(np.uint32),), {"source": dt.u32, "to": dt.f32}))


register(OpDef("bitcast", _bitcast_infer, _bitcast_reference, Fusion.VIEW, samples=_bitcast_samples))


@onnx_op("BitCast", since=(26,))
def _bitcast(ctx: ImportContext) -> Values:
    x, to = ctx.input(0), ctx.dtype_attr("to")
    return ctx.emit("bitcast", x, source=ctx.dtype(x), to=to)
