"""Resizing one axis with a kernel widened by the scale, so that shrinking does not alias: op `resize_antialias`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, ceildiv, evaluate, maximum
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.interpolation import (
    Line,
    clamp,
    cubic_far,
    cubic_near,
    inside,
    polynomial,
    real_type,
    source_line,
)  # fmt: skip


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis = ctx.type(0), ctx.attr("axis")
    if not 0 <= axis < x.rank or ctx.attr("mode") not in ("linear", "cubic"):
        raise ValueError(f"{ctx.attr('mode')} resize of axis {axis} does not fit {x}")
    return (TensorType(x.dtype, tuple(ctx.attr("size") if k == axis else d for k, d in enumerate(x.shape))),)


def _line(size: Dim, attrs: Mapping[str, Any]) -> Line:
    return source_line(attrs["coordinates"], attrs["scale_num"], attrs["scale_den"], size, attrs["size"])


def _half(attrs: Mapping[str, Any]) -> Dim:
    """How many taps there are on each side of a coordinate."""
    radius = 1 if attrs["mode"] == "linear" else 2
    return maximum(ceildiv(radius * attrs["scale_den"], attrs["scale_num"]), radius)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Weights in f64; integers are truncated."""
    (x,) = inputs
    assert x is not None
    axis, out = attrs["axis"], int(attrs["size"])
    size, half = x.shape[axis], evaluate(_half(attrs), {})
    a, b, q = _line(size, attrs).known()
    source = (a * np.arange(out) + b) / q
    shrink = min(1.0, attrs["scale_num"] / attrs["scale_den"])
    spread = (1,) * axis + (out,) + (1,) * (x.ndim - axis - 1)
    total, norm = np.zeros(1), np.zeros(out)
    for tap in range(1 - half, half + 1):
        at = np.floor(source).astype(np.int64) + tap
        weight = _kernel(np.abs(at - source) * shrink, attrs)
        if attrs["exclude_outside"]:
            weight = np.where((at >= 0) & (at < size), weight, 0)
        norm = norm + weight
        total = total + np.take(x, np.clip(at, 0, size - 1), axis=axis) * weight.reshape(spread)
    return ((total / norm.reshape(spread)).astype(x.dtype),)


def _kernel(distance: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    if attrs["mode"] == "linear":
        return np.asarray(np.maximum(1 - distance, 0))
    near, far = cubic_near(attrs["cubic_a"]), cubic_far(attrs["cubic_a"])
    return np.where(distance < 1, np.polyval(near, distance), np.where(distance < 2, np.polyval(far, distance), 0))


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, (out,), k = ctx.type(0), _infer(ctx), ctx.attr("axis")
    axes, real, line, half = ex.out_axes(out.rank), real_type(x.dtype), _line(x.shape[k], ctx.attrs), _half(ctx.attrs)
    num, den = ctx.attr("scale_num"), ctx.attr("scale_den")
    p = ex.call("add", ex.call("mul", axes[k], ex.idx(line.a)), ex.idx(line.b))
    low = ex.call("sub", ex.call("floordiv", p, ex.idx(line.q)), ex.idx(half - 1))
    at = ex.call("add", low, ex.Axis("r0"))
    off = ex.call("abs", ex.call("sub", ex.call("mul", at, ex.idx(line.q)), p))
    scale = ex.call("div", ex.cast(ex.idx(num), real), ex.cast(ex.idx(maximum(num, den)), real))
    distance = ex.call("mul", ex.call("div", ex.cast(off, real), ex.cast(ex.idx(line.q), real)), scale)
    weight = _kernel_expr(distance, ctx.attrs, real)
    if ctx.attr("exclude_outside"):
        weight = ex.Select(inside(at, x.shape[k]), weight, ex.lit(0, real))
    index = (*axes[:k], clamp(at, x.shape[k]), *axes[k + 1 :])
    value = ex.call("mul", weight, ex.cast(ex.load(0, index, x.dtype), real))
    taps = (("r0", 2 * half),)
    result = ex.call("div", ex.Reduce("sum", taps, value, real), ex.Reduce("sum", taps, weight, real))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(result, out.dtype))


def _kernel_expr(distance: ex.Expr, attrs: Mapping[str, Any], real: DType) -> ex.Expr:
    zero, one = ex.lit(0, real), ex.lit(1, real)
    if attrs["mode"] == "linear":
        return ex.call("max", ex.call("sub", one, distance), zero)
    far = polynomial(distance, cubic_far(attrs["cubic_a"]), real)
    outer = ex.Select(ex.call("lt", distance, ex.lit(2, real)), far, zero)
    return ex.Select(ex.call("lt", distance, one), polynomial(distance, cubic_near(attrs["cubic_a"]), real), outer)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def attrs(mode: str, axis: int, size: int, num: int, den: int, exclude: bool) -> dict[str, Any]:
        return {"mode": mode, "axis": axis, "size": size, "scale_num": num, "scale_den": den, "cubic_a": -0.75,
                "coordinates": "half_pixel", "exclude_outside": exclude}  # fmt: skip

    x = rng.standard_normal((2, 3, 11, 7)).astype(np.float32)
    return (
        Sample((x,), attrs("linear", 2, 4, 4, 11, False)),
        Sample((x,), attrs("linear", 3, 3, 3, 7, True)),
        Sample((x,), attrs("cubic", 2, 5, 1, 2, False)),
        Sample((x,), attrs("cubic", 3, 14, 2, 1, True), note="larger"),
    )


register(OpDef("resize_antialias", _infer, _reference, Fusion.REDUCTION, compute=_compute, samples=_samples))
