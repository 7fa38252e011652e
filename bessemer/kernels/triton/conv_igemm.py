"""Convolution as an implicit matrix product: the window is gathered tile by tile, never written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import (
    Config,
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
from bessemer.kernels.gpu.shapes import Tiling, element_types, precision, prefetched, shared_bytes, sizes
from bessemer.kernels.gpu.window import Window, window_of
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.partial import part_args, part_memory

# (BM, BN, BK, stages, warps) for 2-byte elements
TILES = (
    (128, 128, 64, 4, 8), (128, 128, 64, 3, 4), (256, 128, 64, 3, 8), (128, 256, 64, 3, 8), (256, 64, 64, 4, 8),
    (128, 64, 64, 4, 4), (64, 128, 64, 4, 4), (64, 64, 64, 5, 4), (64, 64, 128, 4, 4), (128, 32, 64, 4, 4),
    (128, 32, 128, 3, 4), (64, 32, 256, 3, 4),
    (64, 32, 64, 5, 4), (64, 32, 128, 5, 4), (64, 16, 128, 6, 4), (32, 64, 128, 4, 4), (32, 32, 128, 5, 4),
    (128, 64, 32, 4, 4), (64, 64, 32, 4, 4), (64, 32, 32, 4, 4), (128, 16, 32, 4, 4), (16, 64, 64, 5, 4),
    (128, 64, 16, 4, 4), (64, 64, 16, 4, 4), (128, 32, 16, 4, 4), (16, 32, 32, 4, 4),
)  # fmt: skip
TILES_F32 = (
    (128, 64, 16, 3, 8), (128, 128, 16, 3, 8), (64, 64, 16, 3, 4), (64, 64, 32, 3, 4), (64, 32, 32, 3, 4),
    (128, 32, 16, 3, 4), (32, 32, 32, 4, 4), (32, 64, 32, 3, 4), (16, 32, 32, 4, 4), (64, 16, 16, 3, 4),
)  # fmt: skip
GATHERED_BELOW = 8  # channels: fewer make no 16-byte load, so taps are gathered side by side


class ConvIgemm:
    """conv of any rank, stride, dilation, padding and number of groups; fastest channels last."""

    name = "triton_conv_igemm"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        return conv_reason(problem)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found = conv_candidates(problem, target, (1,))
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return conv_estimate(problem, target, config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return conv_code(problem, target, config)


def conv_reason(problem: Problem) -> Reason | None:
    """Why implicit-product kernels do not compute `problem`, if they do not."""
    other = other_op(problem, ("conv",), into=1)
    if other is not None:
        return other
    dtype = element_types(problem, 2)
    if isinstance(dtype, Reason):
        return dtype
    w = problem.operands[1].type.shape
    if not all(isinstance(d, int) for d in w):
        return Reason(f"needs a filter of fixed size, not {problem.operands[1].type}")
    if problem.attr("layout") not in ("NHWC", "NCHW"):
        return Reason(f"layout {problem.attr('layout')} is neither NHWC nor NCHW")
    window = window_of(problem, w[2:])
    return window if isinstance(window, Reason) else None


def window(problem: Problem) -> Window:
    """The window of a problem that `conv_reason` accepts."""
    found = window_of(problem, problem.operands[1].type.shape[2:])
    assert isinstance(found, Window)
    return found


def filter_sizes(problem: Problem) -> tuple[int, int, int]:
    """(output channels, input channels of a group, taps)."""
    oc, ic, *kernel = problem.operands[1].type.shape
    taps = product(kernel)
    assert isinstance(oc, int) and isinstance(ic, int) and isinstance(taps, int)
    return oc, ic, taps


def chunked(ic: int) -> bool:
    """Whether steps of the sum stay inside one tap."""
    return ic >= GATHERED_BELOW


def depth(ic: int, taps: int, bk: int) -> int:
    """The length of the sum with its padding."""
    return taps * -(-ic // bk) * bk if chunked(ic) else -(-taps * ic // bk) * bk


def conv_tiling(problem: Problem, config: Config) -> Tiling:
    """The tiling of the implicit product at the opt shape; groups are the batch."""
    bm, bn, bk, stages, warps, split = (int(config[k]) for k in ("bm", "bn", "bk", "stages", "warps", "split"))
    oc, ic, taps = filter_sizes(problem)
    groups, itemsize = int(problem.attr("groups")), problem.operands[0].type.dtype.itemsize
    pixels = problem.typical(window(problem).pixels)
    return Tiling(pixels, oc // groups, depth(ic, taps, bk), groups, itemsize, bm, bn, bk, stages, warps, split)


def conv_estimate(problem: Problem, target: Limits, config: Config) -> float:
    """Microseconds at the opt shape."""
    t = conv_tiling(problem, config)
    if config["swap"]:
        t = Tiling(t.n, t.m, t.k, t.batch, t.itemsize, t.bn, t.bm, t.bk, t.stages, t.warps, t.split)
    return t.microseconds(problem, target)


def conv_candidates(problem: Problem, target: Limits, splits: Sequence[int]) -> list[dict[str, int | str]]:
    """All tilings that fit the target and are not mostly padding."""
    oc, ic, taps = filter_sizes(problem)
    pixels, cols = problem.typical(window(problem).pixels), oc // int(problem.attr("groups"))
    two = problem.operands[0].type.dtype.itemsize == 2
    shapes = [
        (rows, columns, bk, stages, warps, swap)
        for bm, bn, bk, stages, warps in (TILES if two else TILES_F32)
        for swap in (0, 1)
        for rows, columns in [(bn, bm) if swap else (bm, bn)]
        if not swap or (rows < columns and two)
    ]
    lean = [
        s for s in shapes
        if (s[0] <= 16 or s[0] < 2 * pixels) and (s[1] <= 16 or s[1] < 2 * cols)
        and (s[2] <= 16 or depth(ic, taps, s[2]) <= 1.3 * depth(ic, taps, 16))
    ]  # fmt: skip
    found: list[dict[str, int | str]] = [
        {"bm": bm, "bn": bn, "bk": bk, "stages": stages, "warps": warps, "swap": swap, "split": split}
        for bm, bn, bk, stages, warps, swap in lean or shapes[-1:]
        for split in splits
        if split == 1 or split * bk <= depth(ic, taps, bk)
    ]
    return [c for c in found if conv_tiling(problem, c).shared <= shared_bytes(target)]


def conv_tiles(problem: Problem, t: Tiling) -> Dim:
    """Tiles of all groups."""
    oc, groups = filter_sizes(problem)[0], int(problem.attr("groups"))
    return ceildiv(window(problem).pixels, t.bm) * ceildiv(oc // groups, t.bn) * groups


def conv_code(problem: Problem, target: Limits, config: Config) -> KernelCode:
    """The kernel of a configuration, with memory for the parts of split sums."""
    t, win = conv_tiling(problem, config), window(problem)
    # the epilogue is over (batch, channel, pixel) where channels come first
    module = emit.module("conv_igemm", problem, None if win.last else (1, 2))
    oc, ic, taps = filter_sizes(problem)
    groups, constant = int(problem.attr("groups")), problem.operands[1].constant
    packs: tuple[Pack, ...] = ()
    if constant:
        shape = (oc, depth(ic, taps, t.bk))
        kind = TensorType(problem.operands[1].type.dtype, shape)
        packs = (Pack(1, "taps_of_filter", (t.bk, chunked(ic)), kind),)
    args = (
        Ptr(0), Ptr(1), *part_args(t),
        *sizes(problem, (win.pixels, oc // groups, *win.input, *win.output, *win.pads)), *module.args,
    )  # fmt: skip
    options: tuple[tuple[str, Any], ...] = (
        ("num_warps", t.warps), ("num_stages", t.stages), ("BM", t.bm), ("BN", t.bn), ("BK", t.bk), ("SPLIT", t.split),
        ("GROUPS", groups), ("IC", ic), *zip(("KD", "KH", "KW"), win.kernel), *zip(("SD", "SH", "SW"), win.strides),
        *zip(("DD", "DH", "DW"), win.dilations), ("LAST", win.last), ("CHUNKED", chunked(ic)), ("PACKED", constant),
        ("SWAP", bool(config["swap"])), ("PRECISION", precision(problem)),
        ("PREFETCH", prefetched(t, target) if constant else 0),
    )  # fmt: skip
    grid = (ceildiv(win.pixels, t.bm) * ceildiv(oc // groups, t.bn), t.split, groups)
    launch = Launch("kernel", grid, args, options)
    return KernelCode("triton", module.text, (launch,), packs, *part_memory(t, conv_tiles(problem, t)))


register(ConvIgemm())
