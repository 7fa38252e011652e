"""Pad with a constant, by reflection, with the edge, or cyclically.

`pads` are begin..., end...; with mode "constant" they may be negative, which cuts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.interval import bounds
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.bounds import at_most
from bessemer.ops.slice import emit_slice, greater

MODES = ("constant", "reflect", "edge", "wrap")


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, pads, mode = ctx.type(0), ctx.attr("pads"), ctx.attr("mode")
    if mode not in MODES:
        raise ValueError(f"unknown pad mode {mode!r}; known: {', '.join(MODES)}")
    if len(pads) != 2 * x.rank:
        raise ValueError(f"{len(pads)} pads for {x}")
    if mode != "constant" and any(bounds(p, ctx.ranges)[0] < 0 for p in pads):
        raise ValueError(f"pads {pads} may be negative, which mode {mode!r} does not take")
    if ctx.has(1) and (ctx.type(1).dtype != x.dtype or ctx.type(1).numel != 1):
        raise ValueError(f"the value must be one {x.dtype}, not {ctx.type(1)}")
    return (TensorType(x.dtype, tuple(b + d + e for b, d, e in zip(pads, x.shape, pads[x.rank :]))),)


def _pad(x: np.ndarray, pads: Sequence[int], mode: str, value: Any) -> np.ndarray:
    begins, ends = pads[: x.ndim], pads[x.ndim :]
    cut = tuple(slice(max(0, -b), d - max(0, -e)) for b, d, e in zip(begins, x.shape, ends))
    widths = [(max(0, b), max(0, e)) for b, e in zip(begins, ends)]
    if mode == "constant":
        return np.pad(x[cut], widths, constant_values=value)
    return np.pad(x[cut], widths, mode=mode)  # type: ignore[call-overload,no-any-return]


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x = inputs[0]
    assert x is not None
    given = inputs[1] if len(inputs) > 1 else None
    return (_pad(x, attrs["pads"], attrs["mode"], 0 if given is None else given.reshape(())),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _infer(ctx)
    x, mode = ctx.type(0), ctx.attr("mode")
    index: list[ex.Expr] = []
    inside: ex.Expr = ex.lit(True, dt.bool_)
    for axis, size, begin, end in zip(ex.out_axes(out.rank), x.shape, ctx.attr("pads"), ctx.attr("pads")[x.rank :]):
        at = ex.call("sub", axis, ex.idx(begin))
        if mode == "constant":
            lower = ex.call("ge", at, ex.lit(0, dt.i64)) if begin != 0 else None
            upper = ex.call("lt", at, ex.idx(size)) if end != 0 else None
            for test in (lower, upper):
                if test is not None:
                    inside = test if isinstance(inside, ex.Lit) else ex.call("and", inside, test)
        elif begin != 0 or end != 0:
            at = _source(mode, at, size)
        index.append(at)
    element = ex.load(0, tuple(index), x.dtype)
    if isinstance(inside, ex.Lit):
        return ex.ComputeDef(out.shape, out.dtype, element)
    zero = (ex.lit(0, dt.i64),) * (ctx.type(1).rank if ctx.has(1) else 0)
    value = ex.load(1, zero, x.dtype) if ctx.has(1) else ex.lit(0, x.dtype)
    return ex.ComputeDef(out.shape, out.dtype, ex.Select(inside, element, value))


def _source(mode: str, at: ex.Expr, size: Dim) -> ex.Expr:
    """Where the element at coordinate `at` of the operand's frame (outside it too) comes from."""
    if mode == "wrap":
        return ex.call("floormod", at, ex.idx(size))
    last = ex.idx(size - 1)
    if mode == "edge":
        return ex.call("max", ex.call("min", at, last), ex.lit(0, dt.i64))
    period = ex.call("max", ex.idx(2 * (size - 1)), ex.lit(1, dt.i64))  # 1 where there is a single element
    phase = ex.call("floormod", at, period)
    return ex.call("min", phase, ex.call("sub", period, phase)) if size != 1 else ex.lit(0, dt.i64)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((4, 5, 3)).astype(np.float32)
    whole = rng.integers(0, 9, (2, 7)).astype(np.int8)
    value = np.array(rng.standard_normal(), np.float32)
    pads = (1, 0, 2, 0, 3, 1)
    return [
        *(Sample((x,), {"pads": pads, "mode": mode}, note=mode) for mode in MODES),
        Sample((x, value), {"pads": pads, "mode": "constant"}),
        Sample((x, value), {"pads": (-1, 2, 0, 1, -2, 0), "mode": "constant"}),
        *(Sample((whole,), {"pads": (3, 9, 2, 20), "mode": mode}, note=f"{mode}, far") for mode in MODES),
        *(Sample((whole[:, :1],), {"pads": (0, 2, 0, 3), "mode": mode}, note=f"{mode}, one") for mode in MODES),
        Sample((x,), {"pads": (0,) * 6, "mode": "constant"}),
    ]


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    """There is something to copy where copies of the data are added."""
    x, pads = ctx.type(0), ctx.attr("pads")
    for begin, end, size in zip(pads, pads[x.rank :], x.shape):
        if ctx.attr("mode") != "constant" and (begin != 0 or end != 0):
            yield from at_most(1, size, ctx.ranges)


