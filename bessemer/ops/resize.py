"""Resize and Upsample: op `resize` (nearest, linear, cubic), `resize_antialias` per axis, and a host form.

`resize` reads each output element from taps around its source coordinate, axis by axis; an axis of scale 1 is copied.
Its per-axis attributes (shape, scale_num, scale_den, and roi as starts..., ends...) follow the layout of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.interpolation import (
    Line,
    crop_line,
    floor_index,
    held_index,
    inside,
    nearest_line,
    real_type,
    source_line,
    tap_weights,
)  # fmt: skip

CROP = "tf_crop_and_resize"


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, shape = ctx.type(0), tuple(ctx.attr("shape"))
    if len(shape) != x.rank or len(ctx.attr("scale_num")) != x.rank or len(ctx.attr("scale_den")) != x.rank:
        raise ValueError(f"resize of {x} needs a size and a scale for each axis")
    _lines(x.shape, ctx.attrs)
    return (TensorType(x.dtype, shape),)


def _lines(sizes: Sequence[Dim], attrs: Mapping[str, Any]) -> dict[int, Line]:
    """The source line of each axis that is not copied."""
    out: dict[int, Line] = {}
    roi, rank = attrs["roi"], len(sizes)
    for k, size in enumerate(sizes):
        target = attrs["shape"][k]
        if attrs["coordinates"] == CROP:
            start, end = roi[k], roi[rank + k]
            if target == size and (start, end) == (0.0, 1.0):
                continue
            if not isinstance(target, int):
                raise ValueError(f"{CROP} needs fixed output sizes, and axis {k} is {target}")
            out[k] = crop_line(start, end, size, target)
        elif target != size or attrs["scale_num"][k] != attrs["scale_den"][k]:
            num, den = attrs["scale_num"][k], attrs["scale_den"][k]
            out[k] = source_line(attrs["coordinates"], num, den, size, target)
    return out


# -- reference ----------------------------------------------------------------------------------------------------


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """One axis after the other, weights in f64; integers are truncated."""
    (x,) = inputs
    assert x is not None
    shape = tuple(attrs["shape"])
    y, outside = x, np.zeros((1,) * x.ndim, bool)
    for k, line in _lines(x.shape, attrs).items():
        a, b, q = line.known()
        spread = (1,) * k + (shape[k],) + (1,) * (x.ndim - k - 1)
        p = a * np.arange(shape[k]) + b
        if attrs["coordinates"] == CROP:
            outside = outside | ((p < 0) | (p > (x.shape[k] - 1) * q)).reshape(spread)
        if attrs["mode"] == "nearest":
            a, b, q = nearest_line(line, attrs["rounding"]).known()
            at = (a * np.arange(shape[k]) + b) // q
            y = np.take(y, np.clip(at, 0, x.shape[k] - 1), axis=k)
        else:
            y = _interpolate(y, k, p // q, (p % q) / q, attrs)
    if outside.any():
        y = np.where(outside, np.asarray(attrs["extrapolation"], y.dtype), y)
    return (np.ascontiguousarray(y).astype(x.dtype),)


def _interpolate(y: np.ndarray, k: int, low: np.ndarray, fraction: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    size, spread = y.shape[k], (1,) * k + (len(low),) + (1,) * (y.ndim - k - 1)
    total: Any = 0
    norm = np.zeros(len(low))
    for offset, weight in tap_weights(fraction, attrs["mode"], attrs["cubic_a"], dt.f64):
        at = low + offset
        if attrs["exclude_outside"]:
            weight = np.where((at >= 0) & (at < size), weight, 0)
        norm = norm + weight
        total = total + np.take(y, np.clip(at, 0, size - 1), axis=k) * weight.reshape(spread)
    return np.asarray(total / norm.reshape(spread) if attrs["exclude_outside"] else total)


# -- compute definition -------------------------------------------------------------------------------------------


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, (out,), mode = ctx.type(0), _infer(ctx), ctx.attr("mode")
    axes, real = ex.out_axes(out.rank), real_type(x.dtype)
    lines = _lines(x.shape, ctx.attrs)
    index: list[ex.Expr] = list(axes)
    if mode == "nearest":
        for k, line in lines.items():
            nearest = nearest_line(line, ctx.attr("rounding"))
            index[k] = held_index(nearest, axes[k], 0, x.shape[k], out.shape[k], ctx.ranges)
        value: ex.Expr = ex.load(0, tuple(index), x.dtype)
    else:
        value = ex.cast(_blend(ctx, list(lines.items()), index, real), x.dtype)
    if ctx.attr("coordinates") == CROP:
        fill = ex.lit(ctx.attr("extrapolation"), x.dtype)
        for k, line in lines.items():
            p = _numerator(line, axes[k])
            high = ex.call("gt", p, ex.idx((x.shape[k] - 1) * line.q))
            value = ex.Select(ex.call("or", ex.call("lt", p, ex.idx(0)), high), fill, value)
    return ex.ComputeDef(out.shape, out.dtype, value)


def _numerator(line: Line, axis: ex.Expr) -> ex.Expr:
    return ex.call("add", ex.call("mul", axis, ex.idx(line.a)), ex.idx(line.b))


def _blend(ctx: InferContext, lines: list[tuple[int, Line]], index: list[ex.Expr], real: dt.DType) -> ex.Expr:
    """The weighted sum of taps over the axes of `lines`, the others being fixed in `index`."""
    x = ctx.type(0)
    if not lines:
        return ex.cast(ex.load(0, tuple(index), x.dtype), real)
    (k, line), rest = lines[0], lines[1:]
    axis = ex.out_axes(x.rank)[k]
    above = ex.call("floormod", _numerator(line, axis), ex.idx(line.q))
    fraction = ex.call("div", ex.cast(above, real), ex.cast(ex.idx(line.q), real))
    total: ex.Expr | None = None
    norm: ex.Expr | None = None
    for offset, weight in tap_weights(fraction, ctx.attr("mode"), ctx.attr("cubic_a"), real):
        if ctx.attr("exclude_outside"):
            weight = ex.Select(inside(floor_index(line, axis, offset), x.shape[k]), weight, ex.lit(0, real))
        at = held_index(line, axis, offset, x.shape[k], ctx.attr("shape")[k], ctx.ranges)
        there = [*index[:k], at, *index[k + 1 :]]
        term = ex.call("mul", weight, _blend(ctx, rest, there, real))
        total = term if total is None else ex.call("add", total, term)
        norm = weight if norm is None else ex.call("add", norm, weight)
    assert total is not None and norm is not None
    return ex.call("div", total, norm) if ctx.attr("exclude_outside") else total


def resize_attrs(shape: Sequence[Dim], num: Sequence[Dim], den: Sequence[Dim], **more: Any) -> dict[str, Any]:
    """Attributes of a `resize`, linear and half-pixel unless said otherwise."""
    return {
        "shape": tuple(shape), "scale_num": tuple(num), "scale_den": tuple(den), "mode": "linear",
        "coordinates": "half_pixel", "rounding": "round_prefer_floor", "cubic_a": -0.75, "exclude_outside": False,
        "roi": (), "extrapolation": 0.0, **more,
    }  # fmt: skip


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    up, one = (1, 1, 2, 2), (1, 1, 1, 1)
    ceil = {"mode": "nearest", "rounding": "ceil"}
    crop = {"coordinates": CROP, "roi": (0.0, 0.0, 0.25, -0.5, 1.0, 1.0, 0.75, 1.5), "extrapolation": 7.0}
    small = rng.integers(0, 99, (1, 1, 4, 4)).astype(np.uint8)
    return (
        Sample((x(2, 3, 5, 7),), resize_attrs((2, 3, 10, 14), up, one, mode="nearest", coordinates="asymmetric")),
        Sample((x(1, 5, 7, 3),), resize_attrs((1, 10, 14, 3), (1, 2, 2, 1), one, mode="nearest"), note="NHWC"),
        Sample((x(1, 3, 6, 9),), resize_attrs((1, 3, 4, 6), (1, 1, 2, 2), (1, 1, 3, 3), **ceil)),
        Sample((x(2, 3, 5, 7),), resize_attrs((2, 3, 10, 14), up, one)),
        Sample((x(1, 5, 7, 4),), resize_attrs((1, 8, 3, 4), (1, 8, 3, 1), (1, 5, 7, 1), coordinates="align_corners")),
        Sample((x(1, 2, 5, 5),), resize_attrs((1, 2, 9, 8), (1, 1, 9, 8), (1, 1, 5, 5), mode="cubic")),
        Sample((x(1, 2, 4, 5),), resize_attrs((1, 2, 8, 10), up, one, mode="cubic", exclude_outside=True)),
        Sample((x(1, 2, 6, 6),), resize_attrs((1, 2, 4, 5), (1, 1, 4, 5), (1, 1, 6, 6), **crop), note="crop"),
        Sample((small,), resize_attrs((1, 1, 8, 8), up, one), note="u8"),
        Sample((x(2, 3, 9),), resize_attrs((2, 3, 4), (1, 1, 4), (1, 1, 9), coordinates="pytorch_half_pixel")),
    )


register(OpDef("resize", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples))
