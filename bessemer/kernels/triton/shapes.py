"""What Triton tactics share: integer arguments, checks of operands, and the estimate that orders configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.core.interval import bounds, divisor
from bessemer.kernels.base import Int, Limits, Problem, Reason

FLOATS = (dt.f16, dt.bf16, dt.f32)
SMS, SHARED_BYTES = 132, 101376  # where a target does not say
FILL_US = 1.0  # a launch, the first loads and the last stores of one program
LATENCY_US = 0.7  # a load from device memory
STEP_US = 0.03  # one step of a sum: barriers and addresses, hidden by other programs
SM_BYTES_PER_US = 42_000.0  # what one multiprocessor draws from L2
MEMORY_BYTES_PER_US = 4_200_000.0
PREFETCHED_BYTES = 128 << 10  # of weights by one program
TENSOR_FLOP_PER_US = {2: 5_500_000.0, 4: 200_000.0}  # of one multiprocessor, by bytes per element


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

    def microseconds(self, target: Limits) -> float:
        """A roofline with latency: tensor cores, L2, device memory, and bytes in flight, the slowest of them."""
        count = sms(target)
        programs, resident = self.programs, self.resident(target)
        per_sm = -(-programs // count)
        steps = -(-self.k // (self.bk * self.split))
        rate = TENSOR_FLOP_PER_US[4 if self.itemsize == 4 else 2] * self._tensor_share()
        compute = per_sm * steps * (2 * self.bm * self.bn * self.bk / rate + STEP_US / resident)
        l2 = per_sm * steps * self.stage_bytes / SM_BYTES_PER_US
        in_flight = min(self.stages - 1 or 1, steps) * self.stage_bytes * min(resident, per_sm)
        latency = per_sm * steps * self.stage_bytes / in_flight * LATENCY_US
        memory = self._compulsory() / MEMORY_BYTES_PER_US
        partials = 0.0 if self.split == 1 else 1.5 + self.split * self.m * self.n * self.batch * 8 / MEMORY_BYTES_PER_US
        return FILL_US * math.ceil(per_sm / resident) + max(compute, l2, latency, memory) + partials

    @property
    def _registers(self) -> int:
        """Registers per lane of a warpgroup that the accumulators and addresses take, over all warps."""
        return (self.bm * self.bn // (self.warps * 32) + 48) * self.warps // 4

    def _tensor_share(self) -> float:
        """The share of the peak rate: small tiles feed the tensor cores from shared memory less often."""
        if self.itemsize == 4:
            return 1.0
        area = self.bm * self.bn / (self.bm + self.bn)
        return min(1.0, area / 64) * (0.8 if self.bm < 64 else 1.0)

    def _compulsory(self) -> float:
        return float(self.batch * self.itemsize * (self.m * self.k + self.k * self.n + self.m * self.n))
