"""Transposed convolution by phases: outputs that use the same taps are one implicit matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.gpu.shapes import Tiling, element_types, precision, shared_bytes, sizes
from bessemer.kernels.gpu.window import Window, window_of
from bessemer.kernels.triton import emit

TILES = (
    (128, 128, 64, 3, 8), (128, 64, 64, 3, 4), (64, 64, 64, 4, 4), (64, 128, 64, 3, 4), (64, 32, 64, 4, 4),
    (64, 64, 32, 4, 4), (64, 32, 32, 4, 4), (32, 32, 32, 4, 4), (128, 16, 32, 3, 4), (64, 16, 16, 3, 4),
)  # fmt: skip
TILES_F32 = ((64, 64, 16, 3, 8), (64, 32, 16, 3, 4), (32, 32, 32, 3, 4), (64, 16, 16, 3, 4))
MAX_TAPS = 64


class ConvTranspose:
    """conv_transpose with a constant filter, either layout, any stride, dilation and number of groups."""

    name = "triton_conv_transpose"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("conv_transpose",), into=1)
        if other is not None:
            return other
        dtype = element_types(problem, 2)
        if isinstance(dtype, Reason):
            return dtype
        w = problem.operands[1]
        if not w.constant or not all(isinstance(d, int) for d in w.type.shape):
            return Reason("needs a constant filter, to store it by output channel")
        if _filter(problem)[2] > MAX_TAPS:
            return Reason(f"unrolls at most {MAX_TAPS} taps, not those of {w.type}")
        window = window_of(problem, w.type.shape[2:])
        return window if isinstance(window, Reason) else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        oc, ic, _ = _filter(problem)
        tiles = TILES if problem.operands[0].type.dtype.itemsize == 2 else TILES_F32
        lean = [t for t in tiles if (t[1] <= 16 or t[1] < 2 * oc) and t[2] < max(32, 2 * ic)] or tiles[-1:]
        found: list[Config] = [
            {"bm": bm, "bn": bn, "bk": bk, "stages": stages, "warps": warps}
            for bm, bn, bk, stages, warps in lean
            if _tiling(problem, (bm, bn, bk, stages, warps)).shared <= shared_bytes(target)
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        bm, bn, bk, stages, warps = (int(config[k]) for k in ("bm", "bn", "bk", "stages", "warps"))
        return _tiling(problem, (bm, bn, bk, stages, warps)).microseconds(problem, target)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        window, (oc, ic, taps) = _window(problem), _filter(problem)
        groups = int(problem.attr("groups"))
        bm, bn, bk = (int(config[k]) for k in ("bm", "bn", "bk"))
        code = emit.module("conv_transpose", problem, None if window.last else (1, 2))
        pixels = _phase_pixels(window)
        args = (
            Ptr(0), Ptr(1), *sizes(problem, (pixels, oc, *window.input, *window.output, *window.pads)), *code.args,
        )  # fmt: skip
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", int(config["stages"])), ("BM", bm), ("BN", bn),
            ("BK", bk), ("GROUPS", groups), ("IC", ic), *zip(("KD", "KH", "KW"), window.kernel),
            *zip(("SD", "SH", "SW"), window.strides), *zip(("DD", "DH", "DW"), window.dilations),
            ("LAST", window.last),
            ("PRECISION", precision(problem)),
        )  # fmt: skip
        grid = (ceildiv(pixels, bm) * ceildiv(oc, bn), math.prod(window.strides), groups)
        stored = TensorType(problem.operands[1].type.dtype, (groups * oc, taps * -(-ic // bk) * bk))
        pack = Pack(1, "taps_of_transposed_filter", (bk, groups), stored)
        return KernelCode("triton", code.text, (Launch("kernel", grid, args, options),), (pack,))


def _window(problem: Problem) -> Window:
    window = window_of(problem, problem.operands[1].type.shape[2:])
    assert isinstance(window, Window)
    return window


def _filter(problem: Problem) -> tuple[int, int, int]:
    """(output and input channels of a group, taps)."""
    ic, oc, *kernel = problem.operands[1].type.shape
    taps = product(kernel)
    assert isinstance(oc, int) and isinstance(ic, int) and isinstance(taps, int)
    return oc, ic // int(problem.attr("groups")), taps


def _phase_pixels(window: Window) -> Dim:
    return window.batch * product(ceildiv(o, s) for o, s in zip(window.output, window.strides))


def _tiling(problem: Problem, tile: tuple[int, int, int, int, int]) -> Tiling:
    """The product of one phase; phases and groups are its batch."""
    window, (oc, ic, taps) = _window(problem), _filter(problem)
    phases = math.prod(window.strides)
    depth = -(-taps // phases) * -(-ic // tile[2]) * tile[2]
    batch, itemsize = phases * int(problem.attr("groups")), problem.operands[0].type.dtype.itemsize
    return Tiling(problem.typical(_phase_pixels(window)), oc, depth, batch, itemsize, *tile)


register(ConvTranspose())
