"""3x3 convolution by Winograd's F(4x4, 3x3): a quarter of the multiplications of the direct form.

Its results differ from the exact ones by a few more roundings: about 2e-6 of the largest output over 256 channels,
where the direct form has 0.2e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import ConvForm, conv_form, refuse_packed
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import Extent, counts, shape_configs, tile_text

_POINTS = 36
_GAP = 16  # GAP of conv_winograd.h
_INTS = 13
_INPUT_CYCLES, _OUTPUT_CYCLES = 170.0, 130.0  # of transforming a vector of a tile


class ConvWinograd:
    """NHWC, 3x3, stride 1, one group, at least 16 channels in and out."""

    name = "c_conv_winograd"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = refuse_packed(problem)
        if reason is not None:
            return reason
        form = conv_form(problem)
        if form.kernel != (1, 3, 3) or form.stride != (1, 1, 1) or form.dilation[1:] != (1, 1) or form.groups != 1:
            return Reason("not 3x3 with stride 1, no dilation and one group")
        if form.size[0] != 1:
            return Reason("three spatial dims")
        return Reason("fewer than 16 channels") if min(form.channels, form.outputs) < 16 else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        form = conv_form(problem)
        block = min(max(1, problem.typical(_tiles(form))), _tile_block(form, target, 6))
        return shape_configs(problem, target, Extent(1, block, form.outputs, 1, form.channels))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        form, lanes = conv_form(problem), simd.lanes(target.arch)
        rows, vecs = int(config["rows"]), int(config["vecs"])
        (tiles,) = cost.typical(problem, _tiles(form))
        tile_block, panel_block = _blocks(problem, target, form, config)
        inner, outer = -(-form.channels // lanes), -(-form.outputs // lanes)
        panels = -(-outer // vecs)
        row_blocks, col_blocks = -(-tiles // tile_block), -(-panels // panel_block)
        sums = sum(
            n * m * cost.tile_cycles(r, v, 1, form.channels, cost.L2_BYTES)
            for r, n in cost.pieces(-(-tiles // row_blocks), rows)
            for v, m in cost.pieces(outer, vecs)
        )
        filters = 4.0 * _POINTS * form.channels * outer * lanes
        stream = filters * row_blocks / cost.bytes_per_cycle(target, filters)
        transforms = tiles * (_INPUT_CYCLES * inner * col_blocks + _OUTPUT_CYCLES * outer)
        work = _POINTS * row_blocks * sums + transforms + cost.traffic_cycles(problem, target)
        cycles = max(work, stream) + 0.3 * min(work, stream)
        return cost.microseconds(target, cycles, row_blocks * col_blocks)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form, lanes = conv_form(problem), simd.lanes(target.arch)
        rows, vecs = int(config["rows"]), int(config["vecs"])
        threads = target.limits.get("threads", 1)
        vectors = -(-form.outputs // lanes)
        panels = -(-vectors // vecs)
        tiles = _tiles(form)
        tile_block, panel_block = _blocks(problem, target, form, config)
        depth, width = -(-form.channels // lanes) * lanes, min(vecs, vectors) * lanes
        scratch = _POINTS * (tile_block * (depth + width) + 2 * _GAP)
        sizes = (form.channels, form.outputs, *form.size[1:], *form.out[1:], *form.pad[1:])
        ints = tuple(Int(v) for v in (*sizes, tiles, tile_block, panels, panel_block, scratch))
        store = store_code(problem, ptr0=3, int0=_INTS)
        blocks = counts(tiles, tile_block)
        text = "\n".join(
            (
                simd.header(target.arch),
                f"#define ZERO_ROW {max(1024, 1 << form.channels.bit_length())}",
                tile_text(
                    (max(4, rows), vecs),
                    sorted({n for b in blocks for n in counts(b, rows)}),
                    counts(vectors, vecs),
                    store.text,
                ),
                simd.template("conv_winograd.h"),
            )
        )
        items = ceildiv(tiles, tile_block) * -(-panels // panel_block)
        args = (Ptr(0), Ptr(1), Ptr(base.WORKSPACE), *ints, *store.args)
        packed = TensorType(dt.f32, (_POINTS * form.channels * vectors * lanes,))
        pack = Pack(1, "panels_of_winograd", (lanes, panels), packed)
        return KernelCode("c", text, (Launch("conv_winograd", (items,), args),), (pack,), 4 * threads * scratch)


def _tiles(form: ConvForm) -> Dim:
    return form.batch * ceildiv(form.out[1], 4) * ceildiv(form.out[2], 4)


def _blocks(problem: Problem, target: Limits, form: ConvForm, config: Config) -> tuple[int, int]:
    """Tiles and panels of a work item: enough items for all threads."""
    rows, threads = int(config["rows"]), target.limits.get("threads", 1)
    vectors = -(-form.outputs // simd.lanes(target.arch))
    panels = -(-vectors // int(config["vecs"]))
    typical = max(1, problem.typical(_tiles(form)))
    tile_block = min(_tile_block(form, target, rows), typical)
    row_blocks = -(-typical // tile_block)
    if row_blocks % threads == 0 or row_blocks >= 8 * threads:
        return tile_block, panels
    if typical >= 16 * threads:
        row_blocks = -(-row_blocks // threads) * threads
        return -(-typical // row_blocks), panels
    return tile_block, -(-panels // threads)


def _tile_block(form: ConvForm, target: Limits, rows: int) -> int:
    """Tiles of a work item: their transformed inputs take under half of the L2 cache, and fill a few register tiles."""
    fit = target.limits.get("l2", 1 << 20) * 2 // 5 // (4 * _POINTS * form.channels)
    return max(2 * rows, 16, min(48, fit // rows * rows))


base.register(ConvWinograd())
