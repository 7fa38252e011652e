"""Transpose, and the reorderings between space and depth, which are transposes between reshapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, floordiv
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, perm = ctx.type(0), ctx.attr("perm")
    if sorted(perm) != list(range(x.rank)):
        raise ValueError(f"{perm} is not a permutation of the axes of {x}")
    return (TensorType(x.dtype, tuple(x.shape[p] for p in perm)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (np.transpose(x, attrs["perm"]),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _infer(ctx)
    perm, axes = ctx.attr("perm"), ex.out_axes(out.rank)
    index = tuple(axes[perm.index(k)] for k in range(out.rank))
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, index, out.dtype))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 5, 1, 7)).astype(np.float32)
    perms = ((0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 3, 1), (1, 0, 3, 2))
    return [
        *(Sample((x,), {"perm": perm}) for perm in perms),
        Sample((rng.integers(0, 9, (33, 65)).astype(np.int8),), {"perm": (1, 0)}),
        Sample((x[0, 0, 0, 0].reshape(()),), {"perm": ()}),
    ]


register(OpDef("transpose", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, symbolic=True))


@onnx_op("Transpose", since=(1, 13, 21, 23, 24, 25))
def _transpose(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    return ctx.emit("transpose", x, perm=tuple(ctx.attr("perm", tuple(reversed(range(ctx.rank(x)))))))


def _rearrange(ctx: ImportContext, split: tuple[Dim, ...], perm: tuple[int, ...], shape: tuple[Dim, ...]) -> str:
    spread = ctx.emit("reshape", ctx.input(0), shape=split)
    return ctx.emit("reshape", ctx.emit("transpose", spread, perm=perm), shape=shape)


@onnx_op("DepthToSpace", since=(1, 11, 13, 28))
def _depth_to_space(ctx: ImportContext) -> Values:
    n, c, h, w = ctx.shape(ctx.input(0))
    b = ctx.attr("blocksize")
    depth, out = floordiv(c, b * b), (n, floordiv(c, b * b), h * b, w * b)
    if ctx.attr("mode", "DCR") == "DCR":
        return _rearrange(ctx, (n, b, b, depth, h, w), (0, 3, 4, 1, 5, 2), out)
    return _rearrange(ctx, (n, depth, b, b, h, w), (0, 1, 4, 2, 5, 3), out)


@onnx_op("SpaceToDepth", since=(1, 13, 28))
def _space_to_depth(ctx: ImportContext) -> Values:
    n, c, h, w = ctx.shape(ctx.input(0))
    b = ctx.attr("blocksize")
    rows, columns = floordiv(h, b), floordiv(w, b)
    perm = (0, 3, 5, 1, 2, 4) if ctx.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return _rearrange(ctx, (n, c, rows, b, columns, b), perm, (n, c * b * b, rows, columns))
