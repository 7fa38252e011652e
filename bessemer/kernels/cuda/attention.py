"""Attention by warpgroup products: scores in registers, a running softmax, 64 queries of one head to a warpgroup."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import ceildiv
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.c.scalar import STORAGE, supported
from bessemer.kernels.cuda import emit, scalar
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.gpu.heads import Heads, heads_of, mask_of
from bessemer.kernels.gpu.shapes import huge, shared_bytes, sms

HEADS = (32, 64, 128)  # sizes of a head
TILES = tuple((groups, keys, stages) for groups in (1, 2) for keys in (64, 128) for stages in (1, 2, 3))
MASKS = {"none": 0, "add": 1, "keep": 2}
START_US = 1.6  # the launch, the first keys and the store


class CudaAttention:
    """attention in f16 and bf16 with heads of 32, 64 or 128, any mask, causality, and fewer heads of k and v."""

    name = "cuda_attention"
    version = 4
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        return reason(problem, target)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        heads = known(problem)
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        found: list[Config] = [
            {"groups": groups, "keys": keys, "stages": stages}
            for groups, keys, stages in TILES
            if (groups == 1 or s > 64) and (stages == 1 or (stages - 1) * keys < t) and (keys == 64 or t > 64)
            if (heads.d < 128 or keys == 64) and _shared(heads.d, groups, keys, stages, True) <= shared_bytes(target)
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape, fitted to an H200: a step's latency, or its share of a full multiprocessor."""
        heads = known(problem)
        groups, keys, stages = (int(config[n]) for n in ("groups", "keys", "stages"))
        ctas = -(-problem.typical(heads.s) // (64 * groups)) * problem.typical(heads.batch * heads.heads)
        threads = 128 * groups
        registers = threads * (40 + keys // 2 + keys // 4 + heads.d)
        shared = _shared(heads.d, groups, keys, stages, False)
        resident = max(1, min(shared_bytes(target) // shared, 65536 // registers))
        per_sm = -(-ctas // sms(target))
        work = keys / 64 * (0.4 + 0.6 * heads.d / 64)
        latency = (0.17 + 0.63 * work) * (1.0 if stages > 1 else 1.15)
        steps = -(-problem.typical(heads.t) // keys)
        rounds = -(-per_sm // resident)
        return START_US + steps * max(rounds * latency, per_sm * groups * 0.42 * work)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        heads = known(problem)
        groups, keys, stages = (int(config[n]) for n in ("groups", "keys", "stages"))
        mask, strides, mask_t = mask_of(problem)
        flat = mask != "none" and strides[2] == 0
        constants = {
            "D": heads.d, "GROUPS": groups, "KEYS": keys, "STAGES": stages, "REPEAT": heads.repeat,
            "INSIDE": int(heads.inside), "CAUSAL": int(bool(problem.attr("causal"))), "MASK": MASKS[mask],
            "MASK_T": mask_t, "FLAT": int(flat),
        }  # fmt: skip
        module = emit.module("attention.cu", problem, constants, shared_parts(problem, keys))
        args = (
            Ptr(0), Ptr(1), Ptr(2), Ptr(0 if mask == "none" else 3), Int(heads.s, 32), Int(heads.t, 32),
            Int(heads.heads, 32), *(Int(x) for x in strides), *module.args,
        )  # fmt: skip
        shared = _shared(heads.d, groups, keys, stages, flat)
        options = (("warps", 4 * groups), ("shared", shared), ("cluster", 1), ("pdl", True))
        launch = Launch("kernel", (ceildiv(heads.s, 64 * groups) * heads.batch * heads.heads,), args, options)
        return KernelCode("cuda", module.text, (launch,))


def reason(problem: Problem, target: Limits) -> Reason | None:
    """Why products of warpgroups do not compute the attention, or None."""
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


def known(problem: Problem) -> Heads:
    """The sizes of a problem that `reason` has nothing against."""
    heads = heads_of(problem)
    assert isinstance(heads, Heads)
    return heads


def _shared(d: int, groups: int, keys: int, stages: int, flat: bool) -> int:
    """Bytes of shared memory: q and the stages of k, v and the mask, or the result's rows that lie there at the end."""
    operands = (64 * groups + 2 * stages * keys) * d * 2 + (4 * stages * keys if flat else 0)
    return max(operands, 64 * groups * (d + 8) * 4)


def shared_parts(problem: Problem, keys: int) -> dict[str, str]:
    """What the templates have in common: instructions, the problem's scale and dtypes, rows of heads, and products."""
    dtype = problem.operands[0].type.dtype
    mask = problem.operands[3].type.dtype.name if problem.attr("has_mask") else "f16"
    value = f"f32_of_{mask}(x)" if mask in ("f16", "bf16") else "static_cast<float>(x)"
    scalars = (
        f"typedef {STORAGE[mask]} MASK_TYPE;\n"
        f"constexpr float SCALE = {float(problem.attr('scale'))!r}f;\n\n"
        f"inline float mask_value(MASK_TYPE x) {{ return {value}; }}\n\n"
        f"inline uint32_t pair(float low, float high) {{ return pair_{dtype}(low, high); }}\n"
    )
    products = (
        emit.warpgroup_product_that_starts(keys, dtype, "product_scores"),
        emit.warpgroup_product_of_registers(min(64, known(problem).d), dtype, "product_values"),
    )
    return {
        "INSTRUCTIONS": scalar.template("tensor.cuh") + "\n" + scalar.template("warp.cuh"),
        "SCALARS": scalars, "HEADS": scalar.template("heads.cuh"),
        "PRODUCTS": "\n".join(products),
    }  # fmt: skip


register(CudaAttention())
