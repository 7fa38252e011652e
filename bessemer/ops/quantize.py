"""Quantisation: `quantize` and `dequantize` between floats and integers.

    quantize(x, scale[, zero])      clamp(round(x / scale) + zero, low, high) as `to`; halves round to even
    dequantize(q, scale[, zero])    (q - zero) * scale as `to`

A dequantized weight stays a node until the pass fold_constants, so that integer kernels can be chosen before.
Scale and zero point broadcast as in numpy: per tensor they are scalars, per channel they have ones in the other axes,
per block they are repeated. All of it is computed in f32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import ceildiv
from bessemer.core.dtype import DType
from bessemer.core.interval import compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops import narrow
from bessemer.ops.broadcasting import broadcast_index
from bessemer.ops.expand import emit_expand
from bessemer.ops.slice import emit_slice

QUANTIZED = (dt.i8, dt.u8, dt.i16, dt.u16)


def _check(ctx: InferContext, integer: DType, real: tuple[DType, ...]) -> TensorType:
    """The shape-giving operand, if scale and zero point fit to it."""
    x, scale = ctx.type(0), ctx.type(1)
    if not (scale.dtype.is_float and all(d.is_float for d in real)):
        raise ValueError(f"cannot scale {x} by {scale}")
    if ctx.has(2) and ctx.type(2).dtype != integer:
        raise ValueError(f"the zero point {ctx.type(2)} is not {integer}")
    for t in [ctx.type(k) for k in (1, 2) if ctx.has(k)]:
        tail = x.shape[x.rank - t.rank :] if t.rank <= x.rank else ()
        if len(tail) != t.rank or any(d != 1 and compare(d, e, ctx.ranges)[0] is False for d, e in zip(t.shape, tail)):
            raise ValueError(f"{t} does not broadcast to {x}")
    return x


def _quantize_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    to = ctx.attr("to")
    x = _check(ctx, to, (ctx.type(0).dtype,))
    if to not in QUANTIZED:
        raise ValueError(f"cannot quantize to {to}")
    return (TensorType(to, x.shape),)


def _dequantize_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = _check(ctx, ctx.type(0).dtype, (ctx.attr("to"),))
    if x.dtype not in (*QUANTIZED, dt.i32):
        raise ValueError(f"cannot dequantize {x}")
    return (TensorType(ctx.attr("to"), x.shape),)


def _quantize_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, scale, *zero = inputs
    assert x is not None and scale is not None
    q = np.rint(x.astype(np.float32) / scale.astype(np.float32))
    if zero and zero[0] is not None:
        q = q + zero[0].astype(np.float32)
    return (np.clip(q, attrs["low"], attrs["high"]).astype(attrs["to"].numpy),)


def _dequantize_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    q, scale, *zero = inputs
    assert q is not None and scale is not None
    real = q.astype(np.float32)
    if zero and zero[0] is not None:
        real = real - zero[0].astype(np.float32)
    return ((real * scale.astype(np.float32)).astype(np.float32 if attrs["to"] == dt.bf16 else attrs["to"].numpy),)


def _operands(ctx: InferContext) -> list[ex.Expr]:
    """All operands as f32."""
    shape = ctx.type(0).shape
    axes = ex.out_axes(len(shape))
    types = [ctx.type(k) for k in range(3) if ctx.has(k)]
    index = [broadcast_index(t.shape, shape, axes, ctx.ranges) for t in types]
    return [ex.cast(ex.load(k, at, t.dtype), dt.f32) for k, (t, at) in enumerate(zip(types, index))]


def _quantize_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _quantize_infer(ctx)
    x, scale, *zero = _operands(ctx)
    q = ex.call("round", ex.call("div", x, scale))
    q = ex.call("add", q, zero[0]) if zero else q
    q = ex.call("min", ex.call("max", q, ex.lit(ctx.attr("low"), dt.f32)), ex.lit(ctx.attr("high"), dt.f32))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(q, out.dtype))


def _dequantize_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _dequantize_infer(ctx)
    q, scale, *zero = _operands(ctx)
    q = ex.call("sub", q, zero[0]) if zero else q
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(ex.call("mul", q, scale), out.dtype))


def limits(to: DType) -> dict[str, int]:
    """The range that values of an integer dtype saturate to, as `quantize` attributes."""
    signed = to in (dt.i2, dt.i4, dt.i8, dt.i16)
    low = -(1 << (to.bits - 1)) if signed else 0
    return {"low": low, "high": low + (1 << to.bits) - 1}


def _quantize_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = (rng.standard_normal((3, 5, 7)) * 4).astype(np.float32)
    scale, per_channel = np.array(0.031, np.float32), rng.uniform(0.01, 0.2, (5, 1)).astype(np.float32)
    zero = rng.integers(-9, 9, (5, 1)).astype(np.int8)
    return [
        Sample((x, scale), {"to": dt.i8, **limits(dt.i8)}),
        Sample((x, scale, np.array(120, np.uint8)), {"to": dt.u8, **limits(dt.u8)}),
        Sample((x, per_channel, zero), {"to": dt.i8, **limits(dt.i8)}),
        Sample((x, per_channel), {"to": dt.i8, **limits(dt.i4)}, note="four bits"),
        Sample((x, scale), {"to": dt.i16, **limits(dt.i16)}),
        Sample((x.astype(np.float16), scale.astype(np.float16)), {"to": dt.i8, **limits(dt.i8)}),
    ]


def _dequantize_samples(rng: np.random.Generator) -> Sequence[Sample]:
    q, scale = rng.integers(-128, 128, (3, 5, 7)), np.array(0.031, np.float32)
    per_channel, zero = rng.uniform(0.01, 0.2, (5, 1)).astype(np.float32), rng.integers(-9, 9, (5, 1)).astype(np.int8)
    return [
        Sample((q.astype(np.int8), scale), {"to": dt.f32}),
        Sample(((q + 128).astype(np.uint8), scale, np.array(120, np.uint8)), {"to": dt.f32}),
        Sample((q.astype(np.int8), per_channel, zero), {"to": dt.f32}),
        Sample((q.astype(np.int32) * 100, scale), {"to": dt.f32}),
        Sample((q.astype(np.int8), scale.astype(np.float16)), {"to": dt.f16}),
    ]


register(
    OpDef(
        "quantize", _quantize_infer, _quantize_reference, Fusion.POINTWISE,
        compute=_quantize_compute, samples=_quantize_samples,
    )
)  # fmt: skip
register(
    OpDef(
        "dequantize", _dequantize_infer, _dequantize_reference, Fusion.POINTWISE,
        compute=_dequantize_compute, samples=_dequantize_samples, explicit=True,
    )
)  # fmt: skip


# -- QuantizeLinear and DequantizeLinear --------------------------------------------------------------------------


def _spread(ctx: ImportContext, parameter: str, x: str) -> str:
    """A scale or zero point of ONNX (scalar, per axis or per block) in the shape that broadcasts to `x`."""
    shape, own = ctx.shape(x), ctx.shape(parameter)
    block = ctx.attr("block_size", 0)
    if not own or own == (1,):
        return ctx.emit("reshape", parameter, shape=())
    axis = ctx.axis(ctx.attr("axis", 1), len(shape))
    if not block:
        if len(own) != 1:
            ctx.unsupported(f"a scale of rank {len(own)} without block_size")
        return ctx.emit("reshape", parameter, shape=(*own, *(1,) * (len(shape) - axis - 1)))
    if len(own) != len(shape):
        ctx.unsupported(f"the scale has rank {len(own)}, not {len(shape)}")
    count = own[axis]
    apart = ctx.emit("reshape", parameter, shape=(*own[: axis + 1], 1, *own[axis + 1 :]))
    repeated = emit_expand(ctx, apart, (*own[: axis + 1], block, *own[axis + 1 :]))
    whole = ctx.emit("reshape", repeated, shape=(*own[:axis], count * block, *own[axis + 1 :]))
    if count != ceildiv(shape[axis], block):
        ctx.unsupported(f"{count} scales for blocks of {block} in an axis of {shape[axis]}")
    return whole if count * block == shape[axis] else emit_slice(ctx, whole, {axis: (0, shape[axis], 1)})


def _widened(ctx: ImportContext, value: str) -> str:
    """A narrow integer as i8 or u8, a narrow float as f32, anything else as it is."""
    dtype = ctx.dtype(value)
    if dtype.kind != "n":
        return value
    whole = dtype in narrow.SIGNED or dtype in narrow.UNSIGNED
    return narrow.cast(ctx, value, (dt.i8 if dtype in narrow.SIGNED else dt.u8) if whole else dt.f32)


def _operand(ctx: ImportContext, k: int, x: str) -> str | None:
    return _spread(ctx, _widened(ctx, ctx.input(k)), x) if ctx.has(k) else None


@onnx_op("QuantizeLinear", since=(10, 13, 19, 21, 23, 24, 25, 28))
def _quantize_linear(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    to = ctx.dtype(ctx.input(2)) if ctx.has(2) else ctx.dtype_attr("output_dtype", dt.u8)
    x = x if ctx.dtype(x).is_float else ctx.cast(x, dt.f32)
    scale = _spread(ctx, ctx.input(1), x)
    scale = scale if ctx.dtype(scale).is_float else _widened(ctx, scale)
    if to.kind == "n" and to not in narrow.SIGNED and to not in narrow.UNSIGNED:
        scaled = ctx.emit("div", ctx.cast(x, dt.f32), ctx.cast(scale, dt.f32))
        if to == dt.f4e2m1 and ctx.has(2):  # ONNX adds the zero point here, not for 8-bit floats
            scaled = ctx.emit("add", scaled, _spread(ctx, _widened(ctx, ctx.input(2)), x))
        return narrow.cast(ctx, scaled, to, bool(ctx.attr("saturate", 1)))
    byte = dt.i8 if to in narrow.SIGNED else dt.u8 if to in narrow.UNSIGNED else to
    zero = _operand(ctx, 2, x)
    operands = (x, scale) if zero is None else (x, scale, zero)
    q = ctx.emit("quantize", *operands, to=byte, **limits(to))
    return q if byte == to else ctx.emit("bitcast", q, source=byte, to=to)


@onnx_op("DequantizeLinear", since=(10, 13, 19, 21, 23, 24, 25, 28))
def _dequantize_linear(ctx: ImportContext) -> Values:
    q, scale = _widened(ctx, ctx.input(0)), _widened(ctx, ctx.input(1))
    to = ctx.dtype_attr("output_dtype") if ctx.attr("output_dtype", 0) else ctx.dtype(scale)
    scale = _spread(ctx, scale, q)
    if ctx.dtype(q).is_float:
        return ctx.cast(ctx.emit("mul", q, ctx.cast(scale, dt.f32)), to)
    zero = _operand(ctx, 2, q)
    return ctx.emit("dequantize", *((q, scale) if zero is None else (q, scale, zero)), to=to)


@onnx_op("DynamicQuantizeLinear", since=(11,))
def _dynamic_quantize_linear(ctx: ImportContext) -> Values:
    """u8 over the range of the input, widened to hold 0; the scale is 1 where the input is all zero."""
    x, zero = ctx.input(0), ctx.const(0, dt.f32)
    whole: dict[str, Attr] = {"axes": tuple(range(ctx.rank(x))), "keepdims": False}
    low = ctx.emit("min", ctx.emit("reduce", x, kind="min", **whole), zero)
    high = ctx.emit("max", ctx.emit("reduce", x, kind="max", **whole), zero)
    scale = ctx.emit("div", ctx.emit("sub", high, low), ctx.const(255, dt.f32))
    scale = ctx.emit("where", ctx.emit("eq", scale, zero), ctx.const(1, dt.f32), scale)
    offset = ctx.emit("quantize", ctx.emit("neg", low), scale, to=dt.u8, **limits(dt.u8))
    return ctx.emit("quantize", x, scale, offset, to=dt.u8, **limits(dt.u8)), scale, offset
