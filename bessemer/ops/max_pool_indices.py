"""Where the maxima of pooling windows lie: op `max_pool_indices`, the second output of ONNX's MaxPool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.window_shape import patches


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    if x.rank < 3 or len(ctx.attr("kernel")) != x.rank - 2:
        raise ValueError(f"a window of {ctx.attr('kernel')} does not fit {x}")
    return (TensorType(dt.i64, (*x.shape[:2], *ctx.attr("out"))),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Flat indices into the whole of x [N, C, *spatial], the first maximum of each window.

    Spatial places are numbered row-major or, with column_major, the first spatial axis fastest.
    """
    (x,) = inputs
    assert x is not None
    out = [int(d) for d in attrs["out"]]
    args = (attrs["kernel"], attrs["strides"], attrs["dilations"], attrs["pads"], out)
    spatial = math.prod(x.shape[2:])
    places = np.arange(spatial).reshape(x.shape[2:], order="F" if attrs["column_major"] else "C")
    shape = (*x.shape[:2], *out, -1)
    values = patches(x, *args, 0).reshape(shape)
    where = patches(np.broadcast_to(places, x.shape).astype(np.int64), *args, -1).reshape(shape)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    peak = np.where(where >= 0, values, lowest).max(axis=-1, keepdims=True)
    hit = (where >= 0) & ((values == peak) | (values != values))
    best = np.take_along_axis(where, hit.argmax(axis=-1)[..., None], -1)[..., 0]
    images = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(out))
    return (best + images * spatial,)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    """Taps that fall into the padding read the nearest tap inside, which changes neither maximum nor its place."""
    x, (out,), kernel = ctx.type(0), _infer(ctx), ctx.attr("kernel")
    axes, tap = ex.out_axes(out.rank), ex.Axis("r0")
    element = ex.load(0, (axes[0], axes[1], *_positions(ctx, axes, tap)), x.dtype)
    acc = dt.accumulator(x.dtype)
    best = ex.Reduce("argmax", (("r0", math.prod(kernel)),), ex.cast(element, acc), acc)
    flat: ex.Expr = ex.lit(0, dt.i64)
    order = list(enumerate(_positions(ctx, axes, best)))
    for k, i in reversed(order) if ctx.attr("column_major") else order:
        flat = ex.call("add", ex.call("mul", flat, ex.idx(x.shape[2 + k])), i)
    image = ex.call("add", ex.call("mul", axes[0], ex.idx(x.shape[1])), axes[1])
    total = ex.call("add", ex.call("mul", image, ex.idx(product(x.shape[2:]))), flat)
    return ex.ComputeDef(out.shape, out.dtype, total)


def _positions(ctx: InferContext, axes: Sequence[ex.Expr], tap: ex.Expr) -> list[ex.Expr]:
    """The spatial coordinates that flat tap number `tap` of the window at `axes` reads."""
    kernel, found = ctx.attr("kernel"), []
    behind = 1
    for k in range(len(kernel) - 1, -1, -1):
        own = ex.call("floormod", ex.call("floordiv", tap, ex.idx(behind)), ex.idx(kernel[k]))
        start = ex.call("sub", ex.call("mul", axes[2 + k], ex.idx(ctx.attr("strides")[k])), ex.idx(ctx.attr("pads")[k]))
        found.append(_held(own, start, ctx.attr("dilations")[k], ctx.type(0).shape[2 + k]))
        behind *= kernel[k]
    return found[::-1]


def _held(tap: ex.Expr, start: ex.Expr, dilation: int, size: Dim) -> ex.Expr:
    """start + dilation * tap, with the tap moved to the nearest one inside."""
    step, zero = ex.idx(dilation), ex.lit(0, dt.i64)
    before = ex.call("sub", zero, start)
    least = ex.call("max", ex.call("floordiv", ex.call("add", before, ex.idx(dilation - 1)), step), zero)
    most = ex.call("floordiv", ex.call("sub", ex.idx(size - 1), start), step)
    inner = ex.call("max", ex.call("min", tap, most), least)
    return ex.call("add", start, ex.call("mul", inner, step))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def attrs(out: tuple[int, ...], stride: int, dilation: int, pad: int, column_major: bool = False) -> dict[str, Any]:
        rank = len(out)
        return {"kernel": (3,) * rank, "strides": (stride,) * rank, "dilations": (dilation,) * rank,
                "pads": (pad,) * 2 * rank, "out": out, "column_major": column_major}  # fmt: skip

    x = rng.standard_normal((2, 3, 7, 8)).astype(np.float32)
    coarse = rng.integers(-128, -126, (1, 2, 6, 6)).astype(np.int8)
    return (
        Sample((x,), attrs((4, 4), 2, 1, 1)),
        Sample((x,), attrs((5, 6), 1, 2, 1, True), note="column-major, dilated"),
        Sample((coarse,), attrs((6, 6), 1, 1, 1), note="ties with the padding"),
        Sample((x[:, 0],), attrs((3,), 3, 1, 1), note="1-D"),
    )


register(OpDef("max_pool_indices", _infer, _reference, Fusion.REDUCTION, compute=_compute, samples=_samples))
