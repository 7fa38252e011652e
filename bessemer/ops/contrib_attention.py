"""Attention ops of the domain com.microsoft: Attention, MultiHeadAttention and RotaryEmbedding."""

from __future__ import annotations

import itertools

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, floordiv, product
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ops.attention import emit_attention, join_heads, scaled, split_heads
from bessemer.ops.contrib_fused import MICROSOFT
from bessemer.ops.generate import emit_range
from bessemer.ops.matmul import emit_matmul
from bessemer.ops.slice import emit_slice

MASKED = -10000.0  # what a hidden key's score is lowered by, unless mask_filter_value says otherwise


def _split(ctx: ImportContext, x: str, axis: int, sizes: tuple[Dim, ...]) -> list[str]:
    """`x` cut into consecutive pieces along `axis`."""
    starts = itertools.accumulate(sizes, initial=0)
    return [emit_slice(ctx, x, {axis: (start, size, 1)}) for start, size in zip(starts, sizes)]


def _key_mask(ctx: ImportContext, k: int, keys: Dim) -> str | None:
    """Input `k`, lengths [B], ends and starts [2 B], or flags [B, T] or [B, S, T], as a bias [B, 1, 1 or S, T]."""
    if not ctx.has(k):
        return None
    mask, dtype = ctx.input(k), ctx.dtype(ctx.input(0))
    shape, batch = ctx.shape(mask), ctx.shape(ctx.input(0))[0]
    if len(shape) == 1:
        place = emit_range(ctx, keys, ctx.dtype(mask))
        ends = ctx.emit("reshape", emit_slice(ctx, mask, {0: (0, batch, 1)}), shape=(batch, 1, 1, 1))
        kept = ctx.emit("lt", place, ends)
        if shape == (2 * batch,):
            starts = ctx.emit("reshape", emit_slice(ctx, mask, {0: (batch, batch, 1)}), shape=(batch, 1, 1, 1))
            kept = ctx.emit("and", kept, ctx.emit("ge", place, starts))
        elif shape != (batch,):
            ctx.unsupported(f"a mask of {ctx.type(mask)} for a batch of {batch}")
    elif shape[-1] != keys or len(shape) > 3:
        ctx.unsupported(f"a mask of {ctx.type(mask)} over {keys} keys")
    else:
        flags = ctx.emit("reshape", mask, shape=(shape[0], *(1,) * (4 - len(shape)), *shape[1:]))
        kept = ctx.emit("ne", flags, ctx.const(0, ctx.dtype(mask)))
    low = ctx.attr("mask_filter_value", MASKED)
    return ctx.emit("where", kept, ctx.const(0.0, dtype), ctx.const(low, dtype))


def _attend(ctx: ImportContext, q: str, k: str, v: str, mask: int, bias: int) -> str:
    """Heads first, joined to [B, S, H * D]; `mask` and `bias` are the inputs that hold the key mask and the bias."""
    keys = ctx.shape(k)[2]
    both = _key_mask(ctx, mask, keys)
    if ctx.has(bias):
        both = ctx.input(bias) if both is None else ctx.emit("add", ctx.input(bias), both)
    causal = bool(ctx.attr("unidirectional", 0))
    q, scale = scaled(ctx, q)
    return join_heads(ctx, emit_attention(ctx, q, k, v, both, scale, causal))


@onnx_op("Attention", since=(1,), domain=MICROSOFT)
def _attention(ctx: ImportContext) -> Values:
    """Self-attention with one weight matrix for q, k and v, and a cache [2, B, H, P, D]."""
    if ctx.attr("do_rotary", 0) or ctx.attr("past_present_share_buffer", 0):
        ctx.unsupported("do_rotary and past_present_share_buffer")
    x, weights, heads = ctx.input(0), ctx.input(1), ctx.attr("num_heads")
    packed = emit_matmul(ctx, x, weights)
    if ctx.has(2):
        packed = ctx.emit("add", packed, ctx.input(2))
    width = ctx.shape(packed)[2]
    sizes = tuple(ctx.attr("qkv_hidden_sizes", ())) or (floordiv(width, 3),) * 3
    q, k, v = (split_heads(ctx, part, heads) for part in _split(ctx, packed, 2, sizes))
    if ctx.has(4):
        past = ctx.input(4)
        old = [ctx.emit("reshape", emit_slice(ctx, past, {0: (n, 1, 1)}), shape=ctx.shape(past)[1:]) for n in (0, 1)]
        k, v = (ctx.emit("concat", o, new, axis=2) for o, new in zip(old, (k, v), strict=True))
    present = ""
    if ctx.wants(1):
        stacked = [ctx.emit("reshape", part, shape=(1, *ctx.shape(part))) for part in (k, v)]
        present = ctx.emit("concat", *stacked, axis=0)
    return (_attend(ctx, q, k, v, 3, 5), present)


