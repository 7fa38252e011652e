"""Attention by warpgroup products: scores in registers, a running softmax, 64 queries of one head to a warpgroup."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import ceildiv
from bessemer.core.dtype import DType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.c.scalar import STORAGE, supported
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.skinny import ARCH
from bessemer.kernels.gpu.heads import Heads, heads_of, mask_of
from bessemer.kernels.gpu.shapes import huge, shared_bytes, sms

HEADS = (32, 64, 128)  # sizes of a head
TILES = tuple((groups, keys, stages) for groups in (1, 2) for keys in (64, 128) for stages in (1, 2, 3))
MASKS = {"none": 0, "add": 1, "keep": 2}
START_US = 1.6  # the launch, the first keys and the store
PAIR = {"f16": "cvt.rn.f16x2.f32", "bf16": "cvt.rn.bf16x2.f32"}


class CudaAttention:
    """attention in f16 and bf16 with heads of 32, 64 or 128, any mask, causality, and fewer heads of k and v."""

    name = "cuda_attention"
    version = 1
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        heads = heads_of(problem)
        if isinstance(heads, Reason):
            return heads
        if target.arch != ARCH:
            return Reason(f"needs the warpgroup products of {ARCH}, not {target.arch}")
        if problem.operands[0].type.dtype not in (dt.f16, dt.bf16):
            return Reason(f"multiplies f16 and bf16, not {problem.operands[0].type.dtype}")
        if heads.d != heads.dv or heads.d not in HEADS:
            return Reason(f"takes heads of {', '.join(map(str, HEADS))} elements, not {heads.d} and {heads.dv}")
        if not problem.attr("scale") > 0:
            return Reason(f"scales scores by more than 0, not {problem.attr('scale')}")
        if huge(problem):
            return Reason("counts elements with 32 bits")
        missing = supported(problem)
        return Reason(missing) if missing is not None else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        heads = _known(problem)
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        found: list[Config] = [
            {"groups": groups, "keys": keys, "stages": stages}
            for groups, keys, stages in TILES
            if (groups == 1 or s > 64) and (stages == 1 or (stages - 1) * keys < t) and (keys == 64 or t > 64)
            if _shared(heads.d, groups, keys, stages) <= shared_bytes(target) and (heads.d < 128 or keys == 64)
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape, fitted to an H200: a step's latency, or its share of a full multiprocessor."""
        heads = _known(problem)
        groups, keys, stages = (int(config[n]) for n in ("groups", "keys", "stages"))
        ctas = -(-problem.typical(heads.s) // (64 * groups)) * problem.typical(heads.batch * heads.heads)
        threads = 128 * groups
        registers = threads * (40 + keys // 2 + keys // 4 + heads.d)
        resident = max(1, min(shared_bytes(target) // _shared(heads.d, groups, keys, stages), 65536 // registers))
        per_sm = -(-ctas // sms(target))
        work = keys / 64 * (0.4 + 0.6 * heads.d / 64)
        latency = (0.17 + 0.63 * work) * (1.0 if stages > 1 else 1.15)
        steps = -(-problem.typical(heads.t) // keys)
        rounds = -(-per_sm // resident)
        return START_US + steps * max(rounds * latency, per_sm * groups * 0.42 * work)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        heads = _known(problem)
        groups, keys, stages = (int(config[n]) for n in ("groups", "keys", "stages"))
        mask, strides, mask_t = mask_of(problem)
        kind = STORAGE[problem.operands[3].type.dtype.name] if mask != "none" else "uint16_t"
        constants = {
            "D": heads.d, "GROUPS": groups, "KEYS": keys, "STAGES": stages, "REPEAT": heads.repeat,
            "INSIDE": int(heads.inside), "CAUSAL": int(bool(problem.attr("causal"))), "MASK": MASKS[mask],
            "MASK_T": mask_t,
        }  # fmt: skip
        dtype = problem.operands[0].type.dtype
        parts = {
            "SCALARS": _scalars(problem, kind),
            "PRODUCTS": emit.warpgroup_product(keys, dtype, "product_scores") + "\n"
            + emit.warpgroup_product_of_registers(min(64, heads.d), dtype, "product_values"),
        }
        module = emit.module("attention.cu", problem, constants, parts)
        args = (
            Ptr(0), Ptr(1), Ptr(2), Ptr(0 if mask == "none" else 3), Int(heads.s, 32), Int(heads.t, 32),
            Int(heads.heads, 32), *(Int(x) for x in strides), *module.args,
        )  # fmt: skip
        shared = _shared(heads.d, groups, keys, stages)
        options = (("warps", 4 * groups), ("shared", shared), ("cluster", 1), ("pdl", True))
        launch = Launch("kernel", (ceildiv(heads.s, 64 * groups) * heads.batch * heads.heads,), args, options)
        return KernelCode("cuda", module.text, (launch,))


def _known(problem: Problem) -> Heads:
    heads = heads_of(problem)
    assert isinstance(heads, Heads)
    return heads


def _shared(d: int, groups: int, keys: int, stages: int) -> int:
    """Bytes of shared memory: q and the stages of k and v, or the result's rows that lie there at the end."""
    return max((64 * groups + 2 * stages * keys) * d * 2, 64 * groups * (d + 8) * 4)


def _scalars(problem: Problem, kind: str) -> str:
    """The problem's scale, the mask's element, and the conversions that depend on dtypes."""
    dtype: DType = problem.operands[0].type.dtype
    mask = problem.operands[3].type.dtype.name if problem.attr("has_mask") else "f16"
    value = {"f16": "f16_value(x)", "bf16": "__uint_as_float(x << 16)"}.get(mask, "static_cast<float>(x)")
    return (
        f"typedef {kind} MASK_TYPE;\n"
        f"constexpr float SCALE = {float(problem.attr('scale'))!r}f;\n\n"
        "inline float f16_value(uint16_t x) {\n    float y;\n"
        '    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));\n    return y;\n}\n\n'
        f"inline float mask_value(MASK_TYPE x) {{ return {value}; }}\n\n"
        "inline float two_to(float x) {\n    float y;\n"
        '    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));\n    return y;\n}\n\n'
        "inline uint32_t pair(float low, float high) {\n    uint32_t both;\n"
        f'    asm("{PAIR[dtype.name]} %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));\n    return both;\n}}\n\n'
        "// Keeps the compiler from moving reads of sums across the products that make them.\n"
        "template <int N> inline void hold(float (&sums)[N]) {\n#pragma unroll\n"
        '    for (int i = 0; i < N; i++)\n        asm volatile("" : "+f"(sums[i])::"memory");\n}\n\n'
    )


register(CudaAttention())
