"""float64 convolutions by definition: the oracle of the kernels in this folder."""

from __future__ import annotations

import itertools

import numpy as np


def conv(
    x: np.ndarray,
    w: np.ndarray,
    *,
    layout: str,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    groups: int,
) -> np.ndarray:
    """x [N, C, ...] or [N, ..., C]; w [OC, C/groups, *kernel]; the output in x's layout."""
    rank = w.ndim - 2
    x = x.astype(np.float64)
    if layout == "NCHW":
        x = np.moveaxis(x, 1, -1)
    x = np.pad(x, [(0, 0), *((pads[i], pads[rank + i]) for i in range(rank)), (0, 0)])
    size = [(x.shape[1 + i] - dilations[i] * (w.shape[2 + i] - 1) - 1) // strides[i] + 1 for i in range(rank)]
    outer, inner = w.shape[0] // groups, w.shape[1]
    out = np.zeros((x.shape[0], *size, w.shape[0]))
    for tap in itertools.product(*(range(k) for k in w.shape[2:])):
        at = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilations, size, strides))
        part = x[(slice(None), *at)]
        for g in range(groups):
            weights = w[(slice(g * outer, (g + 1) * outer), slice(None), *tap)].astype(np.float64)
            out[..., g * outer : (g + 1) * outer] += part[..., g * inner : (g + 1) * inner] @ weights.T
    return np.moveaxis(out, -1, 1) if layout == "NCHW" else out


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    *,
    layout: str,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    groups: int,
    output_padding: tuple[int, ...],
) -> np.ndarray:
    """x as for conv; w [C, OC/groups, *kernel]: every input pixel adds its filter to the output."""
    rank = w.ndim - 2
    x = x.astype(np.float64)
    if layout == "NCHW":
        x = np.moveaxis(x, 1, -1)
    full = [
        (x.shape[1 + i] - 1) * strides[i] + dilations[i] * (w.shape[2 + i] - 1) + 1 + output_padding[i]
        for i in range(rank)
    ]
    inner, outer = w.shape[0] // groups, w.shape[1]
    out = np.zeros((x.shape[0], *full, outer * groups))
    for tap in itertools.product(*(range(k) for k in w.shape[2:])):
        at = tuple(
            slice(t * d, t * d + (x.shape[1 + i] - 1) * s + 1, s)
            for i, (t, d, s) in enumerate(zip(tap, dilations, strides))
        )
        for g in range(groups):
            weights = w[(slice(g * inner, (g + 1) * inner), slice(None), *tap)].astype(np.float64)
            out[(slice(None), *at, slice(g * outer, (g + 1) * outer))] += x[..., g * inner : (g + 1) * inner] @ weights
    out = out[(slice(None), *(slice(pads[i], full[i] - pads[rank + i]) for i in range(rank)), slice(None))]
    return np.moveaxis(out, -1, 1) if layout == "NCHW" else out
