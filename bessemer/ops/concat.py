"""Concatenation along one axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import same_dim


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    types, axis = [ctx.type(k) for k in range(len(ctx.types))], ctx.attr("axis")
    first = types[0]
    if any(t.rank != first.rank or t.dtype != first.dtype for t in types) or not 0 <= axis < first.rank:
        raise ValueError(f"cannot concatenate on axis {axis}")
    shape = list(first.shape)
    for t in types[1:]:
        for k, size in enumerate(t.shape):
            shape[k] = shape[k] + size if k == axis else same_dim(shape[k], size, ctx.ranges)
    return (TensorType(first.dtype, tuple(shape)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    return (np.concatenate([x for x in inputs if x is not None], attrs["axis"]),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,) = _infer(ctx)
    axis, axes = ctx.attr("axis"), ex.out_axes(out.rank)
    parts: list[tuple[Dim, ex.Expr]] = []  # end of each operand, and its element
    end: Dim = 0
    for k in range(len(ctx.types)):
        size = ctx.type(k).shape[axis]
        if size == 0:
            continue
        at = ex.call("sub", axes[axis], ex.idx(end))
        end = end + size
        parts.append((end, ex.load(k, (*axes[:axis], at, *axes[axis + 1 :]), out.dtype)))
    if not parts:
        return ex.ComputeDef(out.shape, out.dtype, ex.load(0, axes, out.dtype))
    value = parts[-1][1]
    for stop, element in reversed(parts[:-1]):
        value = ex.Select(ex.call("lt", axes[axis], ex.idx(stop)), element, value)
    return ex.ComputeDef(out.shape, out.dtype, value)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        Sample((draw(3, 2, 5), draw(3, 7, 5), draw(3, 1, 5)), {"axis": 1}),
        Sample((draw(4, 3), draw(2, 3)), {"axis": 0}),
        Sample((draw(4, 0), draw(4, 3), draw(4, 0), draw(4, 2)), {"axis": 1}),
        Sample((draw(2, 3),), {"axis": 1}),
        Sample((rng.integers(0, 9, 4), rng.integers(0, 9, 1)), {"axis": 0}),
    ]


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    (out,) = _infer(ctx)
    for x in ctx.types:
        assert x is not None
        yield from ((a, b) for k, (a, b) in enumerate(zip(x.shape, out.shape)) if k != ctx.attr("axis"))


register(
    OpDef(
        "concat", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, symbolic=True, taken=_taken
    )
)


@onnx_op("Concat", since=(4, 11, 13))
def _concat(ctx: ImportContext) -> Values:
    values = [ctx.input(k) for k in range(len(ctx.inputs))]
    return ctx.emit("concat", *values, axis=ctx.axis(ctx.attr("axis"), ctx.rank(values[0])))
