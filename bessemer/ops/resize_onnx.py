"""ONNX Resize and Upsample: which sizes and scales a node means, known at import or (`resize_dynamic`) at run time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, floordiv
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import OPS, Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.interpolation import ratio, scaled_size
from bessemer.ops.resize import CROP, resize_attrs

Scale = tuple[Dim, Dim]  # numerator, denominator
log = logging.getLogger(__name__)


def _of_scales(shape: Sequence[Dim], axes: Sequence[int], scales: Sequence[float]) -> tuple[list[Dim], list[Scale]]:
    out, ratios = list(shape), [(1, 1)] * len(shape)
    scale: list[Scale] = list(ratios)
    for axis, value in zip(axes, scales, strict=True):
        exact = ratio(value)
        if exact <= 0:
            raise ValueError(f"scale {value} of axis {axis} is not positive")
        out[axis], scale[axis] = scaled_size(shape[axis], exact), (exact.numerator, exact.denominator)
    return out, scale


def _of_sizes(
    shape: Sequence[Dim], axes: Sequence[int], sizes: Sequence[Dim], policy: str
) -> tuple[list[Dim], list[Scale]]:
    out, scale = list(shape), [(d, d) for d in shape]
    if policy == "stretch":
        for axis, size in zip(axes, sizes, strict=True):
            out[axis], scale[axis] = size, quotient(size, shape[axis])
        return out, scale
    wanted, have = [d for d in sizes if isinstance(d, int)], {a: d for a in axes if isinstance(d := shape[a], int)}
    if len(wanted) != len(sizes) or len(have) != len(axes):
        raise ValueError(f"keep_aspect_ratio_policy {policy} needs fixed sizes")
    ratios = [Fraction(size, have[axis]) for axis, size in zip(axes, wanted, strict=True)]
    common = min(ratios) if policy == "not_larger" else max(ratios)
    for axis in axes:
        whole = have[axis] * common + Fraction(1, 2)  # halves round up
        out[axis], scale[axis] = whole.numerator // whole.denominator, (common.numerator, common.denominator)
    return out, scale


def quotient(size: Dim, length: Dim) -> Scale:
    """size / length, as a whole number or its inverse where one is a multiple of the other."""
    for a, b, whole in ((size, length, True), (length, size, False)):
        times = floordiv(a, b) if b != 0 else 0
        if isinstance(times, int) and times > 0 and times * b == a:
            return (times, 1) if whole else (1, times)
    return size, length


def _spread_roi(roi: Sequence[float], axes: Sequence[int], rank: int) -> tuple[float, ...]:
    """starts and ends for every axis, the whole of it where `axes` leaves it out."""
    starts, ends = [0.0] * rank, [1.0] * rank
    for k, axis in enumerate(axes):
        starts[axis], ends[axis] = float(roi[k]), float(roi[len(axes) + k])
    return (*starts, *ends)


def _resolve(shape: Sequence[Dim], attrs: Mapping[str, Any], scales: Any, sizes: Any, roi: Any) -> dict[str, Any]:
    """Attributes of `resize` for data of `shape`; exactly one of `scales` and `sizes` is given."""
    axes = attrs["axes"]
    if sizes is not None:
        out, scale = _of_sizes(shape, axes, sizes, attrs["policy"])
    else:
        out, scale = _of_scales(shape, axes, scales)
    rounding = attrs["rounding"]
    if rounding == "simple":  # opset 10: downwards when enlarging, upwards when shrinking
        shrinking = {ratio(s) < 1 for s in scales if s != 1} or {False}
        if len(shrinking) > 1:
            raise ValueError("opset 10 does not say how nearest rounds where one axis grows and another shrinks")
        rounding = "ceil" if shrinking.pop() else "floor"
    more = {k: attrs[k] for k in ("mode", "coordinates", "cubic_a", "exclude_outside", "extrapolation")}
    if attrs["coordinates"] == CROP:
        more["roi"] = _spread_roi(roi, axes, len(shape))
    return resize_attrs(out, [s[0] for s in scale], [s[1] for s in scale], rounding=rounding, **more)


def _antialias_steps(shape: Sequence[Dim], attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A `resize_antialias` per resized axis."""
    kept = {k: attrs[k] for k in ("mode", "coordinates", "cubic_a", "exclude_outside")}
    steps = enumerate(zip(shape, attrs["shape"], attrs["scale_num"], attrs["scale_den"], strict=True))
    return [
        {"axis": k, "size": out, "scale_num": num, "scale_den": den, **kept}
        for k, (size, out, num, den) in steps
        if out != size or num != den
    ]


