"""Max, average and Lp pooling over small windows, every tap one vector load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.gpu.shapes import (
    MEMORY_BYTES_PER_US,
    SM_BYTES_PER_US,
    element_types,
    fill_us,
    huge,
    power_of_two,
    sizes,
    sms,
)
from bessemer.kernels.gpu.window import Window, window_of
from bessemer.kernels.triton import emit

TILES = ((32, 32, 4), (16, 64, 4), (8, 128, 4), (64, 32, 4), (16, 32, 4), (4, 64, 2), (1, 64, 1), (1, 128, 2))
TILES_FIRST = ((128, 1, 4), (256, 1, 4), (512, 1, 4), (64, 1, 2))
MAX_TAPS = 64


class Pool:
    """pool of kinds max, avg and lp, either layout, one to three spatial axes."""

    name = "triton_pool"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("pool",), into=1)
        if other is not None:
            return other
        dtype = element_types(problem, 1)
        if isinstance(dtype, Reason):
            return dtype
        if len(problem.outputs) != 1 or problem.attr("kind") not in ("max", "avg", "lp"):
            return Reason(f"has one output, of kind max, avg or lp, not {problem.attr('kind')} with indices")
        if not all(isinstance(k, int) for k in problem.attr("kernel")) or math.prod(problem.attr("kernel")) > MAX_TAPS:
            return Reason(f"unrolls at most {MAX_TAPS} taps, not {tuple(str(k) for k in problem.attr('kernel'))}")
        window = window_of(problem, problem.attr("kernel"))
        return window if isinstance(window, Reason) else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        _, channels = _view(problem)
        widest = max(32, power_of_two(problem.typical(channels)))
        tiles = [t for t in TILES if t[1] <= widest] if _window(problem).last else TILES_FIRST
        found: list[Config] = [{"bm": bm, "bn": bn, "warps": warps} for bm, bn, warps in tiles]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: bytes through L1 per multiprocessor, or device memory."""
        pixels, channels = (problem.typical(d) for d in _view(problem))
        bm, bn, taps = int(config["bm"]), int(config["bn"]), int(math.prod(problem.attr("kernel")))
        per_sm = math.ceil(-(-pixels // bm) * -(-channels // bn) / sms(target))
        through = per_sm * bm * bn * taps * problem.operands[0].type.dtype.itemsize / (2 * SM_BYTES_PER_US)
        memory = problem.typical(problem.operands[0].type.nbytes + problem.outputs[0].nbytes) / MEMORY_BYTES_PER_US
        return fill_us(target) + max(through, memory) + 0.02 * per_sm

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        window, (pixels, channels) = _window(problem), _view(problem)
        bm, bn = int(config["bm"]), int(config["bn"])
        code = emit.module("pool", problem, None if window.last else ())
        rank = len(problem.attr("kernel"))
        end = (0,) * (3 - rank) + tuple(problem.attr("pads"))[rank:]
        args = (
            Ptr(0), *sizes(problem, (pixels, channels, *window.input, *window.output, *window.pads, *end)), *code.args,
        )  # fmt: skip
        attrs: dict[str, Any] = dict(problem.attrs)
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", 1), ("BM", bm), ("BN", bn),
            *zip(("KD", "KH", "KW"), window.kernel), *zip(("SD", "SH", "SW"), window.strides),
            *zip(("DD", "DH", "DW"), window.dilations), ("LAST", window.last), ("KIND", attrs["kind"]),
            ("INCLUDE_PAD", bool(attrs.get("count_include_pad", False))), ("POWER", int(attrs.get("p", 2))),
            ("WIDE", huge(problem)),
        )  # fmt: skip
        grid = (ceildiv(pixels, bm) * ceildiv(channels, bn),)
        return KernelCode("triton", code.text, (Launch("kernel", grid, args, options),))


def _window(problem: Problem) -> Window:
    window = window_of(problem, problem.attr("kernel"))
    assert isinstance(window, Window)
    return window


def _view(problem: Problem) -> tuple[Dim, Dim]:
    """(output pixels, channels): channels first, every channel is an image of its own."""
    window = _window(problem)
    if window.last:
        return window.pixels, window.channels
    return window.batch * window.channels * product(window.output), 1


register(Pool())
