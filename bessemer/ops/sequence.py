"""Sequences and optionals of ONNX: resolved while importing, so that no graph holds one.

A sequence is a list of values whose length and positions are known; exporters write them around Split and Concat. One
that depends on data, or that crosses a graph's boundary, is refused.
"""

from __future__ import annotations

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.importer import ImportContext, Values, onnx_op


def _items(ctx: ImportContext, k: int = 0) -> tuple[str, ...]:
    value = ctx.input(k)
    if value not in ctx.builder.sequences:
        ctx.unsupported(f"input {k} is no sequence of known length")
    return ctx.builder.sequences[value]


def _position(ctx: ImportContext, k: int, length: int) -> int:
    found = ctx.ints(ctx.input(k))
    if found is None:
        ctx.unsupported("the position in the sequence depends on data")
        return 0
    (position,) = found
    if not -length <= position <= length:
        ctx.unsupported(f"position {position} lies outside a sequence of {length}")
    return position if position >= 0 else position + length


@onnx_op("SequenceConstruct", since=(11,))
def _construct(ctx: ImportContext) -> Values:
    return ctx.builder.sequence([ctx.input(k) for k in range(len(ctx.inputs))])


@onnx_op("SequenceEmpty", since=(11,))
def _empty(ctx: ImportContext) -> Values:
    return ctx.builder.sequence(())


@onnx_op("SequenceInsert", since=(11,))
def _insert(ctx: ImportContext) -> Values:
    items = _items(ctx)
    at = _position(ctx, 2, len(items)) if ctx.has(2) else len(items)
    return ctx.builder.sequence((*items[:at], ctx.input(1), *items[at:]))


@onnx_op("SequenceErase", since=(11,))
def _erase(ctx: ImportContext) -> Values:
    items = _items(ctx)
    at = _position(ctx, 1, len(items)) if ctx.has(1) else len(items) - 1
    return ctx.builder.sequence((*items[:at], *items[at + 1 :]))


@onnx_op("SequenceAt", since=(11,))
def _at(ctx: ImportContext) -> Values:
    items = _items(ctx)
    at = _position(ctx, 1, len(items))
    if at >= len(items):
        ctx.unsupported(f"position {at} lies outside a sequence of {len(items)}")
    return items[at]


@onnx_op("SequenceLength", since=(11,))
def _length(ctx: ImportContext) -> Values:
    return ctx.const(len(_items(ctx)), dt.i64)


@onnx_op("SplitToSequence", since=(11, 24))
def _split(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    shape = ctx.shape(x)
    axis = ctx.axis(ctx.attr("axis", 0), len(shape))
    extent = shape[axis]
    if not isinstance(extent, int):
        ctx.unsupported(f"the length {extent} of the split axis is dynamic")
    sizes = _sizes(ctx, extent)
    keep = bool(ctx.attr("keepdims", 1)) or ctx.has(1)
    items, start = [], 0
    for size in sizes:
        part = _slice(ctx, x, axis, start, size)
        items.append(part if keep else ctx.emit("reshape", part, shape=(*shape[:axis], *shape[axis + 1 :])))
        start += size
    return ctx.builder.sequence(items)


def _sizes(ctx: ImportContext, extent: Dim) -> tuple[int, ...]:
    assert isinstance(extent, int)
    if not ctx.has(1):
        return (1,) * extent
    split = ctx.ints(ctx.input(1))
    if split is None:
        ctx.unsupported("the sizes of the split depend on data")
        return ()
    if ctx.rank(ctx.input(1)) == 0:
        (size,) = split
        if size < 1:
            ctx.unsupported(f"split size {size}")
        return tuple(min(size, extent - start) for start in range(0, extent, size))
    if sum(split) != extent or min(split, default=0) < 0:
        ctx.unsupported(f"the sizes {split} do not add up to {extent}")
    return split


def _slice(ctx: ImportContext, x: str, axis: int, start: int, size: int) -> str:
    index = ctx.const(np.arange(start, start + size), dt.i64)
    return ctx.emit("gather", x, index, axis=axis)


@onnx_op("ConcatFromSequence", since=(11,))
def _concat(ctx: ImportContext) -> Values:
    items = _items(ctx)
    if not items:
        ctx.unsupported("the sequence is empty")
    new_axis = bool(ctx.attr("new_axis", 0))
    axis = ctx.axis(ctx.attr("axis"), ctx.rank(items[0]) + new_axis)
    if new_axis:
        items = tuple(ctx.emit("reshape", i, shape=_with_one(ctx.shape(i), axis)) for i in items)
    return ctx.emit("concat", *items, axis=axis)


def _with_one(shape: tuple[Dim, ...], axis: int) -> tuple[Dim, ...]:
    return (*shape[:axis], 1, *shape[axis:])


@onnx_op("Optional", since=(15, 28))
def _optional(ctx: ImportContext) -> Values:
    if not ctx.has(0):
        ctx.unsupported("an empty optional")
    return ctx.input(0)


@onnx_op("OptionalGetElement", since=(15, 18, 28))
def _get_element(ctx: ImportContext) -> Values:
    return ctx.input(0)


@onnx_op("OptionalHasElement", since=(15, 18, 28))
def _has_element(ctx: ImportContext) -> Values:
    return ctx.const(ctx.has(0), dt.bool_)
