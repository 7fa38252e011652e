"""TopK, on the host: of equal elements the one with the lower index comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.bounds import at_most


def _types(x: TensorType, axis: int, k: Dim) -> tuple[TensorType, ...]:
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape), TensorType(dt.i64, shape)


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis, k = ctx.type(0), ctx.attr("axis"), ctx.attr("k")
    size = x.shape[axis]
    if isinstance(k, int) and isinstance(size, int) and not 0 <= k <= size:
        raise ValueError(f"cannot take {k} elements of {x} along axis {axis}")
    return _types(x, axis, k)


def _top(x: np.ndarray, k: int, axis: int, largest: bool) -> tuple[np.ndarray, ...]:
    if largest:  # a stable descending order: the reverse of a stable ascending order of the reversed axis
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    chosen = np.take(order, range(k), axis)
    return np.take_along_axis(x, chosen, axis), chosen.astype(np.int64)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return _top(x, attrs["k"], attrs["axis"], attrs["largest"])


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x, ties = rng.standard_normal((3, 7, 2)).astype(np.float32), rng.integers(0, 4, (3, 9))
    return [
        *(Sample((x,), {"k": 3, "axis": 1, "largest": largest}) for largest in (True, False)),
        *(Sample((ties,), {"k": 9, "axis": 1, "largest": largest}) for largest in (True, False)),
        Sample((x.astype(np.float16),), {"k": 1, "axis": 0, "largest": True}),
        Sample((ties.astype(np.uint8),), {"k": 2, "axis": 1, "largest": True}),
    ]


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield from at_most(ctx.attr("k"), ctx.type(0).shape[ctx.attr("axis")], ctx.ranges)


register(OpDef("topk", _infer, _reference, Fusion.HOST, samples=_samples, taken=_taken))


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    assert ctx.fresh is not None
    x, axis = ctx.type(0), ctx.attr("axis")
    return _types(x, axis, ctx.fresh("topk", x.shape[axis]))


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, k = inputs
    assert x is not None and k is not None
    return _top(x, int(k.reshape(())), attrs["axis"], attrs["largest"])


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.standard_normal((3, 7)).astype(np.float32), np.array([2])), {"axis": 1, "largest": True}),)


register(OpDef("topk_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


@onnx_op("TopK", since=(1,))
def _topk_attribute(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    return ctx.emit_all("topk", x, k=ctx.attr("k"), axis=ctx.axis(ctx.attr("axis", -1), ctx.rank(x)), largest=True)


@onnx_op("TopK", since=(10, 11, 24))
def _topk(ctx: ImportContext) -> Values:
    x, k = ctx.input(0), ctx.dims(ctx.input(1))
    axis, largest = ctx.axis(ctx.attr("axis", -1), ctx.rank(x)), bool(ctx.attr("largest", 1))
    attrs: dict[str, Attr] = {"axis": axis, "largest": largest}
    if k is None:
        return ctx.emit_all("topk_dynamic", x, ctx.input(1), **attrs)
    return ctx.emit_all("topk", x, k=k[0], **attrs)
