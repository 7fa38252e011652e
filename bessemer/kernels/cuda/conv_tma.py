"""Convolutions of many pixels, channels last, as products whose windows the copy engine fetches (TMA).

Without padding, the taps of one row of a window are neighbours in memory. A tensor map whose pixels are such rows, one
for each output column, makes a filter of one column and many channels of them: few channels then fill whole chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import ceildiv, product
from bessemer.core.tensor_map import MOST_STEP, TensorMap, Window
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, register
from bessemer.kernels.cuda import tiled
from bessemer.kernels.cuda.filter import filter_of
from bessemer.kernels.cuda.tiled import Rows
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.window import Window as Windows
from bessemer.kernels.gpu.window import window_of

MOST_REACH = 255  # from a window's corner to its last tap


class ConvTma:
    """conv in f16 and bf16 over one or two spatial axes, NHWC, one group, channels in multiples of 8.

    At least 32 of them, unless nothing is padded and the taps of a row lie side by side."""

    name = "cuda_conv_tma"
    version = 8
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
    found = filter_of(problem)
    if isinstance(found, Reason):
        return found
    n, c, kernel = found.outputs, found.channels, found.sizes
    chunks, size = ceildiv(c, BLOCK), found.dtype.itemsize
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
    by_row = _rows_of_taps(problem, win, n, c, size)
    if by_row is not None and (c < BLOCK // 2 or by_row.chunks < height * width * chunks):
        return by_row
    if c < BLOCK // 2:
        return Reason(f"copies at least {BLOCK // 2} channels of a padded image, not {c}")
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


def _rows_of_taps(problem: Problem, win: Windows, n: int, c: int, size: int) -> Rows | None:
    """The convolution as one over rows of taps, where they are neighbours; a filter of `height` rows of them."""
    (_, height, width), (_, stride_y, stride_x), (_, dilation_y, dilation_x) = win.kernel, win.strides, win.dilations
    if any(p != 0 for p in problem.attr("pads")) or (width != 1 and dilation_x != 1):
        return None
    assert isinstance(height, int) and isinstance(width, int)
    (_, h, w), (_, out_h, out_w), images, reach = win.input, win.output, win.batch, (height - 1) * dilation_y
    line = w * c * size
    image = h * line
    if stride_y > MOST_STEP and reach < stride_y and h == out_h * stride_y:  # patches: every row of them is an image
        images, h, out_h, image, stride_y = images * out_h, reach + 1, 1, stride_y * line, 1
    m = TensorMap(
        (width * c, out_w, h, images), (stride_x * c * size, line, image), (BLOCK, 1),
        window=Window((0, 0), (0, -reach), (1, stride_y)),
    )  # fmt: skip
    chunks = ceildiv(width * c, BLOCK)
    sizes = {
        "out_height": out_h, "out_width": out_w, "stride_y": stride_y, "stride_x": 1, "pad_y": 0, "pad_x": 0,
        "dilation_y": dilation_y, "dilation_x": 1, "kernel_x": 1, "chunks_of_tap": chunks,
    }  # fmt: skip
    return Rows("tiled_conv.cuh", win.pixels, n, height * chunks, "whole_rows", sizes, m)


def _is_product(problem: Problem, kernel: Sequence[object]) -> bool:
    plain = all(v == 1 for v in (*kernel, *problem.attr("strides")))
    return plain and all(p == 0 for p in problem.attr("pads"))


def _pads(problem: Problem, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding before and after the two axes."""
    pads = tuple(problem.attr("pads"))
    (y, x), (end_y, end_x) = ((0,) * (2 - rank) + p for p in (pads[:rank], pads[rank:]))
    return (y, x), (end_y, end_x)


register(ConvTma())
