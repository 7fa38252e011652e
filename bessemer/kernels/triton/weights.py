"""Weight layouts of the Triton kernels, made while the engine is written."""

from __future__ import annotations

import numpy as np

from bessemer.kernels.base import transform


@transform("taps_of_filter")
def taps_of_filter(w: np.ndarray, bk: int, chunked: bool) -> np.ndarray:
    """[OC, IC, *kernel] -> [OC, K], K over taps and then channels, zero-padded to steps of `bk`.

    Where `chunked` the channels of each tap are padded, else only the end of K is.
    """
    oc, ic = w.shape[:2]
    taps = np.moveaxis(w.reshape(oc, ic, -1), 1, 2)
    if chunked:
        taps = np.pad(taps, ((0, 0), (0, 0), (0, -ic % bk)))
    flat = taps.reshape(oc, -1)
    return np.ascontiguousarray(np.pad(flat, ((0, 0), (0, -flat.shape[1] % bk))))


@transform("channels_by_tap")
def channels_by_tap(w: np.ndarray) -> np.ndarray:
    """A depthwise filter [C, 1, *kernel] -> [taps, C]."""
    return np.ascontiguousarray(w.reshape(w.shape[0], -1).T)


@transform("transposed_rows")
def transposed_rows(b: np.ndarray, rank: int) -> np.ndarray:
    """The last two of the first `rank` axes swapped; the axes after those have size one and go."""
    return np.ascontiguousarray(np.swapaxes(b.reshape(b.shape[:rank]), -1, -2))


@transform("taps_of_transposed_filter")
def taps_of_transposed_filter(w: np.ndarray, bk: int, groups: int) -> np.ndarray:
    """[IC, OC / groups, *kernel] -> [OC, K], K over taps and then a group's channels, padded to steps of `bk`."""
    ic, oc = w.shape[0] // groups, w.shape[1]
    taps = w.reshape(groups, ic, oc, -1).transpose(0, 2, 3, 1)
    padded = np.pad(taps, ((0, 0), (0, 0), (0, 0), (0, -ic % bk)))
    return np.ascontiguousarray(padded.reshape(groups * oc, -1))
