"""Reductions over axes: one op `reduce` whose `kind` says what; `argmax` and `argmin`.

16-bit floats accumulate in f32, integers in their own dtype, where they wrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops import symbolic
from bessemer.ops.dynamic import length, vector

ONNX_KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ReduceSum": ("sum", (1, 11, 13)),
    "ReduceProd": ("prod", (1, 11, 13, 18)),
    "ReduceMax": ("max", (1, 11, 12, 13, 18, 20)),
    "ReduceMin": ("min", (1, 11, 12, 13, 18, 20)),
    "ReduceMean": ("mean", (1, 11, 13, 18)),
    "ReduceL1": ("l1", (1, 11, 13, 18)),
    "ReduceL2": ("l2", (1, 11, 13, 18)),
    "ReduceSumSquare": ("sum_square", (1, 11, 13, 18)),
    "ReduceLogSum": ("log_sum", (1, 11, 13, 18, 28)),
    "ReduceLogSumExp": ("log_sum_exp", (1, 11, 13, 18, 28)),
}
KINDS = tuple(kind for kind, _ in ONNX_KINDS.values() if kind != "log_sum_exp")  # that one is composed of others


def reduced_shape(shape: tuple[Dim, ...], axes: Sequence[int], keepdims: bool) -> tuple[Dim, ...]:
    """The shape after reducing over `axes`."""
    return tuple(1 if k in axes else d for k, d in enumerate(shape) if keepdims or k not in axes)


def reduced_index(rank: int, axes: Sequence[int], keepdims: bool) -> tuple[ex.Expr, ...]:
    """The operand's index under the output's coordinates; axis k of `axes` runs over Axis("r{k}")."""
    kept = iter(ex.out_axes(rank))
    index: list[ex.Expr] = []
    for k in range(rank):
        if k in axes:
            index.append(ex.Axis(f"r{k}"))
            if keepdims:
                next(kept)
        else:
            index.append(next(kept))
    return tuple(index)


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axes = ctx.type(0), ctx.attr("axes")
    if ctx.attr("kind") not in KINDS:
        raise ValueError(f"unknown reduction {ctx.attr('kind')!r}; known: {', '.join(KINDS)}")
    if any(not 0 <= a < x.rank for a in axes) or tuple(sorted(set(axes))) != axes:
        raise ValueError(f"axes {axes} are not sorted axes of {x}")
    return (TensorType(x.dtype, reduced_shape(x.shape, axes, ctx.attr("keepdims"))),)


# -- reference ----------------------------------------------------------------------------------------------------


def _sum(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    return np.sum(x, axis=axes, keepdims=keepdims, dtype=wide)


def _mean(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    total = np.asarray(_sum(x, axes, keepdims))
    count = math.prod(x.shape[a] for a in axes)
    return total / count if x.dtype.kind == "f" else np.trunc(total.astype(np.longdouble) / count)


def _extreme(kind: str) -> Callable[..., Any]:
    def run(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
        if x.dtype == object:
            return symbolic.reduce_extreme(kind, x, axes, keepdims)
        return (np.max if kind == "max" else np.min)(x, axis=axes, keepdims=keepdims, initial=_worst(kind, x.dtype))

    return run


def _worst(kind: str, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return kind == "min"
    if dtype.kind == "f":
        return -np.inf if kind == "max" else np.inf
    return np.iinfo(dtype).min if kind == "max" else np.iinfo(dtype).max


def _log_sum_exp(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> Any:
    peak = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    peak = np.where(np.isinf(peak), 0, peak)
    out = np.log(np.sum(np.exp(x - peak), axis=axes, keepdims=True)) + peak
    return out if keepdims else np.squeeze(out, axes)


REFERENCES: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "prod": lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep, dtype=x.dtype),
    "max": _extreme("max"),
    "min": _extreme("min"),
    "mean": _mean,
    "l1": lambda x, axes, keep: _sum(np.abs(x), axes, keep),
    "l2": lambda x, axes, keep: np.sqrt(_sum(_wide(x) ** 2, axes, keep)),
    "sum_square": lambda x, axes, keep: _sum(_wide(x) ** 2, axes, keep),
    "log_sum": lambda x, axes, keep: np.log(_sum(x, axes, keep)),
    "log_sum_exp": lambda x, axes, keep: _log_sum_exp(x.astype(np.float64), axes, keep),
}


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _reduce(x: np.ndarray, kind: str, axes: tuple[int, ...], keepdims: bool) -> tuple[np.ndarray, ...]:
    out = np.asarray(REFERENCES[kind](x, axes, keepdims), dtype=object if x.dtype == object else None)
    return (out if x.dtype == object else out.astype(x.dtype),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return _reduce(x, attrs["kind"], tuple(attrs["axes"]), attrs["keepdims"])


# -- compute definition -------------------------------------------------------------------------------------------


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _infer(ctx)
    x, axes, kind = ctx.type(0), ctx.attr("axes"), ctx.attr("kind")
    acc = dt.accumulator(x.dtype)
    extents = tuple((f"r{a}", x.shape[a]) for a in axes)
    body = ex.cast(ex.load(0, reduced_index(x.rank, axes, ctx.attr("keepdims")), x.dtype), acc)
    if kind == "l1":
        body = ex.call("abs", body)
    elif kind in ("l2", "sum_square"):
        body = ex.call("mul", body, body)
    total: ex.Expr = ex.Reduce(_reducer(kind, x.dtype), extents, body, acc) if axes else body
    if kind == "mean":
        total = ex.call("div", total, ex.cast(ex.idx(product(x.shape[a] for a in axes)), acc))
    elif kind in ("l2", "log_sum"):
        real = acc if acc.is_float else dt.f64
        total = ex.cast(ex.call("sqrt" if kind == "l2" else "log", ex.cast(total, real)), acc)
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _reducer(kind: str, dtype: DType) -> str:
    if kind in ("max", "min"):
        return {"max": "any", "min": "all"}[kind] if dtype == dt.bool_ else kind
    return "prod" if kind == "prod" else "sum"


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = (rng.uniform(0.3, 2, (3, 5, 7))).astype(np.float32)
    signed = (rng.standard_normal((4, 9, 2)) + 1).astype(np.float32)  # of both signs, but sums do not cancel
    out = [Sample((x,), {"kind": k, "axes": (1,), "keepdims": False}, note=k) for k in KINDS]
    for axes, keepdims in (((0, 2), True), ((0, 1, 2), False), ((2,), True), ((), True)):
        for kind in ("sum", "max", "mean", "l2"):
            out.append(Sample((signed,), {"kind": kind, "axes": axes, "keepdims": keepdims}, note=f"{kind} {axes}"))
    for array in (signed.astype(np.float16), rng.integers(-9, 9, (4, 6)), rng.integers(-9, 9, (4, 6)).astype(np.int32)):
        for kind in ("sum", "min", "mean", "sum_square"):
            out.append(Sample((array,), {"kind": kind, "axes": (1,), "keepdims": False}, note=f"{kind} {array.dtype}"))
    truth = rng.integers(0, 2, (3, 4)).astype(bool)
    empty = np.zeros((2, 0, 3), np.float32)
    out += [Sample((truth,), {"kind": k, "axes": (1,), "keepdims": False}, note=f"{k} bool") for k in ("max", "min")]
    out += [Sample((empty,), {"kind": k, "axes": (1,), "keepdims": True}, note=f"{k} of none") for k in ("sum", "max")]
    return out


register(OpDef("reduce", _infer, _reference, Fusion.REDUCTION, compute=_compute, samples=_samples, symbolic=True))


# -- axes known only at run time ----------------------------------------------------------------------------------


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, count = ctx.type(0), length(ctx, 1)
    assert ctx.fresh is not None
    if count == 0:
        whole = () if not ctx.attr("noop_with_empty_axes") else x.shape
        return (TensorType(x.dtype, (1,) * x.rank if not whole and ctx.attr("keepdims") else whole),)
    if count == x.rank:
        return (TensorType(x.dtype, (1,) * x.rank if ctx.attr("keepdims") else ()),)
    rank = x.rank if ctx.attr("keepdims") else x.rank - count
    return (TensorType(x.dtype, tuple(ctx.fresh("reduce", None) for _ in range(rank))),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, given = inputs
    assert x is not None and given is not None
    axes = tuple(sorted(int(a) % x.ndim for a in given))
    if not axes and not attrs["noop_with_empty_axes"]:
        axes = tuple(range(x.ndim))
    return _reduce(x, attrs["kind"], axes, attrs["keepdims"])


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    attrs: dict[str, Attr] = {"kind": "sum", "keepdims": True, "noop_with_empty_axes": False}
    return (Sample((x, np.array([-1, 0])), attrs), Sample((x, np.array([1])), {**attrs, "keepdims": False}))


register(OpDef("reduce_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


# -- ONNX ---------------------------------------------------------------------------------------------------------


def _given_axes(ctx: ImportContext, rank: int) -> tuple[int, ...] | None:
    """The axes of a Reduce* node, sorted; None where they are known only at run time."""
    noop = bool(ctx.attr("noop_with_empty_axes", 0))
    given = ctx.attr("axes", ()) if not ctx.has(1) else ctx.ints(ctx.input(1))
    if given is None:
        return None
    return tuple(sorted({ctx.axis(a, rank) for a in given})) or (() if noop else tuple(range(rank)))


def _import_reduce(kind: str) -> Callable[[ImportContext], Values]:
    def importer(ctx: ImportContext) -> Values:
        x, keepdims = ctx.input(0), bool(ctx.attr("keepdims", 1))
        axes = _given_axes(ctx, ctx.rank(x))
        if axes is None:
            noop = bool(ctx.attr("noop_with_empty_axes", 0))
            attrs: dict[str, Attr] = {"kind": kind, "keepdims": keepdims, "noop_with_empty_axes": noop}
            return ctx.emit("reduce_dynamic", x, vector(ctx, 1), **attrs)
        if kind == "log_sum_exp":
            return _emit_log_sum_exp(ctx, x, axes, keepdims)
        return ctx.emit("reduce", x, kind=kind, axes=axes, keepdims=keepdims)

    return importer


def _emit_log_sum_exp(ctx: ImportContext, x: str, axes: tuple[int, ...], keepdims: bool) -> str:
    """log(sum(exp(x - m))) + m with m the maximum, or 0 where that is infinite."""
    dtype, shape = ctx.dtype(x), reduced_shape(ctx.shape(x), axes, keepdims)
    if not dtype.is_float:
        return ctx.cast(_emit_log_sum_exp(ctx, ctx.cast(x, dt.f64), axes, keepdims), dtype)
    peak = ctx.emit("reduce", x, kind="max", axes=axes, keepdims=True)
    infinite = ctx.emit("isinf", peak, positive=True, negative=True)
    peak = ctx.emit("where", infinite, ctx.const(0, dtype), peak)
    total = ctx.emit("reduce", ctx.emit("exp", ctx.emit("sub", x, peak)), kind="sum", axes=axes, keepdims=True)
    out = ctx.emit("add", ctx.emit("log", total), peak)
    return out if keepdims else ctx.emit("reshape", out, shape=shape)


for _name, (_kind, _since) in ONNX_KINDS.items():
    onnx_op(_name, since=_since)(_import_reduce(_kind))
