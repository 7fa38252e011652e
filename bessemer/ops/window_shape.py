"""Sizes of sliding windows: outputs of convolutions and pools, ONNX's auto_pad, and patches for the references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bessemer.core.dim import Dim, ceildiv, floordiv, maximum
from bessemer.ir.importer import ImportContext


def spatial_axes(rank: int, layout: str) -> tuple[int, ...]:
    """The spatial axes of data of `rank` in "NCHW" or "NHWC" (channels second or last, whatever the rank)."""
    return tuple(range(2, rank)) if layout == "NCHW" else tuple(range(1, rank - 1))


def channel_axis(rank: int, layout: str) -> int:
    """The channel axis."""
    return 1 if layout == "NCHW" else rank - 1


def assemble(batch: Dim, channels: Dim, spatial: Sequence[Dim], layout: str) -> tuple[Dim, ...]:
    """A shape in `layout`."""
    return (batch, channels, *spatial) if layout == "NCHW" else (batch, *spatial, channels)


def _same_total(size: Dim, kernel: Dim, stride: int, dilation: int) -> Dim:
    """The padding that gives ceil(size / stride) windows."""
    return maximum((ceildiv(size, stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)


def windows(size: Dim, kernel: Dim, stride: int, dilation: int, begin: Dim, end: Dim) -> Dim:
    """How many windows fit."""
    if begin + end == _same_total(size, kernel, stride, dilation):
        return ceildiv(size, stride)  # the same number, in a form that compares equal across layers
    return floordiv(size + begin + end - dilation * (kernel - 1) - 1, stride) + 1


def resolve_pads(
    ctx: ImportContext, sizes: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Dim, ...]:
    """Pads (begins, then ends) of a node with `pads` or `auto_pad`."""
    mode = ctx.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        given = ctx.attr("pads", None) if mode == "NOTSET" else None
        if given and (len(given) != 2 * len(sizes) or min(given) < 0):
            ctx.unsupported(f"pads {given} are not {2 * len(sizes)} numbers of at least 0")
        return tuple(given) if given else (0,) * (2 * len(sizes))
    begins, ends = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations):
        total = _same_total(size, k, stride, dilation)
        small = floordiv(total, 2)
        begins.append(small if mode == "SAME_UPPER" else total - small)
        ends.append(total - small if mode == "SAME_UPPER" else small)
    return (*begins, *ends)


def patches(
    x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int],
    out: Sequence[int], fill: float,
) -> np.ndarray:  # fmt: skip
    """[N, C, *spatial] -> a view [N, C, *out, *kernel] of padded data; windows may reach beyond the padding."""
    rank = len(kernel)
    widths = [(0, 0), (0, 0)]
    for k in range(rank):
        reach = (out[k] - 1) * strides[k] + dilations[k] * (kernel[k] - 1) + 1
        after = max(pads[rank + k], reach - x.shape[2 + k] - pads[k], 0)
        widths.append((pads[k], after))
    padded = np.pad(x, widths, constant_values=fill)
    steps = padded.strides
    shape = (*x.shape[:2], *out, *kernel)
    view = (*steps[:2], *(s * t for s, t in zip(steps[2:], strides)), *(s * t for s, t in zip(steps[2:], dilations)))
    return np.lib.stride_tricks.as_strided(padded, shape, view, writeable=False)
