"""Tiled matrix products: tile shapes, the split into work items, and the C text around a tactic's own A and B.

A product is `groups` products of [rows, K] by [K, cols] with K = taps * depth; see tile.h and product.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core.dim import Dim, ceildiv
from bessemer.kernels.base import Arg, Config, Int, Limits, Problem
from bessemer.kernels.c import simd

# (rows, vectors) per ISA level: as many accumulators as the register file holds beside the operands.
SHAPES = {
    "avx512": ((6, 4), (12, 2), (8, 3), (12, 1)),
    "avx2": ((6, 2), (4, 3), (6, 1)),
    "scalar": ((6, 2), (4, 3), (6, 1)),
}
_TABLE_BYTES = 64 << 10  # of row pointers, on the stack of a work item
_KEPT_TILES = 32  # of a split reduction, whose sums so far are on the stack too
_ITEM_WORK = 1 << 20  # multiply-adds that outweigh the cost of starting a work item


@dataclass(frozen=True)
class Extent:
    """A product's sizes. `cols` and `depth` are known; rows and groups may be symbolic."""

    groups: Dim
    rows: Dim
    cols: Dim
    taps: int
    depth: Dim


@dataclass(frozen=True)
class Split:
    """How a product is cut: tile shape, pieces, and pieces per work item."""

    extent: Extent
    tile_rows: int
    tile_vecs: int
    lanes: int
    item_tiles: int
    item_panels: int
    tap_block: int
    depth_block: int
    ahead: int

    @property
    def row_tiles(self) -> Dim:
        return ceildiv(self.extent.rows, self.tile_rows)

    @property
    def panels(self) -> Dim:
        return ceildiv(ceildiv(self.extent.cols, self.lanes), self.tile_vecs)

    @property
    def packed(self) -> Dim:
        """Floats in the packed panels of all groups."""
        e = self.extent
        return e.groups * e.taps * e.depth * ceildiv(e.cols, self.lanes) * self.lanes

    @property
    def items(self) -> Dim:
        blocks = ceildiv(self.row_tiles, self.item_tiles) * ceildiv(self.panels, self.item_panels)
        return self.extent.groups * blocks

    @property
    def args(self) -> tuple[Arg, ...]:
        """The fields of `struct product`, in order."""
        e = self.extent
        fields = (e.rows, e.cols, e.taps, e.depth, self.row_tiles, self.panels)
        blocks = (self.item_tiles, self.item_panels, self.tap_block, self.depth_block, self.ahead)
        return tuple(Int(v) for v in (*fields, *blocks))

    def text(self, entry: str, source: str, store: str, ints: int) -> str:
        """The kernel: tiles, the tactic's `source` text, its `store_row`, and the entry.

        `source` defines `struct source` and `read_source(p, d)`, whose integers follow the product's.
        """
        rows = counts(self.extent.rows, self.tile_rows)
        vecs = counts(ceildiv(self.extent.cols, self.lanes), self.tile_vecs)
        return "\n".join(
            (
                tile_text((self.tile_rows, self.tile_vecs), rows, vecs, store),
                simd.template("product_struct.h"),
                source,
                simd.template("product.h"),
                f"void {entry}(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {{",
                "    const struct product s = {d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10]};",
                f"    const struct source src = read_source(p, d + {ints});",
                "    product_items(&s, &src, begin, end, thread, p, d);",
                "}",
                "",
            )
        )


FIELDS = 11  # integers of `struct product`


def tile_text(bound: tuple[int, int], rows: Sequence[int], vecs: Sequence[int], store: str) -> str:
    """Tile functions of `rows` x `vecs` vectors, at most `bound`, over the text of the store, and their table TILES."""
    tiles = [(r, v) for r in rows for v in vecs]
    return "\n".join(
        (
            f"#define TILE_ROWS {bound[0]}",
            f"#define TILE_VECS {bound[1]}",
            simd.template("tile_base.h"),
            store,
            simd.template("tile.h"),
            *(f"TILE({r}, {v})" for r, v in tiles),
            "static tile_fn *const TILES[TILE_ROWS + 1][TILE_VECS + 1] = {",
            *(f"    [{r}][{v}] = tile_{r}_{v}," for r, v in tiles),
            "};",
        )
    )


