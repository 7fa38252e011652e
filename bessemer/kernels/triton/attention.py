"""Scaled dot-product attention in one pass over the keys, with the softmax kept running (flash attention)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.shapes import (
    FILL_US,
    LATENCY_US,
    SM_BYTES_PER_US,
    TENSOR_FLOP_PER_US,
    divides,
    element_types,
    power_of_two,
    precision,
    shared_bytes,
    sizes,
    sms,
)

# (BM, BN, stages, warps)
TILES = (
    (128, 128, 2, 8), (128, 64, 3, 8), (128, 64, 2, 4), (64, 128, 2, 4), (64, 64, 2, 4), (64, 64, 3, 4), (64, 32, 3, 4),
    (32, 128, 2, 4), (32, 64, 2, 4), (16, 128, 2, 4), (16, 64, 3, 4), (16, 32, 2, 2), (16, 16, 2, 1),
)  # fmt: skip
TILES_F32 = (
    (64, 32, 2, 8), (32, 64, 2, 8), (32, 32, 2, 4), (16, 64, 2, 4), (16, 32, 2, 4), (16, 16, 2, 1),
)  # fmt: skip
MAX_HEAD = 256


@dataclass(frozen=True)
class _Heads:
    """Sizes of one problem: queries s, keys t, head sizes d and dv."""

    batch: Dim
    heads: Dim
    s: Dim
    t: Dim
    d: int
    dv: int
    repeat: int
    inside: bool
    itemsize: int

    @property
    def widths(self) -> tuple[int, int]:
        return max(16, power_of_two(self.d)), max(16, power_of_two(self.dv))


class Attention:
    """attention with symbolic lengths, an additive or bool mask, causality, and fewer heads of k and v."""

    name = "triton_attention"
    version = 1
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        heads = _heads(problem)
        if isinstance(heads, Reason):
            return heads
        if not self.configs(problem, target):
            return Reason(f"heads of {heads.d} and {heads.dv} exceed {shared_bytes(target)} bytes of shared memory")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        heads = _heads(problem)
        assert isinstance(heads, _Heads)
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        tiles = TILES if heads.itemsize == 2 else TILES_F32
        fit = [c for c in tiles if _shared(heads, c) <= shared_bytes(target) and _registers(heads, c) <= 200]
        lean = [c for c in fit if (c[0] <= 16 or c[0] < 2 * s) and (c[1] <= 16 or c[1] < 2 * t)] or fit[-1:]
        found: list[Config] = [{"bm": bm, "bn": bn, "stages": stages, "warps": warps} for bm, bn, stages, warps in lean]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        heads = _heads(problem)
        assert isinstance(heads, _Heads)
        bm, bn = int(config["bm"]), int(config["bn"])
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        programs = -(-s // bm) * problem.typical(heads.batch * heads.heads)
        per_sm = math.ceil(programs / sms(target))
        steps = -(-t // bn)
        short = heads.itemsize == 2 and bm < 64  # the tensor cores' long side is not filled
        rate = TENSOR_FLOP_PER_US[heads.itemsize] * (0.6 * bm / 128 if short else 0.6)
        compute = per_sm * steps * 2 * bm * bn * sum(heads.widths) / rate
        exponentials = per_sm * steps * bm * bn / 28_000  # 16 a clock, and the arithmetic around them
        loads = per_sm * steps * bn * sum(heads.widths) * heads.itemsize / SM_BYTES_PER_US
        return FILL_US + LATENCY_US + steps * 0.15 * math.ceil(per_sm / 4) + max(compute + exponentials, loads)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        heads = _heads(problem)
        assert isinstance(heads, _Heads)
        bm, bn = int(config["bm"]), int(config["bn"])
        code = emit.module("attention", problem)
        mask, strides, mask_t = _mask(problem)
        args = (
            Ptr(0), Ptr(1), Ptr(2), Ptr(0 if mask == "none" else 3), *sizes(problem, (heads.s, heads.t, heads.heads)),
            *(Int(x) for x in strides), *code.args,
        )  # fmt: skip
        dp, dvp = heads.widths
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", int(config["stages"])), ("BM", bm), ("BN", bn),
            ("D", heads.d), ("DP", dp), ("DV", heads.dv), ("DVP", dvp), ("REPEAT", heads.repeat),
            ("SCALE", float(problem.attr("scale"))), ("CAUSAL", bool(problem.attr("causal"))), ("MASK", mask),
            ("MASK_T", mask_t), ("HEADS_INSIDE", heads.inside), ("EVEN", divides(problem, heads.t, bn)),
            ("PRECISION", precision(problem)),
        )  # fmt: skip
        launch = Launch("kernel", (ceildiv(heads.s, bm) * heads.batch * heads.heads,), args, options)
        return KernelCode("triton", code.text, (launch,))


def _heads(problem: Problem) -> _Heads | Reason:
    other = other_op(problem, ("attention",))
    if other is not None:
        return other
    dtype = element_types(problem, 3)
    if isinstance(dtype, Reason):
        return dtype
    q, k, v = (o.type.shape for o in problem.operands[:3])
    inside = problem.attr("layout") == "BSHD"
    rows, heads = (1, 2) if inside else (2, 1)
    d, dv = q[3], v[3]
    if not isinstance(d, int) or not isinstance(dv, int) or max(d, dv) > MAX_HEAD:
        return Reason(f"takes heads of at most {MAX_HEAD} elements, not {d} and {dv}")
    repeat = 1 if q[heads] == k[heads] else _ratio(q[heads], k[heads])
    if repeat == 0 or k[heads] != v[heads] or k[rows] != v[rows] or q[0] != k[0] or q[0] != v[0]:
        return Reason(f"q, k and v disagree: {', '.join(str(o.type) for o in problem.operands[:3])}")
    mask = _mask_reason(problem, (q[0], q[heads], q[rows], k[rows]))
    if mask is not None:
        return mask
    return _Heads(q[0], q[heads], q[rows], k[rows], d, dv, repeat, inside, dtype.itemsize)


def _ratio(many: Dim, few: Dim) -> int:
    """How many heads of q share one of k; 0 where that is no whole number."""
    return many // few if isinstance(many, int) and isinstance(few, int) and few and many % few == 0 else 0


def _mask_type(problem: Problem) -> TensorType | None:
    return problem.operands[3].type if problem.attr("has_mask") else None


def _mask_reason(problem: Problem, scores: tuple[Dim, ...]) -> Reason | None:
    mask = _mask_type(problem)
    if mask is None:
        return None
    if not (mask.dtype.is_float or mask.dtype == dt.bool_) or mask.dtype == dt.f64:
        return Reason(f"adds f16, bf16 or f32 masks and keeps by bool ones, not {mask}")
    if mask.rank > 4 or any(m != 1 and m != x for m, x in zip(reversed(mask.shape), reversed(scores))):
        return Reason(f"mask {mask} does not broadcast to the scores [{', '.join(str(x) for x in scores)}]")
    return None


def _mask(problem: Problem) -> tuple[str, tuple[Dim, Dim, Dim], int]:
    """How the mask acts, its strides along batch, head and query, and its stride along the keys."""
    mask = _mask_type(problem)
    if mask is None:
        return "none", (0, 0, 0), 0
    shape = (1,) * (4 - mask.rank) + mask.shape
    strides: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        strides.insert(0, 0 if d == 1 else step)
        step = step * d
    last = strides[3]
    assert isinstance(last, int)
    return "keep" if mask.dtype == dt.bool_ else "add", (strides[0], strides[1], strides[2]), last


def _shared(heads: _Heads, tile: tuple[int, int, int, int]) -> int:
    """Shared memory: q, and the stages of k and v."""
    bm, bn, stages, _ = tile
    dp, dvp = heads.widths
    return (bm * dp + stages * bn * (dp + dvp) + (bm * bn if heads.itemsize == 4 else 0)) * heads.itemsize


def _registers(heads: _Heads, tile: tuple[int, int, int, int]) -> int:
    """Registers per lane for the accumulator and the scores."""
    bm, bn, _, warps = tile
    return bm * (bn + heads.widths[1]) // (warps * 32) + 40


register(Attention())
