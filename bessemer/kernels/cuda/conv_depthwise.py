"""Depthwise convolutions, channels last: threads compute tiles of pixels, and read what their windows share once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import (
    Config,
    Int,
    KernelCode,
    Launch,
    Limits,
    Pack,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
)
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.gpu.shapes import element_types, sms, upper
from bessemer.kernels.gpu.window import Window, window_of

TILES = ((1, 1), (1, 2), (1, 4), (2, 2), (1, 7), (1, 8), (2, 4))  # output pixels along height and width
THREADS = (128, 64)
REPEATS = (1, 4)
RUN = 8  # channels of a thread
HELD_TAPS = 9  # that a thread keeps in registers
MOST_TAPS, MOST_REACH = 81, 32  # bits of a mask of columns
MOST_REGISTERS = 240
MOST_UNROLLED = 200  # runs of multiply-adds
CLOCK_MHZ = 1750.0
# a launch, and what a tile waits for its loads where few threads hide it: as a share of that, for each tap not held too
LATENCY_US, WINDOW_US, TAP = 1.33, 0.33, 0.17
BYTES_PER_US = 4_000_000.0
STORE_STEPS = 2  # instructions that an element of the output takes beside its sum
TILE_STEPS = 20  # and a tile
ISSUE_CLOCKS, CHAIN_CLOCKS = 1.93, 0.53  # of an instruction: where many warps share a scheduler, and of each warp


@dataclass(frozen=True)
class _Tile:
    """How threads share a filter's outputs: see the head of templates/depthwise.cu."""

    window: Window
    channels: int
    high: int
    wide: int
    threads: int
    repeat: int

    @property
    def taps(self) -> tuple[int, int]:
        _, h, w = self.window.kernel
        assert isinstance(h, int) and isinstance(w, int)
        return h, w

    @property
    def held(self) -> bool:
        return math.prod(self.taps) <= HELD_TAPS

    @property
    def reach(self) -> tuple[int, int]:
        """Input rows and columns of a tile."""
        steps, gaps = self.window.strides[1:], self.window.dilations[1:]
        high, wide = (
            (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip((self.high, self.wide), steps, self.taps, gaps)
        )
        return high, wide

    @property
    def loads(self) -> int:
        """Input pixels that a tile reads: those on a tap of one of its outputs."""
        steps, gaps = self.window.strides[1:], self.window.dilations[1:]
        high, wide = (
            len({i * s + k * d for i in range(n) for k in range(count)})
            for n, s, d, count in zip((self.high, self.wide), steps, gaps, self.taps)
        )
        return high * wide

    @property
    def runs(self) -> int:
        """Runs of channels of a CTA: as many as leave the fewest threads idle."""
        total = self.channels // RUN

        def busy(runs: int) -> float:
            return total / (runs * ceildiv(total, runs)) * (self.threads // runs * runs / self.threads)

        candidates = {ceildiv(total, blocks) for blocks in range(1, total + 1)}
        wide = [r for r in candidates if r <= self.threads and (r >= 8 or r == total)]
        return max(wide, key=lambda r: (busy(r), r))

    @property
    def registers(self) -> int:
        """Registers of a thread, roughly."""
        _, across = self.reach
        sums, pixels, weights = 8 * self.high * self.wide, 8 * across, 8 * self.taps[1] * min(self.high, 2)
        return sums + pixels + weights + (4 * math.prod(self.taps) if self.held else 0) + 40

    @property
    def unrolled(self) -> bool:
        """Whether the kernel's text has all rows of the filter, not a loop over them."""
        return self.high > 1 or self.steps <= MOST_UNROLLED

    @property
    def steps(self) -> int:
        """Runs of multiply-adds of a tile."""
        return self.high * self.wide * math.prod(self.taps)

    @property
    def places(self) -> int:
        """Tiles that a CTA computes at a time."""
        return self.threads // self.runs

    @property
    def tiles(self) -> Dim:
        w = self.window
        return w.batch * w.output[0] * ceildiv(w.output[1], self.high) * ceildiv(w.output[2], self.wide)

    @property
    def rounds(self) -> Dim:
        """CTAs for each block of channels."""
        return ceildiv(self.tiles, self.places * self.repeat)

    @property
    def blocks(self) -> int:
        return ceildiv(self.channels // RUN, self.runs)

    @property
    def shared(self) -> int:
        return 0 if self.held else math.prod(self.taps) * self.runs * 2 * RUN


class ConvDepthwise:
    """conv in f16 and bf16 with one input and output channel per group, NHWC, over one or two axes, a constant filter,
    channels in multiples of 8."""

    name = "cuda_conv_depthwise"
    version = 3
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("conv",), into=RUN)
        if other is not None:
            return other
        if target.arch != ARCH:
            return Reason(f"is written for {ARCH}, not {target.arch}")
        dtype = element_types(problem, 2)
        if isinstance(dtype, Reason):
            return dtype
        if dtype not in (dt.f16, dt.bf16):
            return Reason(f"multiplies f16 and bf16, not {dtype}")
        channels, ic, *kernel = problem.operands[1].type.shape
        if problem.attr("layout") != "NHWC" or ic != 1 or problem.attr("groups") != channels or len(kernel) > 2:
            return Reason("computes channels last, one input and output channel per group, over at most two axes")
        if not isinstance(channels, int) or channels % RUN:
            return Reason(f"reads pixels of whole 16 bytes, not of {channels} channels")
        if not problem.operands[1].constant or not all(isinstance(k, int) for k in kernel):
            return Reason("needs a constant filter, to store it [taps, C]")
        if math.prod(k for k in kernel if isinstance(k, int)) > MOST_TAPS:
            return Reason(f"unrolls at most {MOST_TAPS} taps, not those of {problem.operands[1].type}")
        window = window_of(problem, kernel)
        if isinstance(window, Reason):
            return window
        if upper(problem, window.pixels) >= 2**31:
            return Reason("counts at most 2^31 pixels")
        missing = supported(problem)
        if missing is not None:
            return Reason(missing)
        return None if self._tiles(problem) else Reason(f"reads at most {MOST_REACH} columns of a window at once")

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return sorted(self._tiles(problem), key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: instructions and bytes, which hide half of each other, and what nothing hides.
        The constants fit 490 timings on an H200, with a mean error of 13 %."""
        t, count = _tile(problem, config), sms(target)
        ctas = problem.typical(t.rounds) * t.blocks
        outputs, taps = t.high * t.wide, math.prod(t.taps)
        weights = RUN * (taps if t.held else taps * t.high)
        steps = RUN * (taps * outputs + t.loads + STORE_STEPS * outputs) + weights + TILE_STEPS
        per_sm = max(1.0, ctas / count)
        compute = per_sm * t.repeat * (t.threads // 32) * steps / 4 * ISSUE_CLOCKS / CLOCK_MHZ
        memory = problem.typical(problem.operands[0].type.nbytes + problem.outputs[0].nbytes) / BYTES_PER_US
        waits = WINDOW_US * (1.0 if t.held else 1.0 + TAP * taps) * t.repeat / max(1.0, per_sm * t.threads / 512)
        return LATENCY_US + waits + steps * CHAIN_CLOCKS / CLOCK_MHZ + math.hypot(compute, memory)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        t = _tile(problem, config)
        win, (kernel_h, kernel_w) = t.window, t.taps
        constants = {
            "C": t.channels, "TH": t.high, "TW": t.wide, "THREADS": t.threads, "REPEAT": t.repeat, "BR": t.runs,
            "HELD": int(t.held), "UNROLLED": int(t.unrolled), "KERNEL_H": kernel_h, "KERNEL_W": kernel_w,
            "STRIDE_H": win.strides[1], "STRIDE_W": win.strides[2], "DILATION_H": win.dilations[1],
            "DILATION_W": win.dilations[2],
        }  # fmt: skip
        dtype = problem.operands[1].type.dtype
        module = emit.module("depthwise.cu", problem, constants, {"KIND": dtype.name})
        sizes = (t.tiles, t.rounds * t.places, *win.input[1:], *win.output[1:], *win.pads[1:])
        args = (Ptr(0), Ptr(1), *(Int(d, 32) for d in sizes), *module.args)
        options = (("warps", t.threads // 32), ("shared", t.shared), ("cluster", 1), ("pdl", True))
        launch = Launch("kernel", (t.rounds * t.blocks,), args, options)
        pack = Pack(1, "channels_by_tap", (), TensorType(dtype, (math.prod(t.taps), t.channels)))
        return KernelCode("cuda", module.text, (launch,), (pack,))

    def _tiles(self, problem: Problem) -> list[Config]:
        """Tiles that fit registers, and are not mostly padding."""
        found: list[Config] = []
        for high, wide in TILES:
            for threads in THREADS:
                for repeat in REPEATS if high * wide <= 4 else (1,):  # larger tiles share their weights well
                    config = {"high": high, "wide": wide, "threads": threads, "repeat": repeat}
                    t = _tile(problem, config)
                    sizes = [problem.typical(d) for d in t.window.output[1:]]
                    fits = t.registers <= MOST_REGISTERS and t.reach[1] <= MOST_REACH
                    fits = fits and (high == 1 or t.steps <= MOST_UNROLLED)
                    if fits and (high == 1 or high < 2 * sizes[0]) and (wide == 1 or wide < 2 * sizes[1]):
                        found.append(config)
        return found


def _tile(problem: Problem, config: Config) -> _Tile:
    channels, _, *kernel = problem.operands[1].type.shape
    window = window_of(problem, kernel)
    assert isinstance(window, Window) and isinstance(channels, int)
    return _Tile(window, channels, *(int(config[k]) for k in ("high", "wide", "threads", "repeat")))


register(ConvDepthwise())
