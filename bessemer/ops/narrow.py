"""Casts to and from narrow types: floats of 8 and 4 bits, integers of 4 and 2. Values are stored one per byte.

Integers are computed with ordinary ops (a narrow integer's byte is the byte of an i8 or u8); a narrow float is read
through the table of its values, and written by `narrow_float`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core import narrow
from bessemer.core.dtype import DType
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register

SIGNED = (dt.i4, dt.i2)
UNSIGNED = (dt.u4, dt.u2)


def cast(ctx: ImportContext, x: str, to: DType, saturate: bool = True, rounding: str = "up") -> str:
    """`x` as `to`, where either may be narrow. Integers wrap around; floats saturate or overflow as ONNX says."""
    source = ctx.dtype(x)
    if source == to:
        return x
    if source.kind == "n":
        return ctx.cast(_widened(ctx, x, source), to) if to.kind != "n" else cast(ctx, _widened(ctx, x, source), to)
    if to in SIGNED or to in UNSIGNED:
        return _narrow_integer(ctx, ctx.cast(x, dt.i32), to)
    if to.kind == "n":
        bits = ctx.emit("narrow_float", ctx.cast(x, dt.f32), to=to, saturate=saturate, rounding=rounding)
        return ctx.emit("bitcast", bits, source=dt.u8, to=to)
    return ctx.cast(x, to)


def _widened(ctx: ImportContext, x: str, source: DType) -> str:
    """A narrow value as i8, u8 or f32; exact."""
    byte = dt.i8 if source in SIGNED else dt.u8
    stored = ctx.emit("bitcast", x, source=source, to=byte)
    if source in SIGNED or source in UNSIGNED:
        return stored
    table = ctx.const(narrow.values(source), dt.f32)
    return ctx.emit("gather", table, ctx.cast(stored, dt.i64), axis=0)


def _narrow_integer(ctx: ImportContext, x: str, to: DType) -> str:
    mask = ctx.emit("bitand", x, ctx.const((1 << to.bits) - 1, dt.i32))
    if to in UNSIGNED:
        return ctx.emit("bitcast", ctx.cast(mask, dt.u8), source=dt.u8, to=to)
    sign = ctx.const(1 << (to.bits - 1), dt.i32)
    extended = ctx.emit("sub", ctx.emit("bitxor", mask, sign), sign)
    return ctx.emit("bitcast", ctx.cast(extended, dt.i8), source=dt.i8, to=to)


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, to = ctx.type(0), ctx.attr("to")
    if x.dtype != dt.f32 or to.kind != "n" or ctx.attr("rounding") not in narrow.ROUNDINGS:
        raise ValueError(f"cannot round {x} to {to} ({ctx.attr('rounding')})")
    return (TensorType(dt.u8, x.shape),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    to, saturate, rounding = attrs["to"], attrs["saturate"], attrs["rounding"]
    assert x is not None and isinstance(to, DType) and isinstance(rounding, str)
    return (narrow.encode(x, to, bool(saturate), rounding),)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = (rng.standard_normal((5, 7)) * 10.0 ** rng.integers(-4, 5, (5, 7))).astype(np.float32)
    x.reshape(-1)[:4] = np.nan, np.inf, -np.inf, 0
    floats = [t for t in dt.NARROW if t not in SIGNED and t not in UNSIGNED]
    return [
        Sample((x,), {"to": to, "saturate": saturate, "rounding": "up"}, note=f"to {to}, saturate {saturate}")
        for to in floats
        for saturate in (True, False)
    ]


register(OpDef("narrow_float", _infer, _reference, Fusion.HOST, samples=_samples))
