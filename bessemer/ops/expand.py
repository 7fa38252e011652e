"""Repetition: expand (broadcast to a shape) and tile, and their host forms for shapes that are data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import broadcast_index, broadcast_shapes
from bessemer.ops.dynamic import length, vector


def _expand_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, shape = ctx.type(0), tuple(ctx.attr("shape"))
    if len(shape) < x.rank or broadcast_shapes([x.shape, shape], ctx.ranges) != shape:
        raise ValueError(f"cannot expand {x} to [{', '.join(map(str, shape))}]")
    return (TensorType(x.dtype, shape),)


def _expand_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (np.broadcast_to(x, attrs["shape"]),)


def _expand_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _expand_infer(ctx)
    index = broadcast_index(ctx.type(0).shape, out.shape, ex.out_axes(out.rank), ctx.ranges)
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, index, out.dtype))


def _expand_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 1, 5)).astype(np.float32)
    return [
        Sample((x,), {"shape": (3, 4, 5)}),
        Sample((x,), {"shape": (2, 3, 1, 5)}),
        Sample((x[0, 0, 0].reshape(()),), {"shape": (2, 7)}),
        Sample((x[:, 0, :1] > 0,), {"shape": (3, 9)}),
    ]


register(
    OpDef(
        "expand", _expand_infer, _expand_reference, Fusion.INJECTIVE,
        compute=_expand_compute, samples=_expand_samples, symbolic=True,
    )
)  # fmt: skip


def emit_expand(ctx: ImportContext, x: str, shape: Sequence[Any]) -> str:
    """`x` broadcast to `shape`; itself where it has it."""
    return x if ctx.shape(x) == tuple(shape) else ctx.emit("expand", x, shape=tuple(shape))


@onnx_op("Expand", since=(8, 13))
def _expand(ctx: ImportContext) -> Values:
    x, wanted = ctx.input(0), ctx.dims(ctx.input(1))
    if wanted is None:
        return ctx.emit("expand_dynamic", x, vector(ctx, 1))
    return emit_expand(ctx, x, broadcast_shapes([ctx.shape(x), wanted], ctx.ranges))


def _expand_dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    assert ctx.fresh is not None
    return (TensorType(x.dtype, tuple(ctx.fresh("expand", None) for _ in range(max(x.rank, length(ctx, 1))))),)


def _expand_dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, target = inputs
    assert x is not None and target is not None
    return (np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(target.tolist()))),)


def _expand_dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.standard_normal((3, 1)).astype(np.float32), np.array([2, 1, 4]))),)


register(
    OpDef(
        "expand_dynamic", _expand_dynamic_infer, _expand_dynamic_reference, Fusion.HOST,
        samples=_expand_dynamic_samples,
    )
)  # fmt: skip


# -- tile ---------------------------------------------------------------------------------------------------------


def _tile_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, repeats = ctx.type(0), ctx.attr("repeats")
    if len(repeats) != x.rank:
        raise ValueError(f"{len(repeats)} repeats for {x}")
    return (TensorType(x.dtype, tuple(d * r for d, r in zip(x.shape, repeats))),)


def _tile_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (np.tile(x, attrs["repeats"]),)


def _tile_compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _tile_infer(ctx)
    index = tuple(
        axis if repeat == 1 else ex.call("floormod", axis, ex.idx(size))
        for axis, size, repeat in zip(ex.out_axes(out.rank), ctx.type(0).shape, ctx.attr("repeats"))
    )
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, index, out.dtype))


def _tile_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 1, 5)).astype(np.float32)
    return (
        Sample((x,), {"repeats": (2, 3, 1)}),
        Sample((x,), {"repeats": (1, 1, 4)}),
        Sample((rng.integers(0, 9, 7),), {"repeats": (3,)}),
        Sample((x,), {"repeats": (0, 2, 1)}),
    )


register(
    OpDef(
        "tile", _tile_infer, _tile_reference, Fusion.INJECTIVE,
        compute=_tile_compute, samples=_tile_samples, symbolic=True,
    )
)  # fmt: skip


@onnx_op("Tile", since=(6, 13))
def _tile(ctx: ImportContext) -> Values:
    x, repeats = ctx.input(0), ctx.dims(ctx.input(1))
    return ctx.emit("tile_dynamic", x, ctx.input(1)) if repeats is None else ctx.emit("tile", x, repeats=repeats)


def _tile_dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x = ctx.type(0)
    return (TensorType(x.dtype, tuple(ctx.fresh("tile", None) for _ in x.shape)),)


def _tile_dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, repeats = inputs
    assert x is not None and repeats is not None
    return (np.tile(x, repeats.tolist()),)


def _tile_dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.standard_normal((3, 2)).astype(np.float32), np.array([2, 3]))),)


register(
    OpDef(
        "tile_dynamic", _tile_dynamic_infer, _tile_dynamic_reference, Fusion.HOST, samples=_tile_dynamic_samples
    )
)
