"""Convolutions of many pixels, channels last, as products whose windows the copy engine fetches (TMA)."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import product
from bessemer.core.tensor_map import TensorMap, Window
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.cuda import tiled
from bessemer.kernels.cuda.tiled import Rows
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.triton.shapes import element_types
from bessemer.kernels.triton.window import window_of

MOST_REACH = 255  # from a window's corner to its last tap


class ConvTma:
    """conv in f16 and bf16 over one or two spatial axes, NHWC, one group, channels in multiples of 8, at least 32."""

    name = "cuda_conv_tma"
    version = 3
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        rows = _rows(problem)
        return rows if isinstance(rows, Reason) else tiled.reason(problem, target, rows)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return tiled.ordered(problem, target, _known(problem))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return tiled.microseconds(problem, target, _known(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return tiled.code(problem, target, _known(problem), config)


def _known(problem: Problem) -> Rows:
    rows = _rows(problem)
    assert isinstance(rows, Rows)
    return rows


def _rows(problem: Problem) -> Rows | Reason:
    other = other_op(problem, ("conv",))
    if other is not None:
        return other
    dtype = element_types(problem, 2)
    if isinstance(dtype, Reason):
        return dtype
    n, c, *kernel = problem.operands[1].type.shape
    if problem.attr("layout") != "NHWC" or problem.attr("groups") != 1 or len(kernel) > 2:
        return Reason("computes channels-last convolutions with one group over at most two axes")
    if not isinstance(n, int) or not isinstance(c, int) or c % 8 or c < BLOCK // 2:
        return Reason(f"reads pixels of whole 16 bytes and at least {BLOCK // 2} channels, not of {c}")
    chunks, size = tiled.ceildiv_int(c, BLOCK), dtype.itemsize
    x = problem.operands[0].type.shape
    if _is_product(problem, kernel):
        m = TensorMap((c, product(x[:-1])), (c * size,), (BLOCK, 1))
        return Rows("tiled_matmul.cuh", product(x[:-1]), n, chunks, "taps", {}, m)
    win = window_of(problem, kernel)
    if isinstance(win, Reason):
        return win
    (_, height, width), (_, stride_y, stride_x), (_, dilation_y, dilation_x) = win.kernel, win.strides, win.dilations
    first, last = _pads(problem, len(kernel))
    if not isinstance(height, int) or not isinstance(width, int) or not all(type(p) is int for p in (*first, *last)):
        return Reason("needs a filter and padding of fixed sizes")
    reach_y, reach_x = (height - 1) * dilation_y, (width - 1) * dilation_x
    if max(reach_y, reach_x) > MOST_REACH:
        return Reason(f"reaches over {MOST_REACH} pixels at most, not over {height} x {width}")
    lower, upper = (-first[1], -first[0]), (last[1] - reach_x, last[0] - reach_y)
    _, h, w = win.input
    m = TensorMap(
        (c, w, h, win.batch), (c * size, w * c * size, h * w * c * size), (BLOCK, 1),
        window=Window(lower, upper, (stride_x, stride_y)),
    )  # fmt: skip
    sizes = {
        "out_height": win.output[1], "out_width": win.output[2], "stride_y": stride_y, "stride_x": stride_x,
        "pad_y": first[0], "pad_x": first[1], "dilation_y": dilation_y, "dilation_x": dilation_x, "kernel_x": width,
        "chunks_of_tap": chunks,
    }  # fmt: skip
    return Rows("tiled_conv.cuh", win.pixels, n, height * width * chunks, "whole_taps", sizes, m)


def _is_product(problem: Problem, kernel: Sequence[object]) -> bool:
    plain = all(v == 1 for v in (*kernel, *problem.attr("strides")))
    return plain and all(p == 0 for p in problem.attr("pads"))


def _pads(problem: Problem, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding before and after the two axes."""
    pads = tuple(problem.attr("pads"))
    (y, x), (end_y, end_x) = ((0,) * (2 - rank) + p for p in (pads[:rank], pads[rank:]))
    return (y, x), (end_y, end_x)


register(ConvTma())
