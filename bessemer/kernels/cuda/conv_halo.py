"""Convolutions of few channels, channels last, as products: a CTA holds the filter, and parts of the image that windows
share.

Kernels that fetch every window by itself read a pixel once for each tap from L2: that is what they wait for where
channels are few. Here a pixel is copied once for all windows of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, minimum
from bessemer.core.tensor_map import MOST_ELEMENTS, TensorMap, defect
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import (
    Config,
    Int,
    KernelCode,
    Launch,
    Limits,
    Map,
    Pack,
    Problem,
    Ptr,
    Reason,
    register,
)
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit, scalar
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.cuda.epilogue import RUN
from bessemer.kernels.cuda.filter import filter_of
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.shapes import shared_bytes, sms, upper
from bessemer.kernels.gpu.window import Window, window_of
from bessemer.kernels.row_sums import finished

ROW = 128  # bytes of a chunk of a channel's weights
STAGE_UNIT = 1024  # bytes that stages are whole multiples of
SWIZZLED = (16, 32, 64)  # channels of a pixel whose units copies can swizzle
MOST_CHANNELS, MOST_PIXELS = 256, 1 << 30
SUMS = {4: 96, 3: 192, 2: 256}  # channels times blocks, by warpgroups: what registers have room for
MOST_CONFIGS = 16
LAUNCH_US, CLOCK_MHZ = 2.0, 1600.0
COPY_BYTES_PER_US, MEMORY_BYTES_PER_US, STORE_BYTES_PER_US = 7_000_000.0, 3_350_000.0, 46_300.0  # all, all, of one SM
SHARED_BYTES_PER_CLOCK, PRODUCT_SHARE = 128.0, 0.7  # of the clocks that products and gathering take one after the other


@dataclass(frozen=True)
class Conv:
    """A convolution over lines and columns of images."""

    window: Window
    channels: int
    outputs: int
    taps: tuple[int, int]  # lines and columns of the filter

    @property
    def strides(self) -> tuple[int, int]:
        return self.window.strides[1], self.window.strides[2]

    @property
    def dilations(self) -> tuple[int, int]:
        return self.window.dilations[1], self.window.dilations[2]

    @property
    def units(self) -> int:
        """Runs of eight elements of a window."""
        return self.taps[0] * self.taps[1] * self.channels // 8

    @property
    def chunks(self) -> int:
        """Of 64 elements of a window."""
        return ceildiv(self.units, 8)

    @property
    def columns(self) -> int:
        """Channels of the output that a tile has."""
        return ceildiv(self.outputs, 32) * 32

    @property
    def ways(self) -> int:
        """Rows of a product that lie in the same banks, as far as they make a difference."""
        spread = self.channels == 8 if self.strides[1] == 2 else self.swizzle or self.channels % 16 == 8
        return 1 if spread and self.strides[1] <= 2 else 2

    @property
    def swizzle(self) -> int:
        """Bytes of a pixel whose units copies swizzle, else 0."""
        return 2 * self.channels if self.channels in SWIZZLED else 0


@dataclass(frozen=True)
class Tile:
    """Of each of `groups` warpgroups: `blocks` times 64 output pixels, `wide` columns; `stages` parts of the image."""

    wide: int
    blocks: int
    groups: int
    stages: int

    @property
    def high(self) -> int:
        return BLOCK // self.wide * self.blocks

    def part(self, conv: Conv) -> tuple[int, int]:
        """Lines and columns of the image that a tile's windows reach."""
        steps, reach = conv.strides, [(n - 1) * d + 1 for n, d in zip(conv.taps, conv.dilations)]
        return (self.high - 1) * steps[0] + reach[0], (self.wide - 1) * steps[1] + reach[1]

    def shared(self, conv: Conv) -> int:
        """Bytes of shared memory."""
        high, wide = self.part(conv)
        stage = ceildiv(high * wide * conv.channels * 2, STAGE_UNIT) * STAGE_UNIT
        ring = self.groups * self.stages
        return conv.chunks * conv.columns * ROW + ring * stage + 16 + 8 * (ring + 1)

    def tiles(self, conv: Conv) -> Dim:
        """Tiles of a warpgroup in all images."""
        _, height, width = conv.window.output
        return conv.window.batch * ceildiv(height, self.high) * ceildiv(width, self.wide)

    def lines(self, conv: Conv) -> bool:
        """Whether a copy sees a line of pixels as one run: short runs are slow."""
        return not conv.swizzle and self.part(conv)[1] * conv.channels <= MOST_ELEMENTS

    def map(self, conv: Conv) -> TensorMap:
        """How copies see the image."""
        images, (_, h, w), c = conv.window.batch, conv.window.input, conv.channels
        (high, wide), line = self.part(conv), w * c * 2
        if self.lines(conv):
            return TensorMap((w * c, 1, h, images), (line, line, h * line), (wide * c, 1, high, 1), 0)
        return TensorMap((c, w, h, images), (c * 2, line, h * line), (c, wide, high, 1), conv.swizzle)


