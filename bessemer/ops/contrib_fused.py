"""Fused ops of the domain com.microsoft, which onnxruntime's optimisers write: taken apart into what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bessemer.core import dtype as dt
from bessemer.ir.importer import IMPORTERS, ImportContext, Values, onnx_op
from bessemer.ops.generate import emit_fill
from bessemer.ops.matmul import emit_matmul
from bessemer.ops.normalize import to_shape
from bessemer.ops.slice import emit_slice

MICROSOFT = "com.microsoft"
ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "Relu": ("relu", {}), "Tanh": ("tanh", {}), "Sigmoid": ("sigmoid", {}), "Elu": ("elu", {"alpha": 1.0}),
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}), "HardSigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "Softsign": ("softsign", {}), "Softplus": ("softplus", {}), "HardSwish": ("hard_swish", {}), "Gelu": ("gelu", {}),
}  # fmt: skip


def as_onnx(ctx: ImportContext, name: str, since: int, inputs: tuple[str | None, ...], **attributes: Any) -> Values:
    """What ONNX's own op `name` gives for `inputs` under this node's attributes and these."""
    inner = replace(
        ctx, op_type=name, domain="", since=since, inputs=inputs, attributes={**ctx.attributes, **attributes}
    )
    return IMPORTERS["", name, since](inner)


def _activated(ctx: ImportContext, y: str, given: Callable[[int, float], float]) -> str:
    """`y` through the node's activation; `given(k, default)` is the activation's parameter number `k`."""
    name = ctx.attr("activation", "")
    if not name:
        return y
    if name == "Clip":
        low, high = (ctx.const(given(k, default), ctx.dtype(y)) for k, default in ((0, -3.4e38), (1, 3.4e38)))
        return ctx.emit("min", ctx.emit("max", y, low), high)
    if name not in ACTIVATIONS:
        ctx.unsupported(f"activation {name!r}; known: Clip, {', '.join(ACTIVATIONS)}")
    op, defaults = ACTIVATIONS[name]
    extra = {"approximate": "none"} if op == "gelu" else {}
    return ctx.emit(op, y, **extra, **{key: given(k, value) for k, (key, value) in enumerate(defaults.items())})


@onnx_op("FusedMatMul", since=(1,), domain=MICROSOFT)
@onnx_op("TransposeMatMul", since=(1,), domain=MICROSOFT)
def _fused_matmul(ctx: ImportContext) -> Values:
    if ctx.attr("transBatchA", 0) or ctx.attr("transBatchB", 0):
        ctx.unsupported("transBatchA and transBatchB")
    a, b = ctx.input(0), ctx.input(1)
    turned = [bool(ctx.attr(key, 0)) and ctx.rank(x) > 1 for key, x in (("transA", a), ("transB", b))]
    y = emit_matmul(ctx, a, b, *turned)
    alpha = ctx.attr("alpha", 1.0)
    return y if alpha == 1.0 else ctx.emit("mul", y, ctx.const(alpha, ctx.dtype(y)))


@onnx_op("FusedGemm", since=(1,), domain=MICROSOFT)
def _fused_gemm(ctx: ImportContext) -> Values:
    y = as_onnx(ctx, "Gemm", 13, ctx.inputs)
    assert isinstance(y, str)
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return _activated(ctx, y, lambda k, default: float(ctx.attr(names[k], default)))


@onnx_op("FusedConv", since=(1,), domain=MICROSOFT)
def _fused_conv(ctx: ImportContext) -> Values:
    y = as_onnx(ctx, "Conv", 11, ctx.inputs[:3])
    assert isinstance(y, str)
    if ctx.has(3):
        y = ctx.emit("add", y, ctx.input(3))
    given = ctx.attr("activation_params", ())
    return _activated(ctx, y, lambda k, default: float(given[k]) if k < len(given) else default)


# -- activations ----------------------------------------------------------------------------------------------------


@onnx_op("Gelu", since=(1,), domain=MICROSOFT)
def _gelu(ctx: ImportContext) -> Values:
    return ctx.emit("gelu", ctx.input(0), approximate="none")


@onnx_op("BiasGelu", since=(1,), domain=MICROSOFT)
def _bias_gelu(ctx: ImportContext) -> Values:
    return ctx.emit("gelu", ctx.emit("add", ctx.input(0), ctx.input(1)), approximate="none")


@onnx_op("FastGelu", since=(1,), domain=MICROSOFT)
def _fast_gelu(ctx: ImportContext) -> Values:
    x = ctx.emit("add", ctx.input(0), ctx.input(1)) if ctx.has(1) else ctx.input(0)
    return ctx.emit("gelu", x, approximate="tanh")


@onnx_op("QuickGelu", since=(1,), domain=MICROSOFT)
def _quick_gelu(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    alpha = ctx.const(ctx.attr("alpha", 1.702), ctx.dtype(x))
    return ctx.emit("mul", x, ctx.emit("sigmoid", ctx.emit("mul", x, alpha)))


@onnx_op("BiasAdd", since=(1,), domain=MICROSOFT)
def _bias_add(ctx: ImportContext) -> Values:
    return ctx.emit("add", ctx.emit("add", ctx.input(0), ctx.input(1)), ctx.input(2))


# -- normalisations -------------------------------------------------------------------------------------------------


def _skip_norm(ctx: ImportContext, mode: str, bias: int, affine: tuple[int, ...]) -> Values:
    """Layer or RMS normalisation of input + skip + bias; the sum is output 3."""
    if ctx.wants(1) or ctx.wants(2):
        ctx.unsupported("the outputs mean and inv_std_var")
    x = ctx.input(0)
    total = ctx.emit("add", x, ctx.input(1))
    if ctx.has(bias):
        total = ctx.emit("add", total, ctx.input(bias))
    y = _layer_norm(ctx, total, mode, 1e-12 if mode == "layer" else 1e-6, affine)
    return (y, "", "", total)


def _layer_norm(ctx: ImportContext, x: str, mode: str, epsilon: float, affine: tuple[int, ...]) -> str:
    """Over the last axis; `affine` are the inputs that hold the scale and the bias."""
    shape = ctx.shape(x)
    given = [to_shape(ctx, ctx.input(k), shape[-1:]) for k in affine if ctx.has(k)]
    return ctx.emit(
        "layer_norm", x, *given, axis=len(shape) - 1, epsilon=ctx.attr("epsilon", epsilon), mode=mode, has_scale=True,
        has_bias=len(given) == 2,
    )  # fmt: skip


@onnx_op("SkipLayerNormalization", since=(1,), domain=MICROSOFT)
def _skip_layer_norm(ctx: ImportContext) -> Values:
    return _skip_norm(ctx, "layer", 4, (2, 3))


@onnx_op("SkipSimplifiedLayerNormalization", since=(1,), domain=MICROSOFT)
def _skip_rms_norm(ctx: ImportContext) -> Values:
    return _skip_norm(ctx, "rms", 3, (2,))


@onnx_op("EmbedLayerNormalization", since=(1,), domain=MICROSOFT)
def _embed_layer_norm(ctx: ImportContext) -> Values:
    """Word, position and segment embeddings, summed and normalised; the keys that a mask keeps are counted."""
    ids = ctx.input(0)
    total = ctx.emit("gather", ctx.input(2), ids, axis=0)
    if ctx.has(8):
        total = ctx.emit("add", total, ctx.emit("gather", ctx.input(3), ctx.input(8), axis=0))
    else:
        total = ctx.emit("add", total, emit_slice(ctx, ctx.input(3), {0: (0, ctx.shape(ids)[1], 1)}))
    if ctx.has(1) and ctx.has(4):
        total = ctx.emit("add", total, ctx.emit("gather", ctx.input(4), ctx.input(1), axis=0))
    y = _layer_norm(ctx, total, "layer", 1e-12, (5, 6))
    counts = ""
    if ctx.wants(1):
        if ctx.has(7):
            counts = ctx.emit("reduce", ctx.cast(ctx.input(7), dt.i32), kind="sum", axes=(1,), keepdims=False)
        else:
            counts = emit_fill(ctx, ctx.shape(ids)[:1], 0, dt.i32)
    return (y, counts, total)


@onnx_op("GroupNorm", since=(1,), domain=MICROSOFT)
@onnx_op("SkipGroupNorm", since=(1,), domain=MICROSOFT)
def _group_norm(ctx: ImportContext) -> Values:
    """Group normalisation with channels last, and SiLU after it where activation is 1."""
    x = ctx.input(0)
    layout = "NHWC" if ctx.attr("channels_last", 1) else "NCHW"
    if ctx.op_type == "SkipGroupNorm":
        if layout != "NHWC":
            ctx.unsupported("channels_last = 0")
        skip = ctx.input(3)
        if ctx.rank(skip) == 2:
            batch, channels = ctx.shape(skip)
            skip = ctx.emit("reshape", skip, shape=(batch, 1, 1, channels))
        x = ctx.emit("add", x, skip)
        x = ctx.emit("add", x, ctx.input(4)) if ctx.has(4) else x
    affine = [ctx.cast(ctx.input(k), ctx.dtype(x)) for k in (1, 2)]
    epsilon, groups = ctx.attr("epsilon", 1e-5), ctx.attr("groups")
    y = ctx.emit("group_norm", x, *affine, groups=groups, epsilon=epsilon, layout=layout)
    return (ctx.emit("silu", y) if ctx.attr("activation") else y, x)
