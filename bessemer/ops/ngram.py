"""Counts of n-grams in sequences of integers: op `ngram_count`, and TfIdfVectorizer over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.generate import emit_fill


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    """Operands x [N, C] and grams [G, n] of one integer dtype give f32 counts [N, G]."""
    x, grams = ctx.type(0), ctx.type(1)
    if x.rank != 2 or grams.rank != 2 or x.dtype != grams.dtype or not x.dtype.is_int:
        raise ValueError(f"ngram_count takes rows [N, C] and grams [G, n] of one integer type, not {x} and {grams}")
    if not isinstance(grams.shape[1], int) or grams.shape[1] < 1 or ctx.attr("skips") < 0:
        raise ValueError(f"ngram_count takes grams of a known length and a count of skips, not {grams}")
    return (TensorType(dt.f32, (x.shape[0], grams.shape[0])),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """How often each gram occurs in each row, its elements 1, 2, ... or skips + 1 apart."""
    x, grams = inputs
    assert x is not None and grams is not None
    n = grams.shape[1]
    out = np.zeros((len(x), len(grams)), np.float32)
    for step in range(1, attrs["skips"] + 2):
        starts = max(0, x.shape[1] - (n - 1) * step)
        windows = np.stack([x[:, k * step : k * step + starts] for k in range(n)], -1)
        out += (windows[:, None] == grams[None, :, None]).all(-1).sum(-1)
    return (out,)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, grams, (out,) = ctx.type(0), ctx.type(1), _infer(ctx)
    n, (row, gram) = grams.shape[1], ex.out_axes(2)
    assert isinstance(n, int)
    step, start = ex.call("add", ex.Axis("r0"), ex.idx(1)), ex.Axis("r1")
    at = [ex.call("add", start, ex.call("mul", step, ex.idx(k))) for k in range(n)]
    same = [
        ex.call("eq", ex.load(0, (row, i), x.dtype), ex.load(1, (gram, ex.idx(k)), grams.dtype))
        for k, i in enumerate(at)
    ]
    zero = ex.lit(0, dt.f32)
    found = ex.Select(reduce(lambda a, b: ex.call("and", a, b), same), ex.lit(1, dt.f32), zero)
    body = ex.Select(ex.call("lt", at[-1], ex.idx(x.shape[1])), found, zero)
    total = ex.Reduce("sum", (("r0", ctx.attr("skips") + 1), ("r1", x.shape[1])), body, dt.f32)
    return ex.ComputeDef(out.shape, out.dtype, total)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    rows = rng.integers(0, 3, (4, 17))
    return (
        Sample((rows, np.arange(4).reshape(4, 1)), {"skips": 0}, note="single elements"),
        Sample((rows, rng.integers(0, 3, (5, 2))), {"skips": 3}),
        Sample((rows.astype(np.int32), rng.integers(0, 3, (7, 3)).astype(np.int32)), {"skips": 1}),
        Sample((rows[:, :2], rng.integers(0, 3, (3, 4))), {"skips": 2}, note="rows shorter than the grams"),
        Sample((rows[:, :0], rng.integers(0, 3, (3, 2))), {"skips": 0}, note="empty rows"),
    )


register(OpDef("ngram_count", _infer, _reference, Fusion.REDUCTION, compute=_compute, samples=_samples))


@dataclass(frozen=True)
class _Gram:
    """An n-gram of the pool: its elements, its coordinate in the output, and its weight."""

    elements: tuple[int, ...]
    column: int
    weight: float


def _pool(ctx: ImportContext) -> list[_Gram]:
    """The n-grams in the order of the pool: all of length 1, then of length 2, and so on."""
    pool, starts, columns = ctx.attr("pool_int64s"), ctx.attr("ngram_counts"), ctx.attr("ngram_indexes")
    weights = ctx.attr("weights", (1.0,) * len(columns))
    grams: list[tuple[int, ...]] = []
    for n, (begin, end) in enumerate(zip(starts, (*starts[1:], len(pool)), strict=True), 1):
        if not 0 <= begin <= end <= len(pool) or (end - begin) % n:
            ctx.unsupported(f"ngram_counts {starts} do not part a pool of {len(pool)} elements into n-grams")
        grams += [tuple(pool[k : k + n]) for k in range(begin, end, n)]
    if not len(grams) == len(columns) == len(weights) or not grams:
        ctx.unsupported(f"{len(columns)} ngram_indexes and {len(weights)} weights for {len(grams)} n-grams")
    if len(set(columns)) != len(columns) or len(set(grams)) != len(grams) or min(columns) < 0:
        ctx.unsupported("an n-gram or an output coordinate that occurs twice, or a negative coordinate")
    return [_Gram(*parts) for parts in zip(grams, columns, weights, strict=True)]


@onnx_op("TfIdfVectorizer", since=(9,))
def _import(ctx: ImportContext) -> Values:
    if "pool_strings" in ctx.attributes:
        ctx.unsupported("n-grams of strings")
    x, mode, pool = ctx.input(0), ctx.attr("mode"), _pool(ctx)
    if mode not in ("TF", "IDF", "TFIDF"):
        ctx.unsupported(f"mode {mode!r}; known: TF, IDF, TFIDF")
    shape, width = ctx.shape(x), max(g.column for g in pool) + 1
    if len(shape) not in (1, 2):
        ctx.unsupported(f"data of rank {len(shape)}; it must be [C] or [N, C]")
    rows = ctx.cast(x, dt.i64)
    if len(shape) == 1:
        rows = ctx.emit("reshape", rows, shape=(1, shape[0]))
    y = _counts(ctx, rows, pool, width)
    if mode == "IDF":
        y = ctx.emit("min", y, ctx.const(1.0, dt.f32))
    if mode != "TF":
        weights = np.zeros(width)
        weights[[g.column for g in pool]] = [g.weight for g in pool]
        y = ctx.emit("mul", y, ctx.const(weights, dt.f32))
    return y if len(shape) == 2 else ctx.emit("reshape", y, shape=(width,))


def _counts(ctx: ImportContext, rows: str, pool: list[_Gram], width: int) -> str:
    """Counts [N, width]: n-grams outside the wanted lengths and coordinates without an n-gram have none."""
    parts: list[str] = []
    source = np.full(width, -1)
    lengths = range(ctx.attr("min_gram_length"), ctx.attr("max_gram_length") + 1)
    taken = 0
    for n in lengths:
        grams = [g for g in pool if len(g.elements) == n]
        if grams:
            skips = ctx.attr("max_skip_count") if n > 1 else 0  # a single element is counted once
            table = ctx.const([g.elements for g in grams], dt.i64)
            parts.append(ctx.emit("ngram_count", rows, table, skips=skips))
            source[[g.column for g in grams]] = taken + np.arange(len(grams))
            taken += len(grams)
    if (source < 0).any():
        parts.append(emit_fill(ctx, (ctx.shape(rows)[0], 1), 0.0, dt.f32))
        source[source < 0] = taken
    y = parts[0] if len(parts) == 1 else ctx.emit("concat", *parts, axis=1)
    if np.array_equal(source, np.arange(width)):
        return y
    return ctx.emit("gather", y, ctx.const(source, dt.i64), axis=1)
