"""Quantised ops of the domain com.microsoft, as explicit dequantize and quantize around the real op, or as products of
integers; weights of few bits are unpacked into reals, which folds where they are constant."""

from __future__ import annotations

from collections.abc import Callable

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ops.contrib_fused import MICROSOFT, as_onnx
from bessemer.ops.matmul import emit_matmul
from bessemer.ops.quantize import limits
from bessemer.ops.slice import emit_slice


def _scalar(ctx: ImportContext, k: int) -> str:
    """A parameter of one element, as a scalar."""
    value = ctx.input(k)
    if ctx.type(value).numel != 1:
        ctx.unsupported(f"input {k} is {ctx.type(value)}; one value per tensor is supported")
    return ctx.emit("reshape", value, shape=()) if ctx.rank(value) else value


def _real(ctx: ImportContext, k: int) -> str:
    """Input `k` as f32, by the scale and the optional zero point after it."""
    parameters = [_scalar(ctx, j) for j in (k + 1, k + 2) if j == k + 1 or ctx.has(j)]
    return ctx.emit("dequantize", ctx.input(k), *parameters, to=dt.f32)


def _quantized(ctx: ImportContext, y: str, scale: int, like: int = 0) -> str:
    """`y` in the type of the zero point that follows input `scale`, else of input `like`."""
    to = ctx.dtype(ctx.input(scale + 1 if ctx.has(scale + 1) else like))
    parameters = [_scalar(ctx, j) for j in (scale, scale + 1) if j == scale or ctx.has(j)]
    return ctx.emit("quantize", y, *parameters, to=to, **limits(to))


@onnx_op("QLinearAdd", since=(1,), domain=MICROSOFT)
@onnx_op("QLinearMul", since=(1,), domain=MICROSOFT)
def _qlinear_binary(ctx: ImportContext) -> Values:
    op = {"QLinearAdd": "add", "QLinearMul": "mul"}[ctx.op_type]
    return _quantized(ctx, ctx.emit(op, _real(ctx, 0), _real(ctx, 3)), 6)


def _unary(name: str, apply: Callable[[ImportContext, str], str]) -> None:
    onnx_op(name, since=(1,), domain=MICROSOFT)(lambda ctx: _quantized(ctx, apply(ctx, _real(ctx, 0)), 3))


def _pooled(ctx: ImportContext, x: str, pool: str, since: int) -> str:
    """ONNX's `pool` of channel-first data, moved there and back where channels are last."""
    last = bool(ctx.attr("channels_last", 0))
    rank = ctx.rank(x)
    x = ctx.emit("transpose", x, perm=(0, rank - 1, *range(1, rank - 1))) if last else x
    y = as_onnx(ctx, pool, since, (x,))
    assert isinstance(y, str)
    return ctx.emit("transpose", y, perm=(0, *range(2, rank), 1)) if last else y


def _softmax(ctx: ImportContext, x: str) -> str:
    y = as_onnx(ctx, "Softmax", 13 if ctx.attr("opset") >= 13 else 11, (x,))
    assert isinstance(y, str)
    return y


_unary("QLinearSigmoid", lambda ctx, x: ctx.emit("sigmoid", x))
_unary("QLinearLeakyRelu", lambda ctx, x: ctx.emit("leaky_relu", x, alpha=ctx.attr("alpha", 0.01)))
_unary("QLinearSoftmax", _softmax)
_unary("QLinearAveragePool", lambda ctx, x: _pooled(ctx, x, "AveragePool", 11))
_unary("QLinearGlobalAveragePool", lambda ctx, x: _pooled(ctx, x, "GlobalAveragePool", 1))


@onnx_op("QLinearConcat", since=(1,), domain=MICROSOFT)
def _qlinear_concat(ctx: ImportContext) -> Values:
    parts = [_real(ctx, k) for k in range(2, len(ctx.inputs), 3)]
    axis = ctx.axis(ctx.attr("axis"), ctx.rank(parts[0]))
    return _quantized(ctx, ctx.emit("concat", *parts, axis=axis), 0)


# -- products of integers ---------------------------------------------------------------------------------------------


def _scaled(ctx: ImportContext, product: str, scales: tuple[str, str], bias: int) -> str:
    """An i32 product times both scales, plus the bias at input `bias`."""
    y = ctx.emit("mul", ctx.cast(product, dt.f32), ctx.emit("mul", *scales))
    return ctx.emit("add", y, ctx.input(bias)) if ctx.has(bias) else y


@onnx_op("DynamicQuantizeMatMul", since=(1,), domain=MICROSOFT)
def _dynamic_quantize_matmul(ctx: ImportContext) -> Values:
    quantized, scale, zero = as_onnx(ctx, "DynamicQuantizeLinear", 11, (ctx.input(0),))
    b_zero = ctx.input(3) if ctx.has(3) else None
    product = as_onnx(ctx, "MatMulInteger", 10, (quantized, ctx.input(1), zero, b_zero))
    assert isinstance(product, str)
    return _scaled(ctx, product, (scale, ctx.input(2)), 4)


@onnx_op("MatMulIntegerToFloat", since=(1,), domain=MICROSOFT)
def _matmul_integer_to_float(ctx: ImportContext) -> Values:
    zeros = (ctx.input(k) if ctx.has(k) else None for k in (4, 5))
    product = as_onnx(ctx, "MatMulInteger", 10, (ctx.input(0), ctx.input(1), *zeros))
    assert isinstance(product, str)
    return _scaled(ctx, product, (ctx.input(2), ctx.input(3)), 6)


