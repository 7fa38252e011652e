"""GridSample: op `grid_sample` reads data at real coordinates that another operand holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import same_dim
from bessemer.ops.interpolation import clamp, inside, tap_weights

CUBIC_A = -0.75
MODES = {"bilinear": "linear", "bicubic": "cubic"}  # opset 16's names


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, grid = ctx.type(0), ctx.type(1)
    if x.rank < 3 or grid.rank != x.rank or grid.shape[-1] != x.rank - 2 or not grid.dtype.is_float:
        raise ValueError(f"grid_sample takes data [N, C, *spatial] and a grid [N, *out, rank], not {x} and {grid}")
    return (TensorType(x.dtype, (same_dim(x.shape[0], grid.shape[0], ctx.ranges), x.shape[1], *grid.shape[1:-1])),)


def _real(x: DType) -> DType:
    return dt.f64 if x == dt.f64 else dt.f32


# -- reference: coordinates in the precision of the kernels, so that nearest taps agree ------------------------------


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, grid = inputs
    assert x is not None and grid is not None
    real = np.float64 if x.dtype == np.float64 else np.float32
    rank, sizes = x.ndim - 2, x.shape[2:]
    taps = []
    for k, size in enumerate(sizes):
        at = _denormalised(grid[..., rank - 1 - k].astype(real), size, attrs["align_corners"])
        if attrs["mode"] == "nearest":
            near = _settled(np.rint(at), size, attrs)
            taps.append([(np.trunc(near).astype(np.int64), np.ones_like(at))])
        else:
            at = _settled(at, size, attrs)
            low = np.floor(at)
            weights = tap_weights(at - low, attrs["mode"], CUBIC_A, dt.f64)
            taps.append([(low.astype(np.int64) + offset, w) for offset, w in weights])
    batch = np.arange(x.shape[0]).reshape(-1, *(1,) * rank)
    out = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), real)
    for choice in itertools.product(*taps):
        held, weight = [], np.ones(grid.shape[:-1], real)
        for (i, w), size in zip(choice, sizes):
            j = _pixel(i, size, attrs)
            weight = weight * np.where((j >= 0) & (j < size), w, 0)
            held.append(np.clip(j, 0, size - 1))
        out = out + x[(batch, slice(None), *held)] * weight[..., None]
    return (np.ascontiguousarray(np.moveaxis(out, -1, 1)).astype(x.dtype),)


def _denormalised(n: np.ndarray, size: int, align: bool) -> np.ndarray:
    """From -1 .. 1 to elements."""
    return np.asarray((n + 1) / 2 * (size - 1) if align else ((n + 1) * size - 1) / 2, n.dtype)


def _border(size: Dim, align: bool) -> tuple[float, Dim, float]:
    """(lower end, whole part and fraction of the upper end) of the data's extent."""
    return (0.0, size - 1, 0.0) if align else (-0.5, size - 1, 0.5)


def _settled(v: np.ndarray, size: int, attrs: Mapping[str, Any]) -> np.ndarray:
    """Coordinates after padding by the border or by reflection; as they are for zeros."""
    low, whole, part = _border(size, attrs["align_corners"])
    high = int(whole) + part  # type: ignore[arg-type]
    outside = (v < low) | (v > high)
    if attrs["padding"] == "border":
        return np.where(outside, np.clip(v, 0, size - 1), v)
    return _reflected(v, low, high) if attrs["padding"] == "reflection" else v


def _reflected(v: np.ndarray, low: float, high: float) -> np.ndarray:
    span = high - low
    if span == 0:
        return np.full_like(v, low)
    beyond = np.where(v < low, low - v, v - high)
    turns = np.trunc(beyond / span)
    rest = beyond - turns * span
    near = np.where(v < low, low + rest, high - rest)
    far = np.where(v < low, high - rest, low + rest)
    return np.asarray(np.where((v >= low) & (v <= high), v, np.where(turns % 2 == 0, near, far)), v.dtype)


def _pixel(i: np.ndarray, size: int, attrs: Mapping[str, Any]) -> np.ndarray:
    """Indices after padding."""
    if attrs["padding"] == "border":
        return np.asarray(np.clip(i, 0, size - 1))
    if attrs["padding"] == "reflection":
        low, whole, part = _border(size, attrs["align_corners"])
        return _reflected(i.astype(np.float32), low, int(whole) + part).astype(np.int64)  # type: ignore[arg-type]
    return i