# -- sizes, scales or roi that are data -----------------------------------------------------------------------------


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axes = ctx.type(0), ctx.attr("axes")
    assert ctx.fresh is not None
    return (TensorType(x.dtype, tuple(ctx.fresh("resize", None) if k in axes else d for k, d in enumerate(x.shape))),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, roi, scales, sizes = inputs
    assert x is not None
    wanted = None if sizes is None else [int(s) for s in sizes]
    resolved = _resolve(x.shape, attrs, scales, wanted, roi)
    if not attrs["antialias"]:
        return OPS.get("resize").reference((x,), resolved)
    for step in _antialias_steps(x.shape, resolved):
        (x,) = OPS.get("resize_antialias").reference((x,), step)
    return (x,)


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((1, 2, 4, 5)).astype(np.float32)
    attrs: dict[str, Any] = {
        "axes": (2, 3), "policy": "stretch", "antialias": False, "mode": "nearest", "coordinates": "asymmetric",
        "rounding": "floor", "cubic_a": -0.75, "exclude_outside": False, "extrapolation": 0.0,
    }  # fmt: skip
    return (
        Sample((x, None, np.array([2, 1.5], np.float32), None), attrs),
        Sample((x, None, None, np.array([3, 3])), {**attrs, "mode": "linear", "policy": "not_larger"}),
    )


register(OpDef("resize_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


# -- importers ------------------------------------------------------------------------------------------------------


def _emit(ctx: ImportContext, attrs: dict[str, Any], roi: str | None, scales: Any, sizes: str | None) -> str:
    """`scales` is a value or a tuple of floats."""
    x = ctx.input(0)
    known_scales = ctx.value(scales) if isinstance(scales, str) else scales
    known_sizes = None if sizes is None else ctx.dims(sizes)
    known_roi = None if roi is None else ctx.value(roi)
    if (known_scales is None and known_sizes is None) or (attrs["coordinates"] == CROP and known_roi is None):
        if attrs["coordinates"] == CROP and roi is None:
            ctx.unsupported(f"{CROP} without roi")
        if isinstance(scales, tuple):
            ctx.unsupported(f"{CROP} with a roi that is data")
        return ctx.emit("resize_dynamic", x, roi, scales, sizes, **attrs)
    try:
        resolved = _resolve(ctx.shape(x), attrs, known_scales, known_sizes, known_roi)
    except ValueError as error:
        ctx.unsupported(str(error))
    if known_sizes is None and attrs["coordinates"] == "align_corners":
        _warn_of_parts(ctx, ctx.shape(x), resolved)
    if not attrs["antialias"]:
        return ctx.emit("resize", x, **resolved)
    if attrs["coordinates"] == CROP:
        ctx.unsupported(f"antialias with {CROP}")
    for step in _antialias_steps(ctx.shape(x), resolved):
        x = ctx.emit("resize_antialias", x, **step)
    return x


def _warn_of_parts(ctx: ImportContext, shape: Sequence[Dim], resolved: Mapping[str, Any]) -> None:
    """Corners are aligned to size * scale in ONNX's definition and its tests, to that rounded down in what models are
    exported from and compared with."""
    for size, num, den in zip(shape, resolved["scale_num"], resolved["scale_den"], strict=True):
        if num % den and not (isinstance(size, int) and size * num % den == 0):
            log.warning(
                "Resize %s aligns corners at a scale of %s, which gives no whole size of %s: by ONNX's definition, "
                "where PyTorch and onnxruntime take the size rounded down; export it with the size, not the scale",
                ctx.name, Fraction(num, den), size,
            )  # fmt: skip
            return


def _attrs(ctx: ImportContext, mode: str, coordinates: str, rounding: str) -> dict[str, Any]:
    rank = ctx.rank(ctx.input(0))
    axes = tuple(ctx.axis(a, rank) for a in ctx.attr("axes", tuple(range(rank))))
    return {
        "axes": axes, "policy": ctx.attr("keep_aspect_ratio_policy", "stretch"),
        "antialias": bool(ctx.attr("antialias", 0)) and mode != "nearest", "mode": mode, "coordinates": coordinates,
        "rounding": rounding, "cubic_a": ctx.attr("cubic_coeff_a", -0.75),
        "exclude_outside": bool(ctx.attr("exclude_outside", 0)), "extrapolation": ctx.attr("extrapolation_value", 0.0),
    }  # fmt: skip


@onnx_op("Resize", since=(11, 13, 18, 19))
def _import_resize(ctx: ImportContext) -> Values:
    mode, coordinates = ctx.attr("mode", "nearest"), ctx.attr("coordinate_transformation_mode", "half_pixel")
    attrs = _attrs(ctx, mode, coordinates, ctx.attr("nearest_mode", "round_prefer_floor"))
    roi, scales, sizes = (ctx.inputs[k] if ctx.has(k) and ctx.shape(ctx.input(k)) != (0,) else None for k in (1, 2, 3))
    if (scales is None) == (sizes is None):
        ctx.unsupported("exactly one of scales and sizes must be given")
    return _emit(ctx, attrs, roi, scales, sizes)


@onnx_op("Resize", since=(10,))
def _import_resize_10(ctx: ImportContext) -> Values:
    attrs = _attrs(ctx, ctx.attr("mode", "nearest"), "asymmetric", "simple")
    return _emit(ctx, attrs, None, ctx.input(1), None)


@onnx_op("Upsample", since=(7, 9))
def _import_upsample(ctx: ImportContext) -> Values:
    attrs = _attrs(ctx, ctx.attr("mode", "nearest"), "asymmetric", "floor")
    scales = tuple(ctx.attr("scales")) if ctx.since == 7 else ctx.input(1)
    return _emit(ctx, attrs, None, scales, None)
