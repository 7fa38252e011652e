"""ONNX Attention: the op `attention` where it can say what the node means, else the products and softmax themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, floordiv
from bessemer.core.interval import compare
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ops.attention import emit_attention, join_heads, scaled, split_heads
from bessemer.ops.generate import emit_range
from bessemer.ops.pad import emit_pad

SOFTCAPPED, MASKED, PROBABILITIES = 1, 2, 3  # values of qk_matmul_output_mode; 0 is the scaled product


@dataclass(frozen=True)
class _Mask:
    """What each query sees: a bool tensor, an additive one, or both; `causal` on top of them."""

    allowed: str | None = None
    bias: str | None = None
    causal: bool = False

    def also(self, ctx: ImportContext, allowed: str) -> _Mask:
        both = allowed if self.allowed is None else ctx.emit("and", self.allowed, allowed)
        return _Mask(both, self.bias, self.causal)

    def tensor(self, ctx: ImportContext) -> str | None:
        """One mask for the op `attention`."""
        if self.allowed is None or self.bias is None:
            return self.allowed or self.bias
        return ctx.emit("where", self.allowed, self.bias, ctx.const(-math.inf, ctx.dtype(self.bias)))


@onnx_op("Attention", since=(23, 24, 25))
def _import(ctx: ImportContext) -> Values:
    q, k, v = (ctx.input(n) for n in range(3))
    flat, past = ctx.rank(q) == 3, ctx.has(4)
    if past != ctx.has(5) or (past and ctx.has(6)):
        ctx.unsupported("past_key and past_value go together, and not with nonpad_kv_seqlen")
    apart = bool(ctx.attr("softcap", 0.0)) or ctx.wants(3) or ctx.dtype(q) == dt.f64 or ctx.dtype(q) != ctx.dtype(v)
    layout = "BSHD" if flat and not (apart or past or ctx.wants(1) or ctx.wants(2)) else "BHSD"
    if flat:
        many, few = ctx.attr("q_num_heads"), ctx.attr("kv_num_heads")
        q, k, v = (split_heads(ctx, x, heads, layout) for x, heads in ((q, many), (k, few), (v, few)))
    if past:
        k, v = (ctx.emit("concat", ctx.input(n), x, axis=2) for n, x in ((4, k), (5, v)))
    q, scale = scaled(ctx, q)
    rows = 1 if layout == "BSHD" else 2
    mask = _mask_of(ctx, ctx.shape(q)[rows], ctx.shape(k)[rows], explicit=apart)
    if apart:
        y, product = _compose(ctx, q, k, v, scale, mask)
    else:
        y, product = emit_attention(ctx, q, k, v, mask.tensor(ctx), scale, mask.causal, layout), ""
    return (join_heads(ctx, y, layout) if flat else y, k, v, product)


# -- masks ----------------------------------------------------------------------------------------------------------


def _mask_of(ctx: ImportContext, queries: Dim, keys: Dim, explicit: bool) -> _Mask:
    """The mask of a node; causality stays an attribute where its offset is keys - queries, unless `explicit`."""
    mask = _given(ctx, keys)
    offset: Dim = ctx.shape(ctx.input(4))[2] if ctx.has(4) else 0
    plain = not ctx.has(6) and offset == keys - queries
    windows = [ctx.attr(name, -1) for name in ("left_window_size", "right_window_size")]
    causal = bool(ctx.attr("is_causal", 0))
    if causal and plain and not explicit:
        mask, causal = _Mask(mask.allowed, mask.bias, True), False
    if causal or max(windows) >= 0:
        mask = _within(ctx, mask, queries, keys, offset, windows, causal)
    if ctx.has(6):
        lengths = ctx.emit("reshape", ctx.input(6), shape=(ctx.shape(ctx.input(6))[0], 1, 1, 1))
        mask = mask.also(ctx, ctx.emit("lt", emit_range(ctx, keys, dt.i64), lengths))
    return mask


def _given(ctx: ImportContext, keys: Dim) -> _Mask:
    """The operand attn_mask; it may cover fewer keys than there are, and hides the rest."""
    if not ctx.has(3):
        return _Mask()
    mask = ctx.input(3)
    *_, covered = ctx.shape(mask)
    boolean = ctx.dtype(mask) == dt.bool_
    if covered != 1 and compare(covered, keys, ctx.ranges)[0] is not True:
        hidden = ctx.const(False if boolean else -math.inf, ctx.dtype(mask))
        rank = ctx.rank(mask)
        mask = emit_pad(ctx, mask, (*(0,) * (2 * rank - 1), keys - covered), "constant", hidden)
    return _Mask(allowed=mask) if boolean else _Mask(bias=ctx.cast(mask, ctx.dtype(ctx.input(0))))


def _within(
    ctx: ImportContext, mask: _Mask, queries: Dim, keys: Dim, offset: Dim, windows: list[int], causal: bool
) -> _Mask:
    """`mask` and what position allows: queries lie at offset + i, or end where the keys of their batch end."""
    if ctx.has(6):
        ends = ctx.emit("reshape", ctx.input(6), shape=(ctx.shape(ctx.input(6))[0], 1, 1, 1))
        column = ctx.emit("reshape", emit_range(ctx, queries, dt.i64, start=-1 * queries), shape=(queries, 1))
        place = ctx.emit("add", ends, column)
    else:
        place = ctx.emit("reshape", emit_range(ctx, queries, dt.i64, start=offset), shape=(queries, 1))
    ahead = ctx.emit("sub", emit_range(ctx, keys, dt.i64), place)  # how far a key lies beyond its query
    if causal:
        mask = mask.also(ctx, ctx.emit("le", ahead, ctx.const(0, dt.i64)))
    left, right = windows
    if left >= 0:
        mask = mask.also(ctx, ctx.emit("ge", ahead, ctx.const(-left, dt.i64)))
    if right >= 0:
        mask = mask.also(ctx, ctx.emit("le", ahead, ctx.const(right, dt.i64)))
    return mask


# -- attention by its parts -----------------------------------------------------------------------------------------


def _compose(ctx: ImportContext, q: str, k: str, v: str, scale: float, mask: _Mask) -> tuple[str, str]:
    """(result, the asked-for stage of the scores), all tensors [B, heads, length, size]."""
    batch, many, length, _ = ctx.shape(q)
    few, keys = ctx.shape(k)[1:3]
    dtype = ctx.dtype(q)
    mode, softcap = ctx.attr("qk_matmul_output_mode", 0), ctx.attr("softcap", 0.0)
    grouped = (batch, few, floordiv(many, few), length)
    rows = ctx.emit("reshape", q, shape=(*grouped, ctx.shape(q)[3]))
    k, v = (ctx.emit("reshape", x, shape=(batch, few, 1, keys, ctx.shape(x)[3])) for x in (k, v))
    scores = ctx.emit("matmul", rows, k, transpose_a=False, transpose_b=True)
    scores = ctx.emit("mul", ctx.emit("reshape", scores, shape=(batch, many, length, keys)), ctx.const(scale, dtype))
    stages = [scores]
    if softcap:
        limit = ctx.const(softcap, dtype)
        scores = ctx.emit("mul", ctx.emit("tanh", ctx.emit("div", scores, limit)), limit)
    stages.append(scores)
    if mask.bias is not None:
        scores = ctx.emit("add", scores, mask.bias)
    if mask.allowed is not None:
        scores = ctx.emit("where", mask.allowed, scores, ctx.const(-math.inf, dtype))
    stages.append(scores)
    wide = ctx.dtype_attr("softmax_precision", dtype)
    weights = ctx.cast(ctx.emit("softmax", ctx.cast(scores, wide), axis=3, log=False), dtype)
    stages.append(_without_hidden_rows(ctx, weights, mask))
    weights = ctx.emit("reshape", stages[PROBABILITIES], shape=(*grouped, keys))
    weights = ctx.cast(weights, ctx.dtype(v))
    y = ctx.emit("matmul", weights, v, transpose_a=False, transpose_b=False)
    return ctx.emit("reshape", y, shape=(batch, many, length, ctx.shape(v)[4])), stages[mode]


def _without_hidden_rows(ctx: ImportContext, weights: str, mask: _Mask) -> str:
    """Zeros, and no NaN, for queries whose mask hides every key."""
    tensor = mask.tensor(ctx)
    if tensor is None:
        return weights
    peak = ctx.emit("reduce", tensor, kind="max", axes=(ctx.rank(tensor) - 1,), keepdims=True)
    if ctx.dtype(tensor) == dt.bool_:
        hidden = ctx.emit("not", peak)
    else:
        hidden = ctx.emit("eq", peak, ctx.const(-math.inf, ctx.dtype(tensor)))
    return ctx.emit("where", hidden, ctx.const(0, ctx.dtype(weights)), weights)
