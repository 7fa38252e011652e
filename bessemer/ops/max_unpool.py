"""MaxUnpool: op `max_unpool` puts values back at the flat indices that a max pool gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.interval import compare
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.dynamic import vector
from bessemer.ops.pad import emit_pad


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, indices = ctx.type(0), ctx.type(1)
    if indices.rank != x.rank or not indices.dtype.is_int:
        raise ValueError(f"max_unpool takes values and integer indices of one shape, not {x} and {indices}")
    return (TensorType(x.dtype, tuple(ctx.attr("shape"))),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """An index counts elements of the whole output, batch and channels included."""
    x, indices = inputs
    assert x is not None and indices is not None
    out = np.zeros([int(d) for d in attrs["shape"]], x.dtype)
    out.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)
    return (out,)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 1, 2, 2)).astype(np.float32)
    places = rng.permutation(32)[:8].reshape(x.shape)
    return (Sample((x, places), {"shape": (2, 1, 4, 4)}),)


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield from zip(ctx.type(1).shape, ctx.type(0).shape)


register(OpDef("max_unpool", _infer, _reference, Fusion.HOST, samples=_samples, taken=_taken))


@onnx_op("MaxUnpool", since=(9, 11, 22))
def _import(ctx: ImportContext) -> Values:
    """Indices count in the shape that the pool's own attributes give; a larger output_shape is that, padded."""
    x, kernel = ctx.input(0), ctx.attr("kernel_shape")
    shape, n = ctx.shape(x), len(ctx.attr("kernel_shape"))
    strides, pads = ctx.attr("strides", (1,) * n), ctx.attr("pads", (0,) * (2 * n))
    own = (*shape[:2], *((shape[2 + k] - 1) * strides[k] + kernel[k] - pads[k] - pads[n + k] for k in range(n)))
    y = ctx.emit("max_unpool", x, ctx.input(1), shape=own)
    if not ctx.has(2):
        return y
    wanted = ctx.dims(ctx.input(2))
    if wanted is None:
        least = ctx.builder.dims_value(np.array(own, dtype=object))
        ends = ctx.emit("sub", ctx.cast(vector(ctx, 2), dt.i64), least)
        pads = ctx.emit("concat", ctx.const([0] * len(own), dt.i64), ends, axis=0)
        return ctx.emit("pad_dynamic", y, pads, None, None, mode="constant")
    if len(wanted) != len(own) or any(compare(w, o, ctx.ranges)[1] is not False for w, o in zip(wanted, own)):
        ctx.unsupported(f"output_shape {wanted} is less than {own}, which the pool covers")
    return y if wanted == own else emit_pad(ctx, y, (*(0,) * len(own), *(w - o for w, o in zip(wanted, own))))
