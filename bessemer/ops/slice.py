"""Slice with known bounds (`starts`, `sizes` and `steps` of every axis, symbolic where they depend on input shapes),
Split as slices, and their host forms for bounds that are data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, ceildiv, maximum, minimum
from bessemer.core.interval import Ranges, bounds, compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.bounds import at_most

UNLIMITED = 2**31 - 1  # from here on, exporters mean "to the end"


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, sizes = ctx.type(0), ctx.attr("sizes")
    if not len(ctx.attr("starts")) == len(sizes) == len(ctx.attr("steps")) == x.rank:
        raise ValueError(f"starts, sizes and steps must have one entry for each axis of {x}")
    for k, (start, size, step) in enumerate(zip(ctx.attr("starts"), sizes, ctx.attr("steps"))):
        last = start + (size - 1) * step
        if bounds(size, ctx.ranges)[0] > 0 and any(
            bounds(i, ctx.ranges)[1] < 0 or bounds(i - x.shape[k], ctx.ranges)[0] >= 0 for i in (start, last)
        ):
            raise ValueError(f"a slice from {start} to {last} is outside axis {k} of {x}")
    return (TensorType(x.dtype, tuple(sizes)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (x[tuple(_slice(*bound) for bound in zip(attrs["starts"], attrs["sizes"], attrs["steps"]))],)


def _slice(start: int, size: int, step: int) -> slice:
    stop = start + size * step
    return slice(start, stop if stop >= 0 else None, step) if size else slice(0, 0)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _infer(ctx)
    index = tuple(
        ex.call("add", ex.call("mul", axis, ex.idx(step)), ex.idx(start))
        for axis, start, step in zip(ex.out_axes(out.rank), ctx.attr("starts"), ctx.attr("steps"))
    )
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, index, out.dtype))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((6, 9, 5)).astype(np.float32)
    return [
        Sample((x,), {"starts": (1, 8, 0), "sizes": (4, 3, 5), "steps": (1, -3, 1)}),
        Sample((x,), {"starts": (5, 0, 4), "sizes": (6, 5, 1), "steps": (-1, 2, 1)}),
        Sample((x,), {"starts": (0, 0, 2), "sizes": (6, 0, 2), "steps": (1, 1, 1)}),
        Sample((rng.integers(0, 99, (17,)),), {"starts": (3,), "sizes": (7,), "steps": (2,)}),
    ]


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    """The first and the last element lie in the axis."""
    for start, size, step, d in zip(ctx.attr("starts"), ctx.attr("sizes"), ctx.attr("steps"), ctx.type(0).shape):
        low, high = (start, start + (size - 1) * step)[:: 1 if step > 0 else -1]
        yield from at_most(0, low, ctx.ranges)
        yield from at_most(high + 1, d, ctx.ranges)


register(
    OpDef(
        "slice", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, symbolic=True, taken=_taken
    )
)


# -- bounds -------------------------------------------------------------------------------------------------------


def lesser(a: Dim, b: Dim, ranges: Ranges) -> Dim:
    """min(a, b), decided where the ranges allow it."""
    lo, hi = bounds(a - b, ranges)
    return a if hi <= 0 else b if lo >= 0 else minimum(a, b)


def greater(a: Dim, b: Dim, ranges: Ranges) -> Dim:
    """max(a, b), decided where the ranges allow it."""
    lo, hi = bounds(a - b, ranges)
    return a if lo >= 0 else b if hi <= 0 else maximum(a, b)


def _position(value: Dim, size: Dim, low: Dim, high: Dim, ranges: Ranges) -> Dim:
    """A start or end as ONNX reads it: counted from the end where negative, then clamped to [low, high]."""
    if isinstance(value, int) and abs(value) >= UNLIMITED:
        return high if value > 0 else lesser(low, high, ranges)
    lo, hi = bounds(value, ranges)
    if hi < 0:
        value = value + size
    elif lo < 0:
        value = value + size * minimum(maximum(-1 * value, 0), 1)  # the factor is 1 where the value is negative
    return lesser(greater(value, low, ranges), high, ranges)  # low > high only backwards in an empty axis


def resolve_slice(start: Dim, end: Dim, step: int, size: Dim, ranges: Ranges) -> tuple[Dim, Dim]:
    """(start, size) of an ONNX slice of an axis of `size` elements; ValueError for step 0."""
    if step == 0:
        raise ValueError("a slice has step 0")
    if step > 0:
        first, stop = _position(start, size, 0, size, ranges), _position(end, size, 0, size, ranges)
        return first, greater(ceildiv(stop - first, step), 0, ranges)
    first, stop = _position(start, size, 0, size - 1, ranges), _position(end, size, -1, size - 1, ranges)
    return first, greater(ceildiv(first - stop, -step), 0, ranges)


def emit_slice(ctx: ImportContext, x: str, bounds: Mapping[int, tuple[Dim, Dim, int]]) -> str:
    """`x` cut to (start, size, step) on the axes that `bounds` names."""
    whole = [bounds.get(k, (0, d, 1)) for k, d in enumerate(ctx.shape(x))]
    starts, sizes, steps = zip(*whole) if whole else ((), (), ())
    return ctx.emit("slice", x, starts=starts, sizes=sizes, steps=steps)


def _import_slice(
    ctx: ImportContext, starts: Sequence[Dim], ends: Sequence[Dim], axes: Sequence[int], steps: Sequence[int]
) -> str:
    x = ctx.input(0)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        ctx.unsupported("starts, ends, axes and steps have different lengths")
    cut: dict[int, tuple[Dim, Dim, int]] = {}
    for start, end, a, step in zip(starts, ends, axes, steps):
        axis = ctx.axis(a, ctx.rank(x))
        first, size = resolve_slice(start, end, step, ctx.shape(x)[axis], ctx.ranges)
        cut[axis] = (first, size, step)
    return emit_slice(ctx, x, cut)


@onnx_op("Slice", since=(1,))
def _slice_attributes(ctx: ImportContext) -> Values:
    starts, ends = ctx.attr("starts"), ctx.attr("ends")
    axes = ctx.attr("axes", tuple(range(len(starts))))
    return _import_slice(ctx, starts, ends, axes, (1,) * len(starts))


@onnx_op("Slice", since=(10, 11, 13))
def _slice_inputs(ctx: ImportContext) -> Values:
    starts, ends = ctx.dims(ctx.input(1)), ctx.dims(ctx.input(2))
    (n,) = ctx.shape(ctx.input(1))
    counted = tuple(range(n)) if isinstance(n, int) else None
    axes = ctx.ints(ctx.input(3)) if ctx.has(3) else counted
    steps = ctx.ints(ctx.input(4)) if ctx.has(4) else None if counted is None else (1,) * len(counted)
    if starts is not None and ends is not None and axes is not None and steps is not None:
        return _import_slice(ctx, starts, ends, axes, steps)
    known = None if axes is None else tuple(ctx.axis(a, ctx.rank(ctx.input(0))) for a in axes)
    given = [ctx.inputs[k] if k < len(ctx.inputs) else None for k in range(1, 5)]
    return ctx.emit("slice_dynamic", ctx.input(0), *given, axes=known)


# -- bounds known only at run time --------------------------------------------------------------------------------


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axes = ctx.type(0), ctx.attr("axes")
    assert ctx.fresh is not None
    shape = [ctx.fresh("slice", d) if axes is None or k in axes else d for k, d in enumerate(x.shape)]
    return (TensorType(x.dtype, tuple(shape)),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, starts, ends, axes, steps = inputs
    assert x is not None and starts is not None and ends is not None
    chosen = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), chosen, strides):
        first, size = resolve_slice(start, end, step, x.shape[axis], {})
        assert isinstance(first, int) and isinstance(size, int)
        cut[axis] = _slice(first, size, step)
    return (x[tuple(cut)],)


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((6, 9)).astype(np.float32)
    starts, ends = np.array([-2, 7]), np.array([-100, 1])
    return (
        Sample((x, starts, ends, np.array([0, -1]), np.array([-1, -2])), {"axes": (0, 1)}),
        Sample((x, starts[1:], ends[:1] + 109, np.array([1]), None), {"axes": None}),
    )


register(OpDef("slice_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


# -- Split --------------------------------------------------------------------------------------------------------


def _emit_split(ctx: ImportContext, sizes: Sequence[Dim]) -> Values:
    x = ctx.input(0)
    axis = ctx.axis(ctx.attr("axis", 0), ctx.rank(x))
    shape, whole = ctx.shape(x), sum(sizes, start=0)
    equal = compare(shape[axis], whole, ctx.ranges)[0]
    if equal is False:
        raise ValueError(f"the sizes of the parts add up to {whole}, axis {axis} of {ctx.type(x)} has {shape[axis]}")
    if equal is None:  # a reshape takes the two to be equal, and the slices then are inside
        x = ctx.emit("reshape", x, shape=(*shape[:axis], whole, *shape[axis + 1 :]))
    out: list[str] = []
    start: Dim = 0
    for size in sizes:
        out.append(emit_slice(ctx, x, {axis: (start, size, 1)}))
        start = start + size
    return out


def _even(ctx: ImportContext, parts: int) -> tuple[Dim, ...]:
    """Sizes of `parts` pieces of the split axis; the last ones may be smaller."""
    size = ctx.shape(ctx.input(0))[ctx.axis(ctx.attr("axis", 0), ctx.rank(ctx.input(0)))]
    each = ceildiv(size, parts)
    if isinstance(size, int) and isinstance(each, int):
        return tuple(max(0, min(each, size - k * each)) for k in range(parts))
    return (*(each,) * (parts - 1), size - each * (parts - 1))


@onnx_op("Split", since=(2, 11))
def _split_attribute(ctx: ImportContext) -> Values:
    return _emit_split(ctx, ctx.attr("split", None) or _even(ctx, len(ctx.output_names)))


@onnx_op("Split", since=(13, 18))
def _split_input(ctx: ImportContext) -> Values:
    if not ctx.has(1):
        return _emit_split(ctx, _even(ctx, ctx.attr("num_outputs", len(ctx.output_names))))
    sizes = ctx.dims(ctx.input(1))
    if sizes is not None:
        return _emit_split(ctx, sizes)
    x = ctx.input(0)
    axis = ctx.axis(ctx.attr("axis", 0), ctx.rank(x))
    return ctx.emit_all("split_dynamic", x, ctx.input(1), axis=axis, parts=len(ctx.output_names))


def _split_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis = ctx.type(0), ctx.attr("axis")
    assert ctx.fresh is not None
    sizes = [ctx.fresh("split", x.shape[axis]) for _ in range(ctx.attr("parts"))]
    return tuple(TensorType(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 :])) for size in sizes)


def _split_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, sizes = inputs
    assert x is not None and sizes is not None
    return tuple(np.split(x, np.cumsum(sizes)[:-1], attrs["axis"]))


def _split_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((6, 9)).astype(np.float32)
    return (Sample((x, np.array([2, 0, 7])), {"axis": 1, "parts": 3}),)


register(OpDef("split_dynamic", _split_infer, _split_reference, Fusion.HOST, samples=_split_samples))
