"""Sliding windows over spatial axes: output sizes, padding, layouts, and patches. Shared by conv, pool and their kin.

Layout "NCHW" means channel first and "NHWC" channel last, for any spatial rank. `pads` are begin..., end....
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, floordiv, maximum
from bessemer.ir import expr as ex
from bessemer.ir.importer import ImportContext


def channel_axis(layout: str, rank: int) -> int:
    """The channel axis of a rank-`rank` tensor of that layout; ValueError for an unknown layout."""
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"unknown layout {layout!r}; known: NCHW, NHWC")
    return 1 if layout == "NCHW" else rank - 1


def spatial_axes(layout: str, rank: int) -> tuple[int, ...]:
    """The spatial axes of a rank-`rank` tensor of that layout."""
    return tuple(range(2, rank)) if channel_axis(layout, rank) == 1 else tuple(range(1, rank - 1))


def with_layout(layout: str, batch: Any, channel: Any, spatial: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes or index expressions in the order of `layout`."""
    return (batch, channel, *spatial) if layout == "NCHW" else (batch, *spatial, channel)


def channel_first(array: np.ndarray, layout: str) -> np.ndarray:
    """`array` of `layout`, viewed channel first."""
    return array if layout == "NCHW" else np.moveaxis(array, -1, 1)


def from_channel_first(array: np.ndarray, layout: str) -> np.ndarray:
    """A channel-first array, viewed in `layout`."""
    return array if layout == "NCHW" else np.moveaxis(array, 1, -1)


def extent(kernel: Dim, dilation: int) -> Dim:
    """How many elements a dilated window spans."""
    return (kernel - 1) * dilation + 1


def output_size(size: Dim, kernel: Dim, stride: int, dilation: int, begin: Dim, end: Dim) -> Dim:
    """How many windows fit in a padded axis."""
    if begin + end == _same_total(size, kernel, stride, dilation):
        return ceildiv(size, stride)  # the same number, in the form that compares equal across layers
    return floordiv(size + begin + end - extent(kernel, dilation), stride) + 1


def output_sizes(
    sizes: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[Dim]
) -> tuple[Dim, ...]:
    """`output_size` of every spatial axis; ValueError where a window does not fit once."""
    rank = len(kernel)
    if not len(sizes) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ValueError(f"{rank} kernel sizes need as many sizes, strides and dilations, and {2 * rank} pads")
    out = tuple(
        output_size(sizes[k], kernel[k], strides[k], dilations[k], pads[k], pads[rank + k]) for k in range(rank)
    )
    for k, size in enumerate(out):
        if isinstance(size, int) and size < 0:
            raise ValueError(f"a window of {extent(kernel[k], dilations[k])} exceeds the padded size of axis {k}")
    return out


def _same_total(size: Dim, kernel: Dim, stride: int, dilation: int) -> Dim:
    return maximum((ceildiv(size, stride) - 1) * stride + extent(kernel, dilation) - size, 0)


def same_pads(size: Dim, kernel: Dim, stride: int, dilation: int, upper: bool) -> tuple[Dim, Dim]:
    """The pads that give ceil(size / stride) windows; the odd one at the end where `upper`."""
    total = _same_total(size, kernel, stride, dilation)
    less = floordiv(total, 2)
    return (less, total - less) if upper else (total - less, less)


def import_pads(
    ctx: ImportContext, sizes: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Dim, ...]:
    """The pads of an ONNX node: its `pads`, or what its `auto_pad` means for these sizes."""
    rank, auto = len(kernel), ctx.attr("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        both = [same_pads(*a, auto == "SAME_UPPER") for a in zip(sizes, kernel, strides, dilations, strict=True)]
        return tuple(p[0] for p in both) + tuple(p[1] for p in both)
    if auto == "VALID":
        return (0,) * (2 * rank)
    if auto != "NOTSET":
        ctx.unsupported(f"auto_pad {auto!r} is not one of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
    pads = tuple(ctx.attr("pads", (0,) * (2 * rank)))
    if len(pads) != 2 * rank or min(pads, default=0) < 0:
        ctx.unsupported(f"pads {pads} are not {2 * rank} numbers of at least 0")
    return pads


def spread(x: np.ndarray, pads: Sequence[int], fill: float) -> np.ndarray:
    """Channel-first `x` [N, C, *spatial] with its spatial axes padded by `fill`."""
    rank = x.ndim - 2
    if not any(pads):
        return x
    widths = [(0, 0), (0, 0), *((int(pads[k]), int(pads[rank + k])) for k in range(rank))]
    return np.pad(x, widths, constant_values=fill)


def patches(
    x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> np.ndarray:
    """The windows of a padded channel-first array, as a view [N, C, *out, *kernel]."""
    steps = x.strides[2:]
    shape = (*x.shape[:2], *out, *kernel)
    strides_ = (
        *x.strides[:2],
        *(s * t for s, t in zip(steps, strides, strict=True)),
        *(s * d for s, d in zip(steps, dilations, strict=True)),
    )
    return np.lib.stride_tricks.as_strided(x, shape, strides_, writeable=False)


def position(axis: ex.Expr, tap: ex.Expr, stride: int, dilation: int, begin: Dim) -> ex.Expr:
    """The input coordinate that window `axis` reads at `tap`."""
    start = ex.call("sub", ex.call("mul", axis, ex.idx(stride)), ex.idx(begin))
    return ex.call("add", start, ex.call("mul", tap, ex.idx(dilation)))


def within(coordinate: ex.Expr, size: Dim) -> ex.Expr:
    """Whether 0 <= coordinate < size."""
    return ex.call("and", ex.call("ge", coordinate, ex.lit(0, dt.i64)), ex.call("lt", coordinate, ex.idx(size)))


def guarded(
    value: ex.Expr, positions: Sequence[ex.Expr], sizes: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int],
    dilations: Sequence[int], pads: Sequence[Dim], out: Sequence[Dim], fill: ex.Expr,
) -> ex.Expr:  # fmt: skip
    """`value` where all positions lie inside, else `fill`; axes whose windows never leave the input are not asked."""
    rank, cond = len(sizes), None
    for k in range(rank):
        last = (out[k] - 1) * strides[k] + extent(kernel[k], dilations[k]) - pads[k]
        if pads[k] == 0 and (last == sizes[k] or pads[rank + k] == 0 and _fits(last, sizes[k])):
            continue
        test = within(positions[k], sizes[k])
        cond = test if cond is None else ex.call("and", cond, test)
    return value if cond is None else ex.Select(cond, value, fill)


def _fits(last: Dim, size: Dim) -> bool:
    slack = size - last
    return isinstance(slack, int) and slack >= 0