def counts(total: Dim, piece: int) -> Sequence[int]:
    """Sizes that the even pieces of `total`, at most `piece` each, may have: two where it is known."""
    if not isinstance(total, int):
        return range(1, piece + 1)
    pieces = max(1, -(-total // piece))
    low = total // pieces
    return [n for n in ((low, low + 1) if total % pieces else (low,)) if n]


def shape_configs(problem: Problem, target: Limits, extent: Extent) -> list[dict[str, int | str]]:
    """Tile shapes, the one that wastes the fewest vector operations first."""
    lanes = simd.lanes(target.arch)
    vectors = max(1, -(-problem.typical(extent.cols) // lanes))
    rows = max(1, problem.typical(extent.rows))

    def cost(shape: tuple[int, int]) -> float:
        r, v = shape
        v_used = vectors / -(-vectors // v)
        r_used = rows / -(-rows // r)
        # Operations in flight hide the latency of a multiply-add; loads per multiply-add bound a thin tile.
        flight = min(1.0, r_used * v_used / 8)
        loads = max(1.0, (r_used + 1.5 * v_used) / (r_used * v_used))
        return loads / flight + 0.02 * abs(v_used - v) + 0.001 * r

    return [{"rows": r, "vecs": v} for r, v in sorted(SHAPES[target.arch], key=cost)]


def plan(problem: Problem, target: Limits, extent: Extent, config: Config, repack: bool = False) -> Split:
    """The split of `extent` with the tile shape of `config`, sized at the problem's typical shape.

    `repack`: B's panels are packed by each work item, so that one should keep a panel for many rows.
    """
    lanes, rows, vecs = simd.lanes(target.arch), int(config["rows"]), int(config["vecs"])
    threads, l2 = target.limits.get("threads", 1), target.limits.get("l2", 1 << 20)
    m, depth = max(1, problem.typical(extent.rows)), max(1, problem.typical(extent.depth))
    k, groups = extent.taps * depth, max(1, problem.typical(extent.groups))
    vectors = max(1, -(-problem.typical(extent.cols) // lanes))
    tiles, panels = -(-m // rows), -(-vectors // vecs)
    panel_bytes = k * min(vecs, vectors) * lanes * 4
    work = groups * m * k * vectors * lanes
    wanted = max(1, min(8 * threads, work // _ITEM_WORK) // groups)
    if wanted > 1:
        wanted = -(-wanted // threads) * threads
    if repack or panel_bytes * panels > l2 // 2:
        col_blocks = panels
        row_blocks = min(tiles, -(-wanted // panels))
        if panels % threads and groups % threads and tiles > 1:
            row_blocks = max(row_blocks, min(tiles, threads))
    else:
        row_blocks = min(tiles, wanted)
        col_blocks = min(panels, -(-wanted // row_blocks))
    limit = max(1, _TABLE_BYTES // (8 * extent.taps * rows))
    item_tiles = max(1, min(-(-tiles // row_blocks), limit))
    tap_block, depth_block = extent.taps, max(1, depth)
    if panel_bytes > l2 * 5 // 8 and item_tiles > 2:
        budget = max(64, l2 // 4 // (vecs * lanes * 4))
        tap_block = max(1, budget // depth)
        if tap_block == 1:
            depth_block = -(-depth // -(-depth // budget))
        item_tiles = min(item_tiles, _KEPT_TILES)
    if not isinstance(extent.depth, int) and depth_block >= depth:
        depth_block = 1 << 40
    item_panels = -(-panels // col_blocks)
    single = groups * -(-tiles // item_tiles) * -(-panels // item_panels) < 8 * threads  # items are taken one by one
    streamed = not repack and item_tiles >= 3 and panel_bytes * panels > l2 // 2
    ahead = (item_panels * threads if single else 1) if streamed else 0
    return Split(extent, rows, vecs, lanes, item_tiles, item_panels, min(tap_block, extent.taps), depth_block, ahead)