@onnx_op("QGemm", since=(1,), domain=MICROSOFT)
def _qgemm(ctx: ImportContext) -> Values:
    """(a - a_zero) (b - b_zero) + c in i32, scaled; f32 where no output scale is given."""
    turned = [bool(ctx.attr(key, 0)) for key in ("transA", "transB")]
    columns = (-1, 1) if turned[1] else (1, -1)
    a = ctx.emit("sub", ctx.cast(ctx.input(0), dt.i32), ctx.cast(_scalar(ctx, 2), dt.i32))
    b_zero = ctx.cast(ctx.input(5), dt.i32)
    if ctx.rank(b_zero) == 1:
        count = ctx.shape(b_zero)[0]
        b_zero = ctx.emit("reshape", b_zero, shape=tuple(count if d == -1 else d for d in columns))
    b = ctx.emit("sub", ctx.cast(ctx.input(3), dt.i32), b_zero)
    y = ctx.emit("matmul", a, b, transpose_a=turned[0], transpose_b=turned[1])
    y = ctx.emit("add", y, ctx.input(6)) if ctx.has(6) else y
    scale = ctx.emit("mul", ctx.input(1), ctx.input(4))
    if ctx.attr("alpha", 1.0) != 1.0:
        scale = ctx.emit("mul", scale, ctx.const(ctx.attr("alpha"), dt.f32))
    y = ctx.emit("mul", ctx.cast(y, dt.f32), scale)
    return _quantized(ctx, y, 7) if ctx.has(7) else y


# -- weights of few bits ----------------------------------------------------------------------------------------------


@onnx_op("DynamicQuantizeLSTM", since=(1,), domain=MICROSOFT)
def _dynamic_quantize_lstm(ctx: ImportContext) -> Values:
    """An LSTM with real weights: what onnxruntime approximates by quantising the data of every step."""
    weights = []
    for k, scale in ((1, 8), (2, 10)):
        rows = ctx.cast(ctx.input(k), dt.f32)  # [dirs, inputs, gates]
        zero = ctx.cast(_per_direction(ctx, scale + 1), dt.f32)
        real = ctx.emit("mul", ctx.emit("sub", rows, zero), _per_direction(ctx, scale))
        weights.append(ctx.emit("transpose", real, perm=(0, 2, 1)))
    return as_onnx(ctx, "LSTM", 14, (ctx.inputs[0], *weights, *ctx.inputs[3:8]))


def _per_direction(ctx: ImportContext, k: int) -> str:
    """A parameter [dirs] or [dirs, gates] along [dirs, inputs, gates]."""
    shape = ctx.shape(ctx.input(k))
    return ctx.emit("reshape", ctx.input(k), shape=(shape[0], 1, *(shape[1:] or (1,))))


@onnx_op("MatMulNBits", since=(1,), domain=MICROSOFT)
def _matmul_nbits(ctx: ImportContext) -> Values:
    """A times the transpose of B [N, K], which is stored in blocks along K of 4 or 8 bits with a scale each."""
    bits, block, n, k = (ctx.attr(name, 4) for name in ("bits", "block_size", "N", "K"))
    if bits not in (4, 8) or ctx.has(4) or ctx.attr("weight_prepacked", 0):
        ctx.unsupported(f"{bits} bits, g_idx or prepacked weights; 4 and 8 bits in plain order are supported")
    a, scales = ctx.input(0), ctx.input(2)
    blocks: Dim = ceildiv(k, block)
    real = ctx.dtype(scales)
    codes = ctx.cast(_unpacked(ctx, ctx.input(1), bits, (n, blocks, block)), real)
    if ctx.has(3) and ctx.dtype(ctx.input(3)) == dt.u8:
        zeros = ctx.cast(_unpacked(ctx, ctx.input(3), bits, (n, blocks, 1)), real)
    elif ctx.has(3):
        zeros = ctx.emit("reshape", ctx.input(3), shape=(n, blocks, 1))
    else:
        zeros = ctx.const(2 ** (bits - 1), real)
    weights = ctx.emit("mul", ctx.emit("sub", codes, zeros), ctx.emit("reshape", scales, shape=(n, blocks, 1)))
    weights = ctx.emit("reshape", weights, shape=(n, blocks * block))
    weights = emit_slice(ctx, weights, {1: (0, k, 1)}) if blocks * block != k else weights
    y = emit_matmul(ctx, a, ctx.cast(weights, ctx.dtype(a)), transpose_b=True)
    return ctx.emit("add", y, ctx.input(5)) if ctx.has(5) else y


def _unpacked(ctx: ImportContext, packed: str, bits: int, shape: tuple[Dim, ...]) -> str:
    """Bytes [N, ...] as codes of `shape`, the low half of a byte first; each row of N starts a new byte."""
    rows, wanted = shape[0], shape[1] * shape[2]
    size = wanted if bits == 8 else ceildiv(wanted, 2)
    flat = ctx.emit("reshape", packed, shape=(rows, size))
    if bits == 4:
        low = ctx.emit("bitand", flat, ctx.const(15, dt.u8))
        high = ctx.emit("shr", flat, ctx.const(4, dt.u8))
        halves = [ctx.emit("reshape", v, shape=(rows, size, 1)) for v in (low, high)]
        flat = ctx.emit("reshape", ctx.emit("concat", *halves, axis=2), shape=(rows, 2 * size))
        flat = emit_slice(ctx, flat, {1: (0, wanted, 1)}) if 2 * size != wanted else flat
    return ctx.emit("reshape", flat, shape=shape)
