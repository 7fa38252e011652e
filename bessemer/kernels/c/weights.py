"""Weight layouts of the tiled kernels, made while the engine is written."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from bessemer.kernels.base import transform


def part(total: int, pieces: int, i: int) -> int:
    """Where piece `i` of `pieces` even pieces of `total` starts; as `part` of tile.h."""
    base, extra = divmod(total, pieces)
    return i * base + min(i, extra)


def panels(b: np.ndarray, lanes: int, count: int) -> np.ndarray:
    """[groups, K, N] -> flat f32: per group, `count` panels of [K, vectors * lanes], zero past column N."""
    groups, depth, cols = b.shape
    vectors = -(-cols // lanes)
    padded = np.zeros((groups, depth, vectors * lanes), np.float32)
    padded[:, :, :cols] = b
    starts = [part(vectors, count, i) * lanes for i in range(count + 1)] if count else [0]
    pieces = [padded[:, :, a:z].reshape(groups, depth * (z - a)) for a, z in zip(starts, starts[1:])]
    return np.concatenate(pieces, axis=1).reshape(-1) if pieces else padded.reshape(-1)


@transform("panels_of_matrix")
def panels_of_matrix(b: np.ndarray, lanes: int, count: int, transpose: bool) -> np.ndarray:
    """[..., K, N] ([..., N, K] where `transpose`) -> panels."""
    if transpose:
        b = np.swapaxes(b, -1, -2)
    return panels(b.reshape(math.prod(b.shape[:-2]), *b.shape[-2:]), lanes, count)


@transform("panels_of_filter")
def panels_of_filter(w: np.ndarray, lanes: int, count: int, groups: int) -> np.ndarray:
    """[OC, IC/groups, *kernel] -> panels of the product over (kernel, input channel)."""
    outer, inner = w.shape[0] // groups, w.shape[1]
    b = w.reshape(groups, outer, inner, math.prod(w.shape[2:])).transpose(0, 3, 2, 1)
    return panels(b.reshape(groups, math.prod(w.shape[1:]), outer), lanes, count)


@transform("transpose_matrix")
def transpose_matrix(a: np.ndarray) -> np.ndarray:
    """[..., K, M] -> [..., M, K], contiguous."""
    return np.ascontiguousarray(np.swapaxes(a, -1, -2))


@transform("panels_of_patches")
def panels_of_patches(w: np.ndarray, lanes: int, count: int) -> np.ndarray:
    """[C, OC, *kernel] -> panels of the product of channels by (tap, output channel)."""
    taps = math.prod(w.shape[2:])
    b = w.reshape(w.shape[0], w.shape[1], taps).transpose(0, 2, 1)
    return panels(b.reshape(1, w.shape[0], taps * w.shape[1]), lanes, count)


@transform("panels_of_winograd")
def panels_of_winograd(w: np.ndarray, lanes: int, count: int) -> np.ndarray:
    """[OC, IC, 3, 3] -> panels of the 36 products of F(4x4, 3x3), transformed in f64; see conv_winograd.h."""
    points = (0.0, 0.75, -0.75, 1.5, -1.5)
    g = np.zeros((6, 3))
    for i, p in enumerate(points):
        g[i] = np.array([1.0, p, p * p]) / math.prod(p - q for q in points if q != p)
    g[5, 2] = 1.0
    u = np.einsum("pi,qj,ocij->pqco", g, g, w.reshape(w.shape[0], w.shape[1], 3, 3).astype(np.float64))
    return panels(u.reshape(1, 36 * w.shape[1], w.shape[0]), lanes, count)


@transform("taps_by_channel")
def taps_by_channel(w: np.ndarray, padded: int) -> np.ndarray:
    """[C, 1, *kernel] -> flat [taps, padded], zero past channel C."""
    out = np.zeros((math.prod(w.shape[2:]), padded), np.float32)
    out[:, : w.shape[0]] = w.reshape(w.shape[0], -1).T
    return out.reshape(-1)


@transform("panels_of_transposed_filter")
def panels_of_transposed_filter(
    w: np.ndarray,
    lanes: int,
    count: int,
    groups: int,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    kernel: tuple[int, ...],
) -> np.ndarray:
    """[C, OC/groups, *kernel] -> panels per (phase of the output, group), each over the taps that reach the phase.

    `kernel` has as many dims as the strides (leading ones where w has fewer). Phases are in lexicographic order, and so
    are a phase's taps; phases with fewer taps than the most are padded with zeros.
    """
    inner, outer = w.shape[0] // groups, w.shape[1]
    b = w.reshape(groups, inner, outer, *kernel)
    dims = list(zip(kernel, strides, dilations, pads))
    phases = list(itertools.product(*(range(s) for s in strides)))
    most = math.prod(max(1, *(len(reaching(*dim, r)) for r in range(dim[1]))) for dim in dims)
    out = np.zeros((len(phases), groups, most, inner, outer), np.float32)
    for i, phase in enumerate(phases):
        taps = itertools.product(*(reaching(*dim, r) for dim, r in zip(dims, phase)))
        for t, tap in enumerate(taps):
            index: tuple[Any, ...] = (..., *tap)
            out[i, :, t] = b[index]
    return panels(out.reshape(len(phases) * groups, most * inner, outer), lanes, count)


def reaching(kernel: int, stride: int, dilation: int, pad: int, phase: int) -> list[int]:
    """The taps of one dim of a transposed convolution that reach outputs q * stride + phase."""
    return [k for k in range(kernel) if (phase + pad - k * dilation) % stride == 0]
