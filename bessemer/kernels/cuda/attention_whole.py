"""Attention by warpgroup products with all keys of a head in shared memory, fetched by tensor copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bessemer.core.dim import Dim, ceildiv, floordiv
from bessemer.core.tensor_map import TensorMap, defect
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Map, Problem, Ptr, Reason, register
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.attention import MASKS, known, reason, shared_parts
from bessemer.kernels.gpu.heads import Heads, mask_of
from bessemer.kernels.gpu.shapes import shared_bytes, sms, upper

NAMES = ("groups", "split", "keys", "steps", "rounds", "resident")
SPLITS, STEPS, GROUPS = (1, 2, 4), (1, 2, 3, 4, 6), (1, 2, 3)
MOST_KEYS = 208  # of one step: their scores, or their weights and the sums, fit into the registers of a thread
REGISTERS, RESERVED = 65536, 1024  # of a multiprocessor; bytes of its shared memory beside those of a CTA
# The launch with the first keys and the store; a step, 64 keys of it; 64 queries by 64 keys of a busy multiprocessor; a
# part more; q of another round
START_US, STEP_US, KEYS_US, WORK_US, PART_US, ROUND_US = 1.7, 0.31, 0.37, 0.42, 0.25, 0.9


class CudaAttentionWhole:
    """attention as cuda_attention computes it, of so few keys that those of a head fit into shared memory."""

    name = "cuda_attention_whole"
    version = 4
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        found = reason(problem, target)
        if found is not None:
            return found
        heads = known(problem)
        for k, operand in enumerate(problem.operands[:3]):
            t = operand.type
            broken = defect(_boxes(k, heads, 64).map, t.dtype.itemsize, t.nbytes, problem.range_map)
            if broken is not None:
                return Reason(f"the tensor map of operand {k} {broken}")
        if self.configs(problem, target):
            return None
        return Reason(f"{upper(problem, heads.t)} keys and values of a head do not fit into shared memory")

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return sorted(_configs(problem, target), key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape, fitted to an H200: the latency of one CTA, or its multiprocessor's work."""
        heads = known(problem)
        groups, split, keys, _, rounds, resident = (int(config[n]) for n in NAMES)
        s, t = problem.typical(heads.s), problem.typical(heads.t)
        chunks = -(-s // (64 * groups * rounds))
        per_sm = -(-chunks * problem.typical(heads.batch * heads.heads) // sms(target))
        steps = -(-t // (keys * split))
        width = (0.4 + 0.6 * heads.d / 64) * keys / 64
        latency = rounds * steps * (STEP_US + KEYS_US * width) + (rounds - 1) * ROUND_US
        tiles = min(groups * rounds, -(-s // 64))
        work = per_sm * tiles * split * steps * width * WORK_US
        waves = -(-per_sm // resident)
        return START_US + (split - 1) * PART_US + (waves - 1) * 0.5 + max(waves * latency, work)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        heads = known(problem)
        mask, strides, mask_t = mask_of(problem)
        flat = mask != "none" and strides[2] == 0
        constants = {
            "D": heads.d, **{n.upper(): int(config[n]) for n in NAMES}, "REPEAT": heads.repeat,
            "INSIDE": int(heads.inside), "CAUSAL": int(bool(problem.attr("causal"))), "MASK": MASKS[mask],
            "MASK_T": mask_t, "FLAT": int(flat), "FIXED_KEYS": heads.t if isinstance(heads.t, int) else 0,
        }  # fmt: skip
        groups, split, keys = (int(config[n]) for n in ("groups", "split", "keys"))
        module = emit.module("attention_whole.cu", problem, constants, shared_parts(problem, keys))
        args = (
            _boxes(0, heads, 64), _boxes(1, heads, keys), _boxes(2, heads, keys), Ptr(0 if mask == "none" else 3),
            Int(heads.s, 32), Int(heads.t, 32), Int(heads.heads, 32), *(Int(x) for x in strides), *module.args,
        )  # fmt: skip
        shared = _shared(heads.d, config, flat)
        options = (("warps", 4 * groups * split), ("shared", shared), ("cluster", 1), ("pdl", True))
        chunks = ceildiv(heads.s, 64 * groups * int(config["rounds"]))
        launch = Launch("kernel", (chunks * heads.batch * heads.heads,), args, options)
        return KernelCode("cuda", module.text, (launch,))


def _configs(problem: Problem, target: Limits) -> Iterator[Config]:
    heads = known(problem)
    mask, strides, _ = mask_of(problem)
    flat = mask != "none" and strides[2] == 0
    most, tiles = upper(problem, heads.t), -(-problem.typical(heads.s) // 64)
    cuts = {(split, -(-most // (split * steps * 16)) * 16, steps) for split in SPLITS for steps in STEPS}
    for split, keys, steps in sorted(cuts):
        if keys > MOST_KEYS or (keys < 64 and split * steps > 1):
            continue
        for groups in (g for g in GROUPS if g <= tiles and g * split <= 4):
            whole = -(-tiles // groups)
            for rounds in sorted({1, -(-whole // 2), whole} if split == 1 else {1}):
                c: Config = {"groups": groups, "split": split, "keys": keys, "steps": steps, "rounds": rounds}
                resident = _resident(heads.d, c, _shared(heads.d, c, flat), target)
                if resident:
                    yield {**c, "resident": resident}


def _boxes(operand: int, heads: Heads, rows: int) -> Map:
    """An operand as its rows of heads lie: boxes of `rows` rows of one head, at most 64 elements of each."""
    count = heads.heads if operand == 0 else floordiv(heads.heads, heads.repeat)
    length = heads.s if operand == 0 else heads.t
    dims: tuple[Dim, ...] = (heads.d, length, heads.batch * count)
    if heads.inside:
        dims = (count * heads.d, length, heads.batch)
    width, line = min(64, heads.d), dims[0] * heads.itemsize
    return Map(operand, TensorMap(dims, (line, line * length), (width, rows, 1), width * heads.itemsize))


def _shared(d: int, config: Config, flat: bool) -> int:
    """Bytes of shared memory: q, keys and values, the mask, staged rows of the result, and barriers."""
    groups, split, keys, steps = (int(config[n]) for n in NAMES[:4])
    rows, staged = split * keys * steps, d if split > 1 else 32
    stages = groups * split * 64 * ((staged + 8) * 4 + (8 if split > 1 else 0))
    return (groups * 64 + 2 * rows) * d * 2 + (rows * 4 if flat else 0) + stages + 8 * (2 * steps * split + groups)


def _resident(d: int, config: Config, shared: int, target: Limits) -> int:
    """How many CTAs one multiprocessor takes, by their shared memory and registers."""
    groups, split, keys, steps = (int(config[n]) for n in NAMES[:4])
    if shared > shared_bytes(target):
        return 0
    scores, weights, sums = keys // 2, keys // 4, d // 2  # all of these at once, if steps overlap
    registers = 40 + scores + weights + sums if steps > 1 else 44 + max(scores, weights + sums)
    by_registers = REGISTERS // (128 * groups * split * -(-registers // 8) * 8)
    return min((shared_bytes(target) + RESERVED) // (shared + RESERVED), by_registers)


register(CudaAttentionWhole())
