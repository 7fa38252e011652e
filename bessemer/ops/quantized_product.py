"""Products of quantised operands. MatMulInteger and ConvInteger are products of i32 tensors; the QLinear forms are
written with explicit dequantize and quantize around the real product, for the fusions to absorb.
"""

from __future__ import annotations

from dataclasses import replace

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.importer import IMPORTERS, ImportContext, Values, onnx_op
from bessemer.ops.quantize import limits


def _column(ctx: ImportContext, parameter: str, rank: int, axis: int) -> str:
    """A scalar or vector parameter so that it runs along `axis` of a rank-`rank` tensor."""
    if ctx.rank(parameter) != 1:
        return parameter
    if ctx.shape(parameter) == (1,):
        return ctx.emit("reshape", parameter, shape=())
    tail: tuple[Dim, ...] = (1,) * (rank - axis - 1)
    return ctx.emit("reshape", parameter, shape=(*ctx.shape(parameter), *tail))


def _centred(ctx: ImportContext, k: int, zero: int, axis: int) -> str:
    """Input `k` less the zero point at input `zero` (along `axis`), as i32."""
    value = ctx.cast(ctx.input(k), dt.i32)
    if not ctx.has(zero):
        return value
    offset = ctx.cast(ctx.input(zero), dt.i32)
    return ctx.emit("sub", value, _column(ctx, offset, ctx.rank(value), axis))


def _real(ctx: ImportContext, k: int, axis: int) -> str:
    """Input `k` dequantised to f32 with the scale and zero point that follow it, along `axis`."""
    value, rank = ctx.input(k), ctx.rank(ctx.input(k))
    parameters = [_column(ctx, ctx.input(j), rank, axis) for j in (k + 1, k + 2)]
    return ctx.emit("dequantize", value, *parameters, to=dt.f32)


def _product(ctx: ImportContext, op: str, since: int, *inputs: str) -> str:
    """What `op` gives for other inputs under this node's attributes."""
    result = IMPORTERS["", op, since](replace(ctx, inputs=inputs))
    return result if isinstance(result, str) else result[0]


@onnx_op("MatMulInteger", since=(10,))
def _matmul_integer(ctx: ImportContext) -> Values:
    rows = max(ctx.rank(ctx.input(0)) - 2, 0)
    a, b = _centred(ctx, 0, 2, rows), _centred(ctx, 1, 3, ctx.rank(ctx.input(1)) - 1)
    return _product(ctx, "MatMul", 13, a, b)


@onnx_op("ConvInteger", since=(10,))
def _conv_integer(ctx: ImportContext) -> Values:
    return _product(ctx, "Conv", 22, _centred(ctx, 0, 2, 1), _centred(ctx, 1, 3, 0))


def _requantized(ctx: ImportContext, y: str, scale: int, axis: int) -> str:
    parameters = [_column(ctx, ctx.input(k), ctx.rank(y), axis) for k in (scale, scale + 1)]
    to = ctx.dtype(parameters[1])
    return ctx.emit("quantize", y, *parameters, to=to, **limits(to))


@onnx_op("QLinearMatMul", since=(10, 21))
def _qlinear_matmul(ctx: ImportContext) -> Values:
    rows = max(ctx.rank(ctx.input(0)) - 2, 0)
    a, b = _real(ctx, 0, rows), _real(ctx, 3, ctx.rank(ctx.input(3)) - 1)
    y = _product(ctx, "MatMul", 13, a, b)
    return _requantized(ctx, y, 6, max(ctx.rank(y) - 2, 0))


@onnx_op("QLinearConv", since=(10,))
def _qlinear_conv(ctx: ImportContext) -> Values:
    operands = [_real(ctx, 0, 1), _real(ctx, 3, 0)]
    if ctx.has(8):
        scales = [ctx.emit("reshape", ctx.input(k), shape=(ctx.type(ctx.input(k)).numel,)) for k in (1, 4)]
        scale = ctx.emit("mul", *scales)
        operands.append(ctx.emit("dequantize", ctx.input(8), scale, to=dt.f32))
    return _requantized(ctx, _product(ctx, "Conv", 22, *operands), 6, 1)
