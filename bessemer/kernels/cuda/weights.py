"""Weight layouts of the CUDA kernels, made while the engine is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from bessemer.kernels.base import transform

BLOCK = 64  # rows, and elements of a row, of a block
UNIT = 8  # elements of 16 bytes
RUNS = 32  # rows that are permuted among themselves


@transform("swizzled_blocks")
def swizzled_blocks(w: np.ndarray, order: str, rows: int, chunks: int) -> np.ndarray:
    """Weights of `order` in blocks of 64 channels and 64 elements of the sum, zero-padded: each [rows, chunks, 64, 64].

    Unit u (8 elements) of row r of a block lies at place u ^ (r % 8), as warpgroup products read it. `order` is "nk"
    or "kn" for matrices (one behind another), "taps" for a filter [N, C, *kernel], whose sum runs over taps and then
    channels, "whole_taps" where every tap's channels are padded to whole blocks, "whole_rows" where those of every row
    of taps are. Row 8 j + 2 q + e of every 32 is channel 8 q + 2 j + e: threads that hold columns 2 q and 2 q + 1 of
    every 8 then hold runs of 8. All kernels take it so: an engine whose kernels differ by the shape keeps it once."""
    taps = order in ("taps", "whole_taps", "whole_rows")
    if taps:
        row_of_taps = w.shape[-1]
        w = np.moveaxis(w.reshape(*w.shape[:2], -1), 1, 2)
        if order == "whole_rows":
            w = w.reshape(w.shape[0], -1, row_of_taps * w.shape[2])
    if order in ("whole_taps", "whole_rows"):
        w = np.pad(w, ((0, 0), (0, 0), (0, -w.shape[2] % BLOCK)))
    matrices: np.ndarray[Any, Any] = w.reshape(1, w.shape[0], -1) if taps else w.reshape(-1, *w.shape[-2:])
    matrices = matrices.swapaxes(1, 2) if order == "kn" else matrices
    batches, n, k = matrices.shape
    padded = np.pad(matrices, ((0, 0), (0, rows * BLOCK - n), (0, chunks * BLOCK - k)))
    blocks = padded.reshape(batches * rows, BLOCK, chunks, BLOCK // UNIT, UNIT).transpose(0, 2, 1, 3, 4)
    row, unit = np.arange(BLOCK)[:, None], np.arange(BLOCK // UNIT)[None]
    channel = row - row % RUNS + row // 2 % 4 * UNIT + row // UNIT % 4 * 2 + row % 2
    return np.ascontiguousarray(blocks[:, :, channel, unit ^ row % UNIT]).reshape(-1, chunks, BLOCK, BLOCK)