@onnx_op("MultiHeadAttention", since=(1,), domain=MICROSOFT)
def _multi_head_attention(ctx: ImportContext) -> Values:
    """q [B, S, H * D], k and v likewise or, cached by the caller, [B, H, T, D]; or q, k and v packed."""
    if ctx.has(8) or ctx.has(9) or ctx.wants(3):
        ctx.unsupported("past_sequence_length, cache_indirection and the output qk")
    heads = ctx.attr("num_heads")
    q, k, v = _biased(ctx, _unpacked(ctx, heads))
    q, k, v = (split_heads(ctx, x, heads) if ctx.rank(x) == 3 else x for x in (q, k, v))
    if ctx.has(6) and ctx.has(7):
        k, v = (ctx.emit("concat", ctx.input(n), x, axis=2) for n, x in ((6, k), (7, v)))
    return (_attend(ctx, q, k, v, 4, 5), k, v)


def _unpacked(ctx: ImportContext, heads: int) -> list[str]:
    """q, k and v as [B, length, H * D] (or [B, H, T, D] as given)."""
    q = ctx.input(0)
    if ctx.rank(q) == 5:  # [B, S, H, 3, D]
        return _cut(ctx, q, 3)
    key = ctx.input(1)
    if ctx.rank(key) == 5:  # [B, T, H, 2, D]
        return [q, *_cut(ctx, key, 2)]
    return [q, key, ctx.input(2)]


def _cut(ctx: ImportContext, packed: str, count: int) -> list[str]:
    batch, length, heads, _, size = ctx.shape(packed)
    parts = _split(ctx, packed, 3, (1,) * count)
    return [ctx.emit("reshape", part, shape=(batch, length, heads * size)) for part in parts]


def _biased(ctx: ImportContext, parts: list[str]) -> list[str]:
    if not ctx.has(3):
        return parts
    if any(ctx.rank(x) != 3 for x in parts):
        ctx.unsupported("a bias for keys that are [B, H, T, D]")
    biases = _split(ctx, ctx.input(3), 0, tuple(ctx.shape(x)[2] for x in parts))
    return [ctx.emit("add", x, b) for x, b in zip(parts, biases, strict=True)]


@onnx_op("RotaryEmbedding", since=(1,), domain=MICROSOFT)
def _rotary(ctx: ImportContext) -> Values:
    """Pairs of each head turned by the angle of their position; positions are [B, S], or the first one's [1]."""
    if ctx.attr("is_packed_batching", 0):
        ctx.unsupported("is_packed_batching")
    x, flat = ctx.input(0), ctx.rank(ctx.input(0)) == 3
    turned = ctx.attr("rotary_embedding_dim", 0) or 2 * _known(ctx, ctx.shape(ctx.input(2))[1])
    if flat:
        batch, length, width = ctx.shape(x)
        heads = ctx.attr("num_heads", 0) or floordiv(width, turned)
        split = ctx.emit("reshape", x, shape=(batch, length, heads, floordiv(width, heads)))
    else:
        split = ctx.emit("transpose", x, perm=(0, 2, 1, 3))
    batch, length, heads, size = ctx.shape(split)
    tables = [_angles(ctx, k, batch, length) for k in (2, 3)]
    y = _turned(ctx, split, turned, tables, bool(ctx.attr("interleaved", 0)))
    if flat:
        return ctx.emit("reshape", y, shape=ctx.shape(x))
    return ctx.emit("transpose", y, perm=(0, 2, 1, 3))


def _known(ctx: ImportContext, d: Dim) -> int:
    return d if isinstance(d, int) else int(ctx.unsupported("the width of cos_cache is dynamic"))


def _angles(ctx: ImportContext, k: int, batch: Dim, length: Dim) -> str:
    """Rows of a cosine or sine table for every position: [B or 1, S, 1, pairs]."""
    positions, table = ctx.input(1), ctx.input(k)
    if product(ctx.shape(positions)) == 1 and ctx.rank(positions) == 1:
        positions = ctx.emit("add", emit_range(ctx, length, dt.i64), positions)
        positions = ctx.emit("reshape", positions, shape=(1, length))
        batch = 1
    rows = ctx.emit("gather", table, positions, axis=0)
    return ctx.emit("reshape", rows, shape=(batch, length, 1, ctx.shape(table)[1]))


def _turned(ctx: ImportContext, x: str, turned: int, tables: list[str], interleaved: bool) -> str:
    """The first `turned` numbers of each head rotated in pairs (k, k + half), or (2k, 2k + 1) where interleaved."""
    shape, half = ctx.shape(x), turned // 2
    cosine, sine = tables
    ends = [(0, half, 2), (1, half, 2)] if interleaved else [(0, half, 1), (half, half, 1)]
    a, b = (emit_slice(ctx, x, {3: end}) for end in ends)
    first = ctx.emit("sub", ctx.emit("mul", a, cosine), ctx.emit("mul", b, sine))
    second = ctx.emit("add", ctx.emit("mul", a, sine), ctx.emit("mul", b, cosine))
    if interleaved:
        pairs = [ctx.emit("reshape", part, shape=(*shape[:3], half, 1)) for part in (first, second)]
        out = ctx.emit("reshape", ctx.emit("concat", *pairs, axis=4), shape=(*shape[:3], turned))
    else:
        out = ctx.emit("concat", first, second, axis=3)
    rest = shape[3] - turned
    return out if rest == 0 else ctx.emit("concat", out, emit_slice(ctx, x, {3: (turned, rest, 1)}), axis=3)
