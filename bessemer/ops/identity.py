"""What leaves no node in the graph: Identity, and Dropout in inference."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ops.generate import emit_fill


@onnx_op("Identity", since=(1, 13, 14, 16, 19, 21, 23, 24, 25))
def _identity(ctx: ImportContext) -> Values:
    return ctx.input(0)


@onnx_op("Dropout", since=(7, 10))
def _dropout(ctx: ImportContext) -> Values:
    return _inference(ctx, dt.bool_ if ctx.since >= 10 else ctx.dtype(ctx.input(0)))


@onnx_op("Dropout", since=(12, 13, 22))
def _dropout_mode(ctx: ImportContext) -> Values:
    training = ctx.value(ctx.input(2)) if ctx.has(2) else None
    if ctx.has(2) and (training is None or bool(training.reshape(()))):
        ratio = ctx.value(ctx.input(1)) if ctx.has(1) else None
        if ratio is None or ratio.item() != 0:
            ctx.unsupported("training_mode is set, or not known to be false")
    return _inference(ctx, dt.bool_)


def _inference(ctx: ImportContext, mask: dt.DType) -> Values:
    x = ctx.input(0)
    return (x, emit_fill(ctx, ctx.shape(x), 1, mask)) if ctx.wants(1) else x
