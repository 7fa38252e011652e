"""What GPU tactics share: integer arguments, checks of operands, and the estimate that orders configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.core.interval import bounds, divisor
from bessemer.kernels.base import Int, Limits, Problem, Reason
from bessemer.kernels.gpu.epilogue import element_us, moved

FLOATS = (dt.f16, dt.bf16, dt.f32)
SMS, SHARED_BYTES = 132, 101376  # where a target does not say
FILL_US = 1.0  # a launch, the first loads and the last stores of one program
PDL_US = 0.25  # less for a launch that need not wait for the end of the kernel ahead
LATENCY_US = 0.7  # a load from device memory
SM_BYTES_PER_US = 42_000.0  # what one multiprocessor draws from L2
MEMORY_BYTES_PER_US = 4_200_000.0
PREFETCHED_BYTES = 128 << 10  # of weights by one program
# of tiled products: a program beside its steps, one that comes after another, the loads of a step, the barriers of one
TILE_US, WAVE_US, TILE_LATENCY_US, STEP_US = 0.98, 0.38, 0.05, 0.077
TILE_BYTES_PER_US, L2_BYTES_PER_US = 101_000.0, 7_100_000.0  # of tiles: into one multiprocessor, and into all
STREAM_BYTES_PER_US = 3_900_000.0  # between products and device memory
PART_US, PART_BYTES_PER_US = 1.07, 1_060_000.0  # of sums in parts
TENSOR_FLOP_PER_US = {2: 4_950_000.0, 4: 200_000.0}  # of one multiprocessor, by bytes per element


def sizes(problem: Problem, values: Iterable[Dim]) -> tuple[Int, ...]:
    """Integer arguments of 32 bits, or of 64 where a tensor may have 2^31 elements: then all offsets have 64."""
    bits = 64 if huge(problem) else 32
    return tuple(Int(v, bits) for v in values)


def huge(problem: Problem) -> bool:
    """Whether a tensor may have more elements than 32 bits count."""
    return any(upper(problem, t.numel) >= 2**31 for t in (*(o.type for o in problem.operands), *problem.outputs))


def divides(problem: Problem, value: Dim, by: int) -> bool:
    """Whether the power of two `by` always divides `value`."""
    return value % by == 0 if isinstance(value, int) else divisor(value, problem.range_map) % by == 0


def upper(problem: Problem, value: Dim) -> int:
    """The greatest value of `value` over the profile."""
    return bounds(value, problem.range_map)[1]


def power_of_two(value: int) -> int:
    """The least power of two not below `value`."""
    return 1 << max(0, value - 1).bit_length()


def element_types(problem: Problem, count: int) -> DType | Reason:
    """The dtype that the first `count` operands and the result share, or why there is none that kernels compute in."""
    found = {o.type.dtype for o in problem.operands[:count]} | {(problem.result or problem.outputs[0]).dtype}
    if len(found) != 1:
        return Reason(f"operands and result mix {', '.join(sorted(d.name for d in found))}")
    (one,) = found
    return one if one in FLOATS else Reason(f"computes f16, bf16 and f32, not in {one}")


def precision(problem: Problem) -> str:
    """How tl.dot multiplies f32: exactly, unless the problem allows TF32."""
    return "tf32" if dict(problem.attrs).get("tf32", False) else "ieee"


def sms(target: Limits) -> int:
    """Multiprocessors of the target."""
    return target.limits.get("sms", SMS)


def fill_us(target: Limits) -> float:
    """What a launch costs beside its work."""
    return FILL_US - (PDL_US if target.limits.get("pdl", 0) else 0.0)


def shared_bytes(target: Limits) -> int:
    """The most shared memory of one program."""
    return target.limits.get("shared_bytes", SHARED_BYTES)


def prefetched(tiling: Tiling, target: Limits) -> int:
    """Steps of the sum whose constant b a program fetches to L2 while it waits for the kernels ahead: none where not
    all programs run at once, for then most would wait for no kernel, and ask for all that they read twice."""
    if tiling.programs > sms(target) * tiling.resident(target):
        return 0
    return PREFETCHED_BYTES // (tiling.bn * tiling.itemsize)


@dataclass(frozen=True)
class Tiling:
    """A tiled product at the opt shape: `batch` times [m, k] x [k, n], and one way to cut it."""

    m: int
    n: int
    k: int
    batch: int
    itemsize: int
    bm: int
    bn: int
    bk: int
    stages: int
    warps: int
    split: int = 1

    @property
    def stage_bytes(self) -> int:
        return (self.bm + self.bn) * self.bk * self.itemsize

    @property
    def shared(self) -> int:
        """Shared memory: the stages, or the tile on its way to the store."""
        return max(self.stages * self.stage_bytes, self.bm * self.bn * 4)

    @property
    def programs(self) -> int:
        return -(-self.m // self.bm) * -(-self.n // self.bn) * self.batch * self.split

    def resident(self, target: Limits) -> int:
        """Programs that one multiprocessor runs at a time."""
        return max(1, min(shared_bytes(target) // max(1, self.shared), 48 // self.warps, 512 // self._registers))

    def microseconds(self, problem: Problem, target: Limits) -> float:
        """A roofline with latency: tensor cores, one multiprocessor's share of L2 and all of it, device memory, and
        steps in flight, the slowest of them; then the epilogue, which nothing hides. The constants fit 3,400 timings of
        products and convolutions on an H200, with a mean error of 15 %."""
        resident = self.resident(target)
        per_sm = -(-self.programs // sms(target))
        waves = math.ceil(per_sm / resident)
        steps = -(-self.k // (self.bk * self.split))
        compute = per_sm * steps * 2 * self.bm * self.bn * self.bk / self._tensor_rate()
        l2 = steps * self.stage_bytes * max(per_sm / TILE_BYTES_PER_US, self.programs / L2_BYTES_PER_US)
        latency = waves * steps / min(self.stages - 1 or 1, steps) * TILE_LATENCY_US
        memory = moved(problem) / STREAM_BYTES_PER_US
        barriers = per_sm * steps * STEP_US / min(resident, per_sm)
        finish = per_sm * self.bm * self.bn * element_us(problem)
        parts = self.programs * self.bm * self.bn * 4 / PART_BYTES_PER_US + PART_US if self.split > 1 else 0.0
        fixed = fill_us(target) + TILE_US + WAVE_US * (waves - 1)
        return fixed + max(compute, l2, latency, memory) + barriers + finish + parts

    @property
    def _registers(self) -> int:
        """Registers per lane of a warpgroup that the accumulators and addresses take, over all warps."""
        return (self.bm * self.bn // (self.warps * 32) + 48) * self.warps // 4

    def _tensor_rate(self) -> float:
        """FLOP a microsecond: small tiles feed the tensor cores from shared memory less often, and those of fewer than
        64 rows are multiplied by single warps."""
        if self.itemsize == 4:
            return TENSOR_FLOP_PER_US[4]
        area = self.bm * self.bn / (self.bm + self.bn)
        return TENSOR_FLOP_PER_US[2] * math.pow(min(1.0, area / 64), 0.62) * (0.27 if self.bm < 64 else 1.0)