class ConvHalo:
    """conv in f16 and bf16 over one or two spatial axes, NHWC, one group, with more than one tap, channels in multiples
    of 8; of so few that shared memory holds the filter and parts of the image."""

    name = "cuda_conv_halo"
    version = 1
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        conv = _conv(problem)
        if isinstance(conv, Reason):
            return conv
        if target.arch != ARCH:
            return Reason(f"needs the warpgroup products of {ARCH}, not {target.arch}")
        missing = supported(problem)
        if missing is not None:
            return Reason(missing)
        if finished(problem) is not None:
            return Reason("reads no sums of rows")
        if upper(problem, conv.window.pixels) > MOST_PIXELS:
            return Reason(f"takes at most {MOST_PIXELS} pixels")
        if not any(_tiles(problem, target, conv)):
            return Reason(f"holds a filter of {problem.operands[1].type} and parts of the image in shared memory")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found: list[Config] = [
            {f.name: getattr(t, f.name) for f in fields(Tile)} for t in _tiles(problem, target, _known(problem))
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))[:MOST_CONFIGS]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: of the slowest multiprocessor, of L2, or of memory."""
        conv, tile = _known(problem), _tile(config)
        tiles, steps = problem.typical(tile.tiles(conv)), ceildiv(conv.units, 2) * tile.blocks
        gathered = BLOCK * 32 * conv.ways + conv.columns * 32
        clocks = steps * (conv.columns / 2 + gathered / SHARED_BYTES_PER_CLOCK) * PRODUCT_SHARE
        stored = BLOCK * tile.blocks * conv.outputs * 2
        busy = ceildiv(tiles, sms(target)) * (clocks / CLOCK_MHZ + stored / STORE_BYTES_PER_US)
        high, wide = tile.part(conv)
        copied = tiles * high * wide * conv.channels * 2 / COPY_BYTES_PER_US
        nbytes = problem.typical(problem.operands[0].type.nbytes + problem.outputs[0].nbytes)
        return LAUNCH_US + max(busy, copied, nbytes / MEMORY_BYTES_PER_US)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        conv, tile = _known(problem), _tile(config)
        dtype = problem.operands[0].type.dtype
        (_, height, width), (_, pad_y, pad_x) = conv.window.output, conv.window.pads
        constants = {
            "C": conv.channels, "BN": conv.columns, "KERNEL_Y": conv.taps[0], "KERNEL_X": conv.taps[1],
            "STRIDE_Y": conv.strides[0], "STRIDE_X": conv.strides[1], "DILATION_Y": conv.dilations[0],
            "DILATION_X": conv.dilations[1], "PAD_Y": int(str(pad_y)), "PAD_X": int(str(pad_x)), "WIDE": tile.wide,
            "BLOCKS": tile.blocks, "GROUPS": tile.groups, "STAGES": tile.stages, "SWIZZLE": conv.swizzle,
            "LINES": int(tile.lines(conv)),
        }  # fmt: skip
        instructions = "\n".join(scalar.template(f"{name}.cuh") for name in ("tensor", "warp", "image"))
        product = emit.warpgroup_product_of_gathered_rows(conv.columns, dtype)
        module = emit.module("halo.cu", problem, constants, {"INSTRUCTIONS": instructions, "PRODUCT": product})
        numbers = (Int(d, 32) for d in (conv.window.batch, height, width, conv.outputs))
        options = (("warps", 4 * tile.groups), ("shared", tile.shared(conv)), ("cluster", 1), ("pdl", True))
        grid = minimum(tile.tiles(conv), sms(target))
        launch = Launch("kernel", (grid,), (Map(0, tile.map(conv)), Ptr(1), *numbers, *module.args), options)
        blocks = ceildiv(conv.outputs, BLOCK)
        packed = TensorType(dtype, (blocks, conv.chunks, BLOCK, BLOCK))
        pack = Pack(1, "swizzled_blocks", ("taps", blocks, conv.chunks), packed)
        return KernelCode("cuda", module.text, (launch,), (pack,))


def _tile(config: Config) -> Tile:
    return Tile(**{f.name: int(config[f.name]) for f in fields(Tile)})


def _tiles(problem: Problem, target: Limits, conv: Conv) -> Iterator[Tile]:
    """Tiles that a multiprocessor has room for, and copies can fill, each with as many stages as fit."""
    for groups, most in SUMS.items():
        for blocks in (1, 2):
            for wide in (8, 16, 32, 64):
                for stages in (4, 3, 2):
                    tile = Tile(wide, blocks, groups, stages)
                    if conv.columns * blocks > most or max(tile.part(conv)) > MOST_ELEMENTS:
                        continue
                    x = problem.operands[0].type
                    broken = defect(tile.map(conv), x.dtype.itemsize, x.nbytes, problem.range_map)
                    far = any(upper(problem, d) > MOST_PIXELS for d in tile.map(conv).dims)  # for 32 bits with a sign
                    if tile.shared(conv) <= shared_bytes(target) and broken is None and not far:
                        yield tile
                        break


def _known(problem: Problem) -> Conv:
    found = _conv(problem)
    assert isinstance(found, Conv)
    return found


def _conv(problem: Problem) -> Conv | Reason:
    found = filter_of(problem)
    if isinstance(found, Reason):
        return found
    if found.dtype not in (dt.f16, dt.bf16):
        return Reason(f"multiplies f16 and bf16, not {found.dtype}")
    if not problem.operands[1].constant:
        return Reason("packs its weights ahead, and these are not constant")
    n, c = found.outputs, found.channels
    if n % RUN or not 0 < n or not 0 < c <= MOST_CHANNELS:
        return Reason(f"reads and writes pixels of whole 16 bytes, of {MOST_CHANNELS} channels at most")
    win = window_of(problem, found.sizes)
    if isinstance(win, Reason):
        return win
    _, height, width = win.kernel
    if not isinstance(height, int) or not isinstance(width, int) or not all(type(p) is int for p in win.pads):
        return Reason("needs a filter and padding of fixed sizes")
    if height * width == 1:
        return Reason("shares pixels between windows, and these have one tap")
    return Conv(win, c, n, (height, width))


register(ConvHalo())
