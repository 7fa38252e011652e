"""Scaled dot-product attention: op `attention`.

Operands q [B, H, S, D], k [B, Hkv, T, D], v [B, Hkv, T, Dv] (layout "BHSD"; "BSHD" has the middle axes swapped), and
with has_mask a mask that broadcasts to [B, H, S, T]: floats are added to the scores, a bool says which keys take part.
With `causal` query i sees keys up to i + T - S. A query that sees no key gives zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, floordiv
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import same_dim


def _heads_first(t: TensorType, layout: str) -> tuple[Dim, Dim, Dim, Dim]:
    """(batch, heads, length, size) of a tensor in `layout`."""
    if t.rank != 4:
        raise ValueError(f"attention takes tensors of rank 4, not {t}")
    b, x, y, d = t.shape
    return (b, x, y, d) if layout == "BHSD" else (b, y, x, d)


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    layout = ctx.attr("layout")
    (b, h, s, _), (_, kh, _, _), (_, _, _, vd) = (_heads_first(ctx.type(k), layout) for k in range(3))
    for a, other in _equal(ctx):
        same_dim(a, other, ctx.ranges)
    if isinstance(h, int) and isinstance(kh, int) and h % kh:
        raise ValueError(f"{h} query heads do not divide into {kh} key heads")
    shape = (b, h, s, vd) if layout == "BHSD" else (b, s, h, vd)
    return (TensorType(ctx.type(0).dtype, shape),)


def _equal(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    layout = ctx.attr("layout")
    (b, _, _, d), (kb, kh, t, kd), (vb, vh, vt, _) = (_heads_first(ctx.type(k), layout) for k in range(3))
    yield from ((b, kb), (b, vb), (kh, vh), (t, vt), (d, kd))


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield from _equal(ctx)
    (_, h, _, _), (_, kh, _, _) = (_heads_first(ctx.type(k), ctx.attr("layout")) for k in range(2))
    if h != kh:
        yield h % kh, 0


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Computed in f64."""
    q, k, v = (np.asarray(a, np.float64) for a in inputs[:3])
    if attrs["layout"] == "BSHD":
        q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, k, v))
    groups = q.shape[1] // max(1, k.shape[1])
    k, v = (np.repeat(a, groups, axis=1) for a in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * attrs["scale"]
    if attrs["has_mask"]:
        mask = inputs[3]
        assert mask is not None
        scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
    if attrs["causal"]:
        s, t = scores.shape[-2:]
        scores = np.where(np.tril(np.ones((s, t), bool), t - s), scores, -np.inf)
    peak = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(peak), peak, 0))
    total = weights.sum(axis=-1, keepdims=True)
    out = (weights / np.where(total == 0, 1, total)) @ v
    if attrs["layout"] == "BSHD":
        out = out.transpose(0, 2, 1, 3)
    assert inputs[0] is not None
    return (np.ascontiguousarray(out).astype(inputs[0].dtype),)


def _flops(ctx: InferContext) -> Dim:
    b, h, s, d = _heads_first(ctx.type(0), ctx.attr("layout"))
    _, _, t, vd = _heads_first(ctx.type(2), ctx.attr("layout"))
    return 2 * b * h * s * t * (d + vd)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def attrs(layout: str, mask: bool = False, causal: bool = False) -> dict[str, Any]:
        return {"scale": 0.25, "causal": causal, "has_mask": mask, "layout": layout}

    seen = rng.random((2, 1, 5, 9)) < 0.6
    hidden = np.where(rng.random((2, 1, 1, 9)) < 0.3, np.float32(-np.inf), np.float32(0))
    return (
        Sample((x(2, 3, 7, 16), x(2, 3, 9, 16), x(2, 3, 9, 16)), attrs("BHSD")),
        Sample((x(2, 7, 3, 32), x(2, 9, 3, 32), x(2, 9, 3, 32)), attrs("BSHD")),
        Sample((x(2, 3, 7, 16), x(2, 3, 9, 16), x(2, 3, 9, 20), hidden), attrs("BHSD", mask=True)),
        Sample((x(2, 4, 5, 16), x(2, 2, 9, 16), x(2, 2, 9, 16), seen), attrs("BHSD", mask=True), note="grouped"),
        Sample((x(1, 2, 33, 8), x(1, 2, 33, 8), x(1, 2, 33, 8)), attrs("BHSD", causal=True)),
        Sample((x(1, 2, 4, 8), x(1, 2, 7, 8), x(1, 2, 7, 8)), attrs("BHSD", causal=True)),
        Sample((x(1, 20, 2, 8), x(1, 5, 2, 8), x(1, 5, 2, 8)), attrs("BSHD", causal=True)),
        Sample((x(1, 70, 2, 64), x(1, 70, 2, 64), x(1, 70, 2, 64), x(1, 1, 70, 70)), attrs("BSHD", mask=True)),
    )


register(OpDef("attention", _infer, _reference, Fusion.TEMPLATE, flops=_flops, samples=_samples, taken=_taken))


def emit_attention(
    ctx: ImportContext, q: str, k: str, v: str, mask: str | None, scale: float, causal: bool, layout: str = "BHSD"
) -> str:
    """An `attention` node."""
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    attrs: dict[str, Any] = {"scale": scale, "causal": causal, "has_mask": mask is not None, "layout": layout}
    return ctx.emit("attention", *operands, **attrs)


def scaled(ctx: ImportContext, q: str) -> tuple[str, float]:
    """Queries [..., size of the heads] and the factor of the scores: the node's attribute scale where it is not 0,
    else 1 / sqrt(size). Where the size is dynamic, the queries are multiplied by that, and the factor is 1."""
    given, size = ctx.attr("scale", None), ctx.shape(q)[-1]
    if given:
        return q, float(given)
    if isinstance(size, int):
        return q, 1 / math.sqrt(size)
    root = ctx.emit("rsqrt", ctx.cast(ctx.builder.dims_value(np.array(size, dtype=object)), dt.f32))
    return ctx.emit("mul", q, ctx.cast(root, ctx.dtype(q))), 1.0


def split_heads(ctx: ImportContext, x: str, heads: int, layout: str = "BHSD") -> str:
    """[B, S, heads * D] as [B, heads, S, D] or, in layout "BSHD", [B, S, heads, D]."""
    batch, length, width = ctx.shape(x)
    split = ctx.emit("reshape", x, shape=(batch, length, heads, floordiv(width, heads)))
    return ctx.emit("transpose", split, perm=(0, 2, 1, 3)) if layout == "BHSD" else split


def join_heads(ctx: ImportContext, x: str, layout: str = "BHSD") -> str:
    """The inverse of `split_heads`."""
    x = ctx.emit("transpose", x, perm=(0, 2, 1, 3)) if layout == "BHSD" else x
    batch, length, heads, size = ctx.shape(x)
    return ctx.emit("reshape", x, shape=(batch, length, heads * size))
