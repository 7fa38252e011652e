"""Matrix products: op `matmul`, and the ONNX ops that are one (MatMul, Gemm)."""

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
from bessemer.ops.broadcasting import broadcast_shapes, same_dim
from bessemer.ops.expand import emit_expand


def _matrix(t: TensorType, transposed: bool) -> tuple[Dim, Dim]:
    """(rows, columns) after the transpose."""
    rows, columns = t.shape[-2:]
    return (columns, rows) if transposed else (rows, columns)


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    a, b = ctx.type(0), ctx.type(1)
    if a.rank < 2 or b.rank < 2 or a.dtype != b.dtype:
        raise ValueError(f"matmul takes two matrices (or batches of them) of one dtype, not {a} and {b}")
    m, k = _matrix(a, ctx.attr("transpose_a"))
    depth, n = _matrix(b, ctx.attr("transpose_b"))
    same_dim(k, depth, ctx.ranges)
    return (TensorType(a.dtype, (*broadcast_shapes([a.shape[:-2], b.shape[:-2]], ctx.ranges), m, n)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """16-bit floats accumulate in f32, integers wrap."""
    a, b = inputs
    assert a is not None and b is not None
    a = np.swapaxes(a, -1, -2) if attrs["transpose_a"] else a
    b = np.swapaxes(b, -1, -2) if attrs["transpose_b"] else b
    if a.dtype == np.float16:
        return (np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.float16),)
    return (np.matmul(a, b),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    a, b, (out,) = ctx.type(0), ctx.type(1), _infer(ctx)
    axes, r = ex.out_axes(out.rank), ex.Axis("r0")
    depth = _matrix(a, ctx.attr("transpose_a"))[1]
    at_a = (r, axes[-2]) if ctx.attr("transpose_a") else (axes[-2], r)
    at_b = (axes[-1], r) if ctx.attr("transpose_b") else (r, axes[-1])
    lead = axes[:-2]
    left = ex.load(0, (*ex.broadcast_index(a.shape[:-2], lead), *at_a), a.dtype)
    right = ex.load(1, (*ex.broadcast_index(b.shape[:-2], lead), *at_b), b.dtype)
    acc = dt.f32 if a.dtype in (dt.f16, dt.bf16) else a.dtype
    product = ex.call("mul", ex.cast(left, acc), ex.cast(right, acc))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(ex.Reduce("sum", (("r0", depth),), product, acc), out.dtype))


def _flops(ctx: InferContext) -> Dim:
    return 2 * _infer(ctx)[0].numel * _matrix(ctx.type(0), ctx.attr("transpose_a"))[1]


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    plain = {"transpose_a": False, "transpose_b": False}
    return (
        Sample((x(5, 7), x(7, 19)), plain),
        Sample((x(2, 3, 5, 7), x(7, 9)), plain, note="broadcast b"),
        Sample((x(2, 1, 5, 7), x(3, 7, 33)), plain, note="both broadcast"),
        Sample((x(7, 5), x(9, 7)), {"transpose_a": True, "transpose_b": True}),
        Sample((x(1, 40), x(40, 70)), plain, note="one row"),
        Sample((x(4, 6), x(3, 6)), {"transpose_a": False, "transpose_b": True}),
        Sample((rng.integers(-9, 9, (3, 4)), rng.integers(-9, 9, (4, 5))), plain, note="int64"),
    )


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    a, b, whole = ctx.type(0).shape, ctx.type(1).shape, _infer(ctx)[0].shape
    yield a[-2 if ctx.attr("transpose_a") else -1], b[-1 if ctx.attr("transpose_b") else -2]
    for shape in (a, b):  # kernels take from the types which operand has one batch for all
        yield from ((size, d) for size, d in zip(reversed(shape[:-2]), reversed(whole[:-2])) if size != 1)


register(OpDef("matmul", _infer, _reference, Fusion.TEMPLATE, _compute, _flops, _samples, taken=_taken))


def with_equal_batches(ctx: ImportContext, a: str, b: str) -> tuple[str, str]:
    """The operands of a product, repeated where the ranges leave open which of two batch sizes is 1: kernels take from
    the types which operand is broadcast."""
    shapes = [ctx.shape(x) for x in (a, b)]
    lead = broadcast_shapes([shape[:-2] for shape in shapes], ctx.ranges)
    left, right = (
        emit_expand(ctx, x, (*lead, *shape[-2:])) if any(
            size != 1 and compare(size, whole, ctx.ranges)[0] is not True
            for size, whole in zip(reversed(shape[:-2]), reversed(lead))
        ) else x
        for x, shape in zip((a, b), shapes)
    )  # fmt: skip
    return left, right


def emit_matmul(ctx: ImportContext, a: str, b: str, transpose_a: bool = False, transpose_b: bool = False) -> str:
    """The product of two values of any rank from 1, as numpy's matmul."""
    shape_a, shape_b = ctx.shape(a), ctx.shape(b)
    if not shape_a or not shape_b:
        ctx.unsupported("an operand is a scalar")
    left = ctx.emit("reshape", a, shape=(1, *shape_a)) if len(shape_a) == 1 else a
    right = ctx.emit("reshape", b, shape=(*shape_b, 1)) if len(shape_b) == 1 else b
    left, right = with_equal_batches(ctx, left, right)
    out = ctx.emit("matmul", left, right, transpose_a=transpose_a, transpose_b=transpose_b)
    shape = ctx.shape(out)
    if len(shape_a) == 1 or len(shape_b) == 1:
        tail = (() if len(shape_a) == 1 else (shape[-2],)) + (() if len(shape_b) == 1 else (shape[-1],))
        out = ctx.emit("reshape", out, shape=(*shape[:-2], *tail))
    return out


@onnx_op("MatMul", since=(1, 9, 13))
def _import_matmul(ctx: ImportContext) -> Values:
    return emit_matmul(ctx, ctx.input(0), ctx.input(1))


@onnx_op("Gemm", since=(7, 9, 11, 13))
def _import_gemm(ctx: ImportContext) -> Values:
    out = ctx.emit(
        "matmul", ctx.input(0), ctx.input(1), transpose_a=bool(ctx.attr("transA", 0)),
        transpose_b=bool(ctx.attr("transB", 0)),
    )  # fmt: skip
    dtype = ctx.dtype(out)
    alpha, beta = ctx.attr("alpha", 1.0), ctx.attr("beta", 1.0)
    if alpha != 1.0:
        out = ctx.emit("mul", out, ctx.const(alpha, dtype))
    if ctx.has(2) and beta != 0.0:
        c = ctx.input(2)
        out = ctx.emit("add", out, ctx.emit("mul", c, ctx.const(beta, dtype)) if beta != 1.0 else c)
    return out
