"""Convolutions of few pixels, channels last, as products: a CTA gathers its pixels' windows into its slab."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, register
from bessemer.kernels.cuda import skinny
from bessemer.kernels.cuda.filter import filter_of
from bessemer.kernels.cuda.skinny import Rows
from bessemer.kernels.gpu.window import window_of


class ConvSkinny:
    """conv in f16 and bf16 over one or two spatial axes, NHWC, one group, channels in multiples of 8."""

    name = "cuda_conv_skinny"
    version = 5
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        rows = _rows(problem)
        return rows if isinstance(rows, Reason) else skinny.reason(problem, target, rows)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return skinny.ordered(problem, target, _known(problem))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return skinny.microseconds(problem, target, _known(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return skinny.code(problem, _known(problem), config)


def _known(problem: Problem) -> Rows:
    rows = _rows(problem)
    assert isinstance(rows, Rows)
    return rows


def _rows(problem: Problem) -> Rows | Reason:
    found = filter_of(problem)
    if isinstance(found, Reason):
        return found
    n, c, kernel = found.outputs, found.channels, found.sizes
    win = window_of(problem, kernel)
    if isinstance(win, Reason):
        return win
    _, height, width = win.kernel
    if not isinstance(height, int) or not isinstance(width, int):
        return Reason(f"needs a filter of fixed size, not {problem.operands[1].type}")
    if (height, width, *win.strides[1:], *win.pads[1:]) == (1, 1, 1, 1, 0, 0) and not any(problem.attr("pads")):
        return Rows("rows_matmul.cuh", win.pixels, n, c, "taps", {}, {"OWN_TOKENS": 0})
    sizes = dict(zip(("height", "width", "out_height", "out_width", "pad_h", "pad_w"),
                     (*win.input[1:], *win.output[1:], *win.pads[1:])))  # fmt: skip
    constants = {"C": c, "KERNEL_W": width} | dict(
        zip(("STRIDE_H", "STRIDE_W", "DILATION_H", "DILATION_W"), (*win.strides[1:], *win.dilations[1:]))
    )
    return Rows("rows_conv.cuh", win.pixels, n, height * width * c, "taps", sizes, constants)


register(ConvSkinny())
