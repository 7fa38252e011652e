"""Col2Im: op `col2im` adds columns of blocks up into the image that they were cut from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, floordiv, product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.dynamic import length, vector
from bessemer.ops.window_shape import windows


def _counts(image: Sequence[Dim], block: Sequence[int], attrs: Mapping[str, Any]) -> tuple[Dim, ...]:
    """How many blocks there are along each axis."""
    n, pads = len(image), attrs["pads"]
    return tuple(
        windows(image[k], block[k], attrs["strides"][k], attrs["dilations"][k], pads[k], pads[n + k]) for k in range(n)
    )


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, image, block = ctx.type(0), tuple(ctx.attr("image")), ctx.attr("block")
    if x.rank != 3 or len(image) != len(block):
        raise ValueError(f"col2im takes columns [N, C * block, blocks], not {x}, and one image size per block size")
    taps = math.prod(block)
    if isinstance(x.shape[1], int) and x.shape[1] % taps:
        raise ValueError(f"{x.shape[1]} rows do not divide into blocks of {taps}")
    return (TensorType(x.dtype, (x.shape[0], floordiv(x.shape[1], taps), *image)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (_add_up(x, [int(d) for d in attrs["image"]], attrs["block"], attrs),)


def _add_up(x: np.ndarray, image: Sequence[int], block: Sequence[int], attrs: Mapping[str, Any]) -> np.ndarray:
    """Each tap of the block adds a strided copy; 16-bit floats accumulate in f32."""
    n, pads, strides, dilations = len(image), attrs["pads"], attrs["strides"], attrs["dilations"]
    counts = [int(c) for c in _counts(image, block, attrs)]  # type: ignore[arg-type]
    columns = x.reshape(x.shape[0], -1, *block, *counts)
    wide = np.float32 if x.dtype == np.float16 else x.dtype
    out = np.zeros((*columns.shape[:2], *(image[k] + pads[k] + pads[n + k] for k in range(n))), wide)
    for tap in np.ndindex(*block):
        where = tuple(
            slice(t * dilations[k], t * dilations[k] + (counts[k] - 1) * strides[k] + 1, strides[k])
            for k, t in enumerate(tap)
        )
        out[(slice(None), slice(None), *where)] += columns[(slice(None), slice(None), *tap)]
    crop = tuple(slice(pads[k], pads[k] + image[k]) for k in range(n))
    return np.ascontiguousarray(out[(slice(None), slice(None), *crop)]).astype(x.dtype)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    x, (out,), block = ctx.type(0), _infer(ctx), ctx.attr("block")
    axes, acc = ex.out_axes(out.rank), dt.accumulator(x.dtype)
    counts = _counts(ctx.attr("image"), block, ctx.attrs)
    row: ex.Expr = axes[1]
    column: ex.Expr = ex.lit(0, dt.i64)
    guard: ex.Expr | None = None
    for k, size in enumerate(block):
        stride = ctx.attr("strides")[k]
        reach = ex.call("mul", ex.Axis(f"r{k}"), ex.idx(ctx.attr("dilations")[k]))
        start = ex.call("sub", ex.call("add", axes[2 + k], ex.idx(ctx.attr("pads")[k])), reach)
        at = ex.call("floordiv", start, ex.idx(stride))
        tests = [ex.call("ge", start, ex.idx(0)), ex.call("lt", at, ex.idx(counts[k]))]
        if stride != 1:
            tests.append(ex.call("eq", ex.call("floormod", start, ex.idx(stride)), ex.idx(0)))
        for test in tests:
            guard = test if guard is None else ex.call("and", guard, test)
        row = ex.call("add", ex.call("mul", row, ex.idx(size)), ex.Axis(f"r{k}"))
        column = ex.call("add", ex.call("mul", column, ex.idx(counts[k])), at)
    assert guard is not None
    value = ex.Select(guard, ex.cast(ex.load(0, (axes[0], row, column), x.dtype), acc), ex.lit(0, acc))
    total = ex.Reduce("sum", tuple((f"r{k}", size) for k, size in enumerate(block)), value, acc)
    return ex.ComputeDef(out.shape, out.dtype, ex.cast(total, out.dtype))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    def attrs(stride: int, dilation: int, pad: int) -> dict[str, Any]:
        return {"strides": (stride,) * 2, "dilations": (dilation,) * 2, "pads": (pad,) * 4}

    x = rng.standard_normal((2, 12, 6)).astype(np.float32)
    dense = rng.standard_normal((1, 18, 25)).astype(np.float32)
    line = rng.standard_normal((2, 6, 5)).astype(np.float32)
    return (
        Sample((x,), {"image": (5, 7), "block": (2, 2), **attrs(2, 1, 0)}),
        Sample((dense,), {"image": (5, 5), "block": (3, 3), **attrs(1, 1, 1)}),
        Sample((x,), {"image": (4, 5), "block": (2, 2), **attrs(1, 2, 0)}),
        Sample((line,), {"image": (7,), "block": (3,), "strides": (1,), "dilations": (1,), "pads": (0, 0)}, note="1-D"),
    )


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    x, block = ctx.type(0), ctx.attr("block")
    yield x.shape[1] % math.prod(block), 0
    yield x.shape[2], product(_counts(ctx.attr("image"), block, ctx.attrs))


register(OpDef("col2im", _infer, _reference, Fusion.REDUCTION, compute=_compute, samples=_samples, taken=_taken))


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, rank = ctx.type(0), length(ctx, 1)
    if x.rank != 3 or length(ctx, 2) != rank:
        raise ValueError(f"col2im takes columns [N, C * block, blocks], not {x}, and one image size per block size")
    assert ctx.fresh is not None
    fresh = ctx.fresh
    channels = fresh("channels", x.shape[1])
    return (TensorType(x.dtype, (x.shape[0], channels, *(fresh("image", None) for _ in range(rank)))),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, image, block = inputs
    assert x is not None and image is not None and block is not None
    return (_add_up(x, [int(d) for d in image], [int(d) for d in block], attrs),)


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 12, 6)).astype(np.float32)
    attrs = {"strides": (2, 2), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    return (Sample((x, np.array([5, 7]), np.array([2, 2])), attrs),)


register(OpDef("col2im_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


@onnx_op("Col2Im", since=(18,))
def _import(ctx: ImportContext) -> Values:
    x, image, block = ctx.input(0), ctx.dims(ctx.input(1)), ctx.ints(ctx.input(2))
    rank = ctx.shape(vector(ctx, 1))[0]
    assert isinstance(rank, int)
    ones = (1,) * rank
    attrs: dict[str, Any] = {
        "strides": tuple(ctx.attr("strides", ones)), "dilations": tuple(ctx.attr("dilations", ones)),
        "pads": tuple(ctx.attr("pads", (0,) * (2 * rank))),
    }  # fmt: skip
    if image is None or block is None:
        return ctx.emit("col2im_dynamic", x, ctx.input(1), vector(ctx, 2), **attrs)
    return ctx.emit("col2im", x, image=image, block=block, **attrs)