register(OpDef("pad", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, taken=_taken))


# -- pads known only at run time ----------------------------------------------------------------------------------


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x = ctx.type(0)
    return (TensorType(x.dtype, tuple(ctx.fresh("pad", None) for _ in x.shape)),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, pads, value, axes = inputs
    assert x is not None and pads is not None
    chosen = list(range(x.ndim)) if axes is None else [int(a) % x.ndim for a in axes]
    full = [0] * (2 * x.ndim)
    for k, axis in enumerate(chosen):
        full[axis], full[axis + x.ndim] = int(pads[k]), int(pads[k + len(chosen)])
    return (_pad(x, full, attrs["mode"], 0 if value is None else value.reshape(())),)


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((4, 5)).astype(np.float32)
    return (
        Sample((x, np.array([1, 2]), None, np.array([-1])), {"mode": "reflect"}),
        Sample((x, np.array([1, 0, 0, -1]), np.array(2, np.float32), None), {"mode": "constant"}),
    )


register(OpDef("pad_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


# -- ONNX ---------------------------------------------------------------------------------------------------------


def emit_pad(ctx: ImportContext, x: str, pads: Sequence[Dim], mode: str = "constant", value: str | None = None) -> str:
    """`x` padded; negative pads of the copying modes are cut off first, as ONNX has it."""
    rank = ctx.rank(x)
    if mode != "constant" and any(bounds(p, ctx.ranges)[0] < 0 for p in pads):
        cut = {}
        for k, d in enumerate(ctx.shape(x)):
            begin, end = (greater(-1 * p, 0, ctx.ranges) for p in (pads[k], pads[k + rank]))
            cut[k] = (begin, d - begin - end, 1)
        x, pads = emit_slice(ctx, x, cut), [greater(p, 0, ctx.ranges) for p in pads]
    operands = (x,) if value is None else (x, value)
    return ctx.emit("pad", *operands, pads=tuple(pads), mode=mode)


@onnx_op("Pad", since=(2,))
def _pad_attributes(ctx: ImportContext) -> Values:
    x, value = ctx.input(0), ctx.attr("value", 0.0)
    fill = None if value == 0.0 else ctx.const(value, ctx.dtype(x))
    return emit_pad(ctx, x, ctx.attr("pads"), ctx.attr("mode", "constant"), fill)


@onnx_op("Pad", since=(11, 13, 18, 19, 21, 23, 24, 25))
def _pad_inputs(ctx: ImportContext) -> Values:
    x, pads, mode = ctx.input(0), ctx.dims(ctx.input(1)), ctx.attr("mode", "constant")
    value = ctx.input(2) if ctx.has(2) and mode == "constant" else None
    axes = ctx.ints(ctx.input(3)) if ctx.has(3) else tuple(range(ctx.rank(x)))
    if pads is None or axes is None:
        return ctx.emit("pad_dynamic", x, ctx.input(1), value, ctx.input(3) if ctx.has(3) else None, mode=mode)
    full: list[Dim] = [0] * (2 * ctx.rank(x))
    for k, a in enumerate(axes):
        axis = ctx.axis(a, ctx.rank(x))
        full[axis], full[axis + ctx.rank(x)] = pads[k], pads[k + len(axes)]
    return emit_pad(ctx, x, full, mode, value)
