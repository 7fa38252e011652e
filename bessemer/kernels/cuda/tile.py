"""How products of many tokens are cut into tiles, and what the tiles of templates/tiled.cu take of a multiprocessor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bessemer.core.dim import ceildiv
from bessemer.kernels.base import Limits
from bessemer.kernels.gpu.shapes import shared_bytes
from bessemer.ops.row_sums import RUN

PART = 32  # channels that a thread finishes at once, with its neighbours
ROW = 128  # bytes of a chunk of one token or channel
RESERVED = 1024  # bytes of shared memory that a CTA takes by itself
REGISTERS = 65536  # of a multiprocessor
KEEP, MOST_REGISTERS = 24, 240  # of a copying thread, and of a multiplying one
FEW, MANY = 48, 112  # of the latter besides its sums: to finish a token with two loads ahead, and to finish two at once
ROOM = {1: 1.0, 2: 1.0, 3: 0.82, 4: 0.91, 6: 0.78, 8: 0.91}  # of an H200's multiprocessors, for clusters of so many
WIDTHS = {  # channels of a tile, by blocks and groups
    (1, 1): (64, 96, 128, 160, 192), (2, 1): (64, 96, 128), (1, 2): (64, 96, 128, 160, 192, 256),
    (2, 2): (96, 128, 160), (1, 3): (96, 128, 160, 192, 256), (1, 4): (96, 128),
}  # fmt: skip
CLUSTERS = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (3, 1), (4, 1), (2, 2), (2, 3), (4, 2))  # split and down
MOST_STAGES = 8


@dataclass(frozen=True)
class Tile:
    """One way to cut a product: `groups` warpgroups, each with `blocks` times 64 tokens, and `columns` channels.

    `resident` CTAs share a multiprocessor; see the head of templates/tiled.cu for `stages`, `split` and `down`."""

    blocks: int
    groups: int
    columns: int
    stages: int
    resident: int
    split: int = 1
    down: int = 1

    @property
    def tokens(self) -> int:
        return 64 * self.blocks * self.groups

    @property
    def cluster(self) -> int:
        return self.split * self.down

    @property
    def take(self) -> int:
        """Registers of a multiplying thread, where a copying warpgroup hands over all but KEEP of its own; else 0."""
        if self.resident > 1 or self.groups == 1 or (self.groups == 2 and self.blocks * self.columns < 256):
            return 0
        threads = 128 * (self.groups + 1)
        return min(240, (REGISTERS // threads // 8 * 8 * threads - 128 * KEEP) // (128 * self.groups) // 8 * 8)

    @property
    def warps(self) -> int:
        return 4 * self.groups + (4 if self.take else 2)

    @property
    def piece(self) -> int:
        """Rows of one copy of weights, a block or a part of one: every CTA of `down` makes as many copies, or of small
        ones one less."""
        even = (rows for rows in (64, 32, 16, 8) if self.columns % (rows * self.down) == 0)
        return next(even, 16)

    @property
    def adds_up_runs(self) -> bool:
        """Whether the CTAs that share a sum finish whole runs of a row."""
        parts = self.blocks * self.columns // PART
        return self.columns % RUN == 0 and all(k * parts // self.split % (RUN // PART) == 0 for k in range(self.split))

    @property
    def halves(self) -> int:
        """Products side by side that make up one of all channels, which would take more registers than threads have."""
        return 2 if self.groups == 3 and self.columns > 192 else 1

    @property
    def spare(self) -> int:
        """Registers of a multiplying thread that are free while it finishes two tokens at once. Where none are, it does
        not: it branches around what lies outside, token by token."""
        available = self.take or REGISTERS // (ceildiv(self.warps * self.resident, 4) * 128) // 8 * 8
        return min(available, MOST_REGISTERS) - self.blocks * self.columns // 2 - MANY

    @property
    def least_ahead(self) -> int:
        """Parts of a thread's sums for which the loads of the epilogue are under way at once, at the least."""
        return 2 if self.spare >= FEW - MANY else 1

    @property
    def stage(self) -> int:
        """Bytes of a stage of the ring, with its two barriers."""
        return (self.tokens + self.columns) * ROW + 16

    @property
    def received(self) -> int:
        """Bytes of the sums of others, with their barrier."""
        parts = ceildiv(self.blocks * self.columns // 32, self.split)
        return (self.split - 1) * parts * self.groups * 128 * 64 + 8

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return self.stages * self.stage + self.received


def every_tile(target: Limits) -> Iterator[Tile]:
    """All tiles that a multiprocessor has room for, each with as many stages as fit."""
    for (blocks, groups), widths in WIDTHS.items():
        for columns in widths:
            for resident in (1, 2, 3):
                sums = blocks * columns * groups * resident
                if resident > 1 and (groups > 2 or sums > 384 or blocks * columns > 192):
                    continue
                for split, down in CLUSTERS:
                    if split > 1 and (resident > 1 or blocks * columns // 32 < split):
                        continue
                    t = Tile(blocks, groups, columns, 0, resident, split, down)
                    room = (shared_bytes(target) + RESERVED) // resident - RESERVED - t.received
                    stages = min(MOST_STAGES, room // t.stage)
                    if stages >= 2:
                        yield replace(t, stages=stages)


SMALLEST = Tile(1, 1, 64, 4, 3)
