"""Sums of which several programs compute a part each. Read as text: a module gets the functions that it uses.

Every program leaves its part, a tile in f32, in memory; the last one to come adds all in order, so that every run gives
the same bits whoever is last. Tiles lie one after the other, and in each its parts.
"""

import triton
import triton.language as tl


@triton.jit
def leave_part(acc, partial_ptr, counters_ptr, tile, part, PARTS: tl.constexpr):
    """Stores this program's part of a tile; whether it was the last one. The last one sets the tile's counter back."""
    ROWS: tl.constexpr = acc.shape[0]
    COLS: tl.constexpr = acc.shape[1]
    lane = tl.arange(0, ROWS)[:, None] * COLS + tl.arange(0, COLS)[None, :]
    first = partial_ptr + tile.to(tl.int64) * (PARTS * ROWS * COLS)
    tl.store(first + part * (ROWS * COLS) + lane, acc, cache_modifier=".cg")
    tl.debug_barrier()  # one thread counts for all: what they stored comes before
    last = tl.atomic_add(counters_ptr + tile, 1, sem="acq_rel", scope="gpu") == PARTS - 1
    if last:
        tl.store(counters_ptr + tile, 0)
    return last


@triton.jit
def sum_parts(partial_ptr, tile, ROWS: tl.constexpr, COLS: tl.constexpr, PARTS: tl.constexpr):
    """The sum of a tile's parts."""
    lane = tl.arange(0, ROWS)[:, None] * COLS + tl.arange(0, COLS)[None, :]
    first = partial_ptr + tile.to(tl.int64) * (PARTS * ROWS * COLS)
    acc = tl.load(first + lane, cache_modifier=".cg")
    for part in tl.static_range(1, PARTS):
        acc += tl.load(first + part * (ROWS * COLS) + lane, cache_modifier=".cg")
    return acc
