"""Depthwise convolution channels last: every tap is one vector load and one multiply-add; L1 serves the overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason, register
from bessemer.kernels.gpu.epilogue import moved
from bessemer.kernels.gpu.shapes import STREAM_BYTES_PER_US, fill_us, power_of_two, sizes, sms
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.conv_igemm import conv_reason, filter_sizes, window

TILES = (  # pixels, channels, warps
    (32, 32, 4), (16, 64, 4), (8, 128, 4), (64, 32, 4), (16, 32, 4), (8, 64, 2), (4, 64, 2), (32, 64, 4), (64, 64, 8),
)  # fmt: skip
MAX_TAPS = 64
# of a program, one of its products, the loads of a tap, and a line of the filter for one warp
PROGRAM_US, TERM_US, TAP_US, LINE_US = 0.32, 1.65e-5, 0.067, 0.00166
# Beside these, as measured and for no known cause: programs of few pixels, eight elements to a thread, and others
FEW_US, EIGHT_US, OTHER_US = 0.75, 0.25, -0.35


class ConvDepthwise:
    """conv with one input channel per group and as many outputs, channels last."""

    name = "triton_conv_depthwise"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = conv_reason(problem)
        if reason is not None:
            return reason
        oc, ic, taps = filter_sizes(problem)
        if problem.attr("layout") != "NHWC":
            return Reason("computes channels last, not channels first")
        if ic != 1 or problem.attr("groups") != oc:
            return Reason(f"computes one input and one output channel per group, not {problem.operands[1].type}")
        if taps > MAX_TAPS:
            return Reason(f"unrolls at most {MAX_TAPS} taps, not {taps}")
        return None if problem.operands[1].constant else Reason("needs a constant filter, to store it [taps, C]")

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        channels = power_of_two(filter_sizes(problem)[0])
        fit = [t for t in TILES if t[1] <= max(32, channels)]
        found: list[Config] = [{"bm": bm, "bn": bn, "warps": warps} for bm, bn, warps in fit]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: products or device memory, and the filter that all programs fetch ahead, whose
        lines L2 gives to one warp at a time. The constants fit 280 timings on an H200, and 221 later ones with what the
        layout costs, with a mean error of 11 %."""
        bm, bn, warps = (int(config[k]) for k in ("bm", "bn", "warps"))
        channels, _, taps = filter_sizes(problem)
        rows, columns = -(-problem.typical(window(problem).pixels) // bm), -(-channels // bn)
        per_sm = math.ceil(rows * columns / sms(target))
        compute = per_sm * (PROGRAM_US + bm * bn * taps * TERM_US)
        ahead = rows * warps * 64 / min(bn, channels) * LINE_US
        layout = FEW_US if bm < 16 else EIGHT_US if bm * bn == 256 * warps else OTHER_US
        return fill_us(target) + taps * TAP_US + layout + max(compute, moved(problem) / STREAM_BYTES_PER_US) + ahead

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        bm, bn = int(config["bm"]), int(config["bn"])
        win = window(problem)
        channels, _, taps = filter_sizes(problem)
        code = emit.module("conv_depthwise", problem)
        args = (Ptr(0), Ptr(1), *sizes(problem, (win.pixels, channels, *win.input, *win.output, *win.pads)), *code.args)
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", 1), ("BM", bm), ("BN", bn),
            *zip(("KD", "KH", "KW"), win.kernel), *zip(("SD", "SH", "SW"), win.strides),
            *zip(("DD", "DH", "DW"), win.dilations),
        )  # fmt: skip
        launch = Launch("kernel", (ceildiv(win.pixels, bm) * ceildiv(channels, bn),), args, options)
        pack = Pack(1, "channels_by_tap", (), TensorType(problem.operands[1].type.dtype, (taps, channels)))
        return KernelCode("triton", code.text, (launch,), (pack,))


register(ConvDepthwise())
