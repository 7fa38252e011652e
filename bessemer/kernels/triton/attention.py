"""Scaled dot-product attention in one pass over the keys, with the softmax kept running (flash attention)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import ceildiv
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.gpu.epilogue import moved
from bessemer.kernels.gpu.heads import Heads, heads_of, mask_of
from bessemer.kernels.gpu.shapes import (
    SM_BYTES_PER_US,
    STREAM_BYTES_PER_US,
    TENSOR_FLOP_PER_US,
    divides,
    fill_us,
    power_of_two,
    precision,
    shared_bytes,
    sizes,
    sms,
)
from bessemer.kernels.triton import emit

# (BM, BN, stages, warps)
TILES = (
    (128, 128, 2, 8), (128, 64, 3, 8), (128, 64, 2, 4), (64, 128, 2, 4), (64, 64, 2, 4), (64, 64, 3, 4), (64, 32, 3, 4),
    (32, 128, 2, 4), (32, 64, 2, 4), (16, 128, 2, 4), (16, 64, 3, 4), (16, 32, 2, 2), (16, 16, 2, 1),
)  # fmt: skip
START_US, MASK_US = 1.0, 0.00018  # the first loads, and what an element of the scores takes to be masked
TILES_F32 = (
    (64, 32, 2, 8), (32, 64, 2, 8), (32, 32, 2, 4), (16, 64, 2, 4), (16, 32, 2, 4), (16, 16, 2, 1),
)  # fmt: skip


class Attention:
    """attention with symbolic lengths, an additive or bool mask, causality, and fewer heads of k and v."""

    name = "triton_attention"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        heads = heads_of(problem)
        if isinstance(heads, Reason):
            return heads
        if not self.configs(problem, target):
            return Reason(f"heads of {heads.d} and {heads.dv} exceed {shared_bytes(target)} bytes of shared memory")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        heads = heads_of(problem)
        assert isinstance(heads, Heads)
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        tiles = TILES if heads.itemsize == 2 else TILES_F32
        fit = [c for c in tiles if _shared(heads, c) <= shared_bytes(target) and _registers(heads, c) <= 200]
        lean = [c for c in fit if (c[0] <= 16 or c[0] < 2 * s) and (c[1] <= 16 or c[1] < 2 * t)] or fit[-1:]
        found: list[Config] = [{"bm": bm, "bn": bn, "stages": stages, "warps": warps} for bm, bn, stages, warps in lean]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        heads = heads_of(problem)
        assert isinstance(heads, Heads)
        bm, bn = int(config["bm"]), int(config["bn"])
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        programs = -(-s // bm) * problem.typical(heads.batch * heads.heads)
        per_sm = math.ceil(programs / sms(target))
        steps = -(-t // bn)
        short = heads.itemsize == 2 and bm < 64  # the tensor cores' long side is not filled
        rate = TENSOR_FLOP_PER_US[heads.itemsize] * (0.6 * bm / 128 if short else 0.6)
        compute = per_sm * steps * 2 * bm * bn * sum(_widths(heads)) / rate
        exponentials = per_sm * steps * bm * bn / 28_000  # 16 a clock, and the arithmetic around them
        loads = per_sm * steps * bn * sum(_widths(heads)) * heads.itemsize / SM_BYTES_PER_US
        memory = moved(problem) / STREAM_BYTES_PER_US
        mask = per_sm * steps * bm * bn * MASK_US if problem.attr("has_mask") else 0.0
        late = START_US + steps * 0.15 * math.ceil(per_sm / 4)
        return fill_us(target) + late + max(compute + exponentials, loads, memory) + mask

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        heads = heads_of(problem)
        assert isinstance(heads, Heads)
        bm, bn = int(config["bm"]), int(config["bn"])
        code = emit.module("attention", problem)
        mask, strides, mask_t = mask_of(problem)
        args = (
            Ptr(0), Ptr(1), Ptr(2), Ptr(0 if mask == "none" else 3), *sizes(problem, (heads.s, heads.t, heads.heads)),
            *(Int(x) for x in strides), *code.args,
        )  # fmt: skip
        dp, dvp = _widths(heads)
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", int(config["stages"])), ("BM", bm), ("BN", bn),
            ("D", heads.d), ("DP", dp), ("DV", heads.dv), ("DVP", dvp), ("REPEAT", heads.repeat),
            ("SCALE", float(problem.attr("scale"))), ("CAUSAL", bool(problem.attr("causal"))), ("MASK", mask),
            ("MASK_T", mask_t), ("HEADS_INSIDE", heads.inside), ("EVEN", divides(problem, heads.t, bn)),
            ("PRECISION", precision(problem)),
        )  # fmt: skip
        launch = Launch("kernel", (ceildiv(heads.s, bm) * heads.batch * heads.heads,), args, options)
        return KernelCode("triton", code.text, (launch,))


def _widths(heads: Heads) -> tuple[int, int]:
    """The sizes of q's and v's heads, raised to powers of two."""
    return max(16, power_of_two(heads.d)), max(16, power_of_two(heads.dv))


def _shared(heads: Heads, tile: tuple[int, int, int, int]) -> int:
    """Shared memory: q, and the stages of k and v."""
    bm, bn, stages, _ = tile
    dp, dvp = _widths(heads)
    return (bm * dp + stages * bn * (dp + dvp) + (bm * bn if heads.itemsize == 4 else 0)) * heads.itemsize


def _registers(heads: Heads, tile: tuple[int, int, int, int]) -> int:
    """Registers per lane for the accumulator and the scores."""
    bm, bn, _, warps = tile
    return bm * (bn + _widths(heads)[1]) // (warps * 32) + 40


register(Attention())