# -- compute definition -------------------------------------------------------------------------------------------


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, grid, (out,) = ctx.type(0), ctx.type(1), _infer(ctx)
    axes, real, rank = ex.out_axes(out.rank), _real(x.dtype), x.rank - 2
    taps: list[list[tuple[ex.Expr, ex.Expr | None]]] = []
    for k in range(rank):
        size = x.shape[2 + k]
        n = ex.cast(ex.load(1, (axes[0], *axes[2:], ex.idx(rank - 1 - k)), grid.dtype), real)
        at = _denormalised_expr(n, size, ctx.attr("align_corners"))
        if ctx.attr("mode") == "nearest":
            taps.append([(ex.cast(_settled_expr(ex.call("round", at), size, ctx.attrs), dt.i64), None)])
        else:
            at = _settled_expr(at, size, ctx.attrs)
            low = ex.call("floor", at)
            weights = tap_weights(ex.call("sub", at, low), ctx.attr("mode"), CUBIC_A, real)
            taps.append([(ex.call("add", ex.cast(low, dt.i64), ex.idx(offset)), w) for offset, w in weights])
    total: ex.Expr | None = None
    for choice in itertools.product(*taps):
        held: list[ex.Expr] = []
        guard: ex.Expr | None = None
        weight: ex.Expr | None = None
        for k, (i, w) in enumerate(choice):
            size = x.shape[2 + k]
            j = _pixel_expr(i, size, ctx.attrs)
            if ctx.attr("padding") == "zeros":
                guard = inside(j, size) if guard is None else ex.call("and", guard, inside(j, size))
            held.append(clamp(j, size))
            weight = w if weight is None or w is None else ex.call("mul", weight, w)
        value: ex.Expr = ex.cast(ex.load(0, (axes[0], axes[1], *held), x.dtype), real)
        value = value if guard is None else ex.Select(guard, value, ex.lit(0, real))
        term = value if weight is None else ex.call("mul", weight, value)
        total = term if total is None else ex.call("add", total, term)
    assert total is not None
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _denormalised_expr(n: ex.Expr, size: Dim, align: bool) -> ex.Expr:
    real = n.dtype
    one, two = ex.lit(1, real), ex.lit(2, real)
    shifted = ex.call("add", n, one)
    if align:
        return ex.call("mul", ex.call("div", shifted, two), ex.cast(ex.idx(size - 1), real))
    return ex.call("div", ex.call("sub", ex.call("mul", shifted, ex.cast(ex.idx(size), real)), one), two)


def _ends(size: Dim, attrs: Mapping[str, Any], real: DType) -> tuple[ex.Expr, ex.Expr]:
    low, whole, part = _border(size, attrs["align_corners"])
    return ex.lit(low, real), ex.call("add", ex.cast(ex.idx(whole), real), ex.lit(part, real))


def _settled_expr(v: ex.Expr, size: Dim, attrs: Mapping[str, Any]) -> ex.Expr:
    real = v.dtype
    low, high = _ends(size, attrs, real)
    if attrs["padding"] == "border":
        outside = ex.call("or", ex.call("lt", v, low), ex.call("gt", v, high))
        held = ex.call("max", ex.call("min", v, ex.cast(ex.idx(size - 1), real)), ex.lit(0, real))
        return ex.Select(outside, held, v)
    return _reflected_expr(v, low, high) if attrs["padding"] == "reflection" else v


def _reflected_expr(v: ex.Expr, low: ex.Expr, high: ex.Expr) -> ex.Expr:
    below, above = ex.call("lt", v, low), ex.call("gt", v, high)
    span = ex.call("sub", high, low)
    beyond = ex.Select(below, ex.call("sub", low, v), ex.call("sub", v, high))
    turns = ex.call("trunc", ex.call("div", beyond, span))
    rest = ex.call("sub", beyond, ex.call("mul", turns, span))
    even = ex.call("eq", ex.call("fmod", turns, ex.lit(2, v.dtype)), ex.lit(0, v.dtype))
    from_low = ex.call("eq", below, even)
    folded = ex.Select(from_low, ex.call("add", low, rest), ex.call("sub", high, rest))
    moved = ex.Select(ex.call("or", below, above), folded, v)
    return ex.Select(ex.call("eq", span, ex.lit(0, v.dtype)), low, moved)


def _pixel_expr(i: ex.Expr, size: Dim, attrs: Mapping[str, Any]) -> ex.Expr:
    if attrs["padding"] == "border":
        return clamp(i, size)
    if attrs["padding"] == "reflection":
        return ex.cast(_reflected_expr(ex.cast(i, dt.f32), *_ends(size, attrs, dt.f32)), dt.i64)
    return i


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 3, 5, 7)).astype(np.float32)
    grid = rng.uniform(-1.6, 1.6, (2, 4, 3, 2)).astype(np.float32)
    cases = itertools.product(("linear", "nearest", "cubic"), ("zeros", "border", "reflection"), (False, True))
    volume = rng.standard_normal((1, 2, 3, 4, 5)).astype(np.float32)
    points = rng.uniform(-1.2, 1.2, (1, 2, 2, 3, 3)).astype(np.float32)
    return [
        *(Sample((x, grid), {"mode": m, "padding": p, "align_corners": a}, 1e-4, f"{m} {p} {a}") for m, p, a in cases),
        Sample((volume, points), {"mode": "linear", "padding": "zeros", "align_corners": False}, 1e-4, "3-D"),
    ]


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield ctx.type(0).shape[0], ctx.type(1).shape[0]


register(OpDef("grid_sample", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, taken=_taken))


@onnx_op("GridSample", since=(16, 20, 22))
def _import(ctx: ImportContext) -> Values:
    mode = ctx.attr("mode", "bilinear" if ctx.since == 16 else "linear")
    mode, padding = MODES.get(mode, mode), ctx.attr("padding_mode", "zeros")
    if mode not in ("linear", "nearest", "cubic") or padding not in ("zeros", "border", "reflection"):
        ctx.unsupported(f"mode {mode!r} with padding {padding!r}")
    align = bool(ctx.attr("align_corners", 0))
    return ctx.emit("grid_sample", ctx.input(0), ctx.input(1), mode=mode, padding=padding, align_corners=align)
