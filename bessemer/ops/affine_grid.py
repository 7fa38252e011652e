"""AffineGrid: op `affine_grid`, the coordinates that GridSample takes, moved by an affine map per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, maximum
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.dynamic import length, vector


def _check(theta: TensorType, rank: int) -> None:
    if theta.rank != 3 or theta.shape[1:] != (rank, rank + 1) or not theta.dtype.is_float:
        raise ValueError(f"affine_grid of {rank} spatial axes takes maps [N, {rank}, {rank + 1}], not {theta}")


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    theta, sizes = ctx.type(0), tuple(ctx.attr("sizes"))
    _check(theta, len(sizes))
    return (TensorType(theta.dtype, (theta.shape[0], *sizes, len(sizes))),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (theta,) = inputs
    assert theta is not None
    return (_grid(theta, [int(s) for s in attrs["sizes"]], attrs["align_corners"]),)


def _grid(theta: np.ndarray, sizes: Sequence[int], align: bool) -> np.ndarray:
    """[N, *sizes, rank], the last spatial axis first."""
    lines = [-1 + 2 * np.arange(n) / max(n - 1, 1) if align else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    places = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(tuple(sizes))], -1)
    wide = theta.astype(np.float64).reshape(len(theta), *(1,) * len(sizes), *theta.shape[1:])
    return np.asarray((wide @ places[..., None])[..., 0]).astype(theta.dtype)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    theta, (out,), sizes = ctx.type(0), _infer(ctx), ctx.attr("sizes")
    axes, rank = ex.out_axes(out.rank), len(sizes)
    real = dt.accumulator(theta.dtype)
    total: ex.Expr = ex.cast(ex.load(0, (axes[0], axes[-1], ex.idx(rank)), theta.dtype), real)
    for k in range(rank):
        factor = ex.cast(ex.load(0, (axes[0], axes[-1], ex.idx(k)), theta.dtype), real)
        at = _coordinate(axes[rank - k], sizes[rank - 1 - k], ctx.attr("align_corners"), real)
        total = ex.call("add", total, ex.call("mul", factor, at))
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _coordinate(i: ex.Expr, size: Dim, align: bool, real: DType) -> ex.Expr:
    twice = ex.call("mul", i, ex.idx(2))
    first = twice if align else ex.call("add", twice, ex.idx(1))
    count = maximum(size - 1, 1) if align else size
    return ex.call("sub", ex.call("div", ex.cast(first, real), ex.cast(ex.idx(count), real)), ex.lit(1, real))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    plane, space = (rng.standard_normal((2, r, r + 1)).astype(np.float32) for r in (2, 3))
    return (
        Sample((plane,), {"sizes": (4, 5), "align_corners": False}),
        Sample((plane,), {"sizes": (1, 6), "align_corners": True}),
        Sample((space,), {"sizes": (2, 3, 4), "align_corners": True}),
    )


register(OpDef("affine_grid", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples))


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    theta, rank = ctx.type(0), length(ctx, 1) - 2
    _check(theta, rank)
    assert ctx.fresh is not None
    return (TensorType(theta.dtype, (theta.shape[0], *(ctx.fresh("grid", None) for _ in range(rank)), rank)),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    theta, size = inputs
    assert theta is not None and size is not None
    return (_grid(theta, [int(s) for s in size[2:]], attrs["align_corners"]),)


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    theta = rng.standard_normal((2, 2, 3)).astype(np.float32)
    return (Sample((theta, np.array([2, 1, 3, 4])), {"align_corners": True}),)


register(OpDef("affine_grid_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


@onnx_op("AffineGrid", since=(20,))
def _import(ctx: ImportContext) -> Values:
    theta, align = ctx.input(0), bool(ctx.attr("align_corners", 0))
    size = ctx.dims(ctx.input(1))
    if size is None:
        return ctx.emit("affine_grid_dynamic", theta, vector(ctx, 1), align_corners=align)
    return ctx.emit("affine_grid", theta, sizes=size[2:], align_corners=align)
