"""Each step of an engine against its own roofline: the least time that its bytes and operations allow on the device.

The ceilings are the target's (see bessemer.targets): what the device moves to and from memory per second, and what it
computes, for fp32 and for 16-bit operands. Operands that still lie in a cache move faster than memory: such steps may
pass 100 per cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bessemer.core.dim import Dim
from bessemer.engine.engine import Engine
from bessemer.engine.program import Step
from bessemer.runtime.session import Session
from bessemer.targets.base import resolve

HALF = ("f16", "bf16")


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at best. `half_flops_per_s` are of fp16 and bf16 operands with fp32 sums."""

    flops_per_s: float
    half_flops_per_s: float
    bytes_per_s: float

    def peak(self, half: bool) -> float:
        """Operations per second."""
        return self.half_flops_per_s if half else self.flops_per_s

    def least_us(self, flops: float, nbytes: float, half: bool) -> float:
        """Microseconds that neither the operations nor the bytes can do without."""
        return max(flops / self.peak(half), nbytes / self.bytes_per_s) * 1e6


@dataclass(frozen=True)
class Profiled:
    """One step, all its launches: time, work and roofline. `bytes` are each operand and each result once."""

    step: int  # of several launches for one kernel: the first
    launches: int
    name: str
    kernel: str  # tactic, or the kind of a step without one
    us: float
    bytes: int
    flops: int
    half: bool  # 16-bit operands
    bound: str  # what its roofline is made of: "memory" or "compute"; "" for steps that say nothing of their work
    roofline_us: float
    roofline_percent: float
    gflops: float
    gbytes_per_s: float
    onnx: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "onnx": list(self.onnx)}


def ceilings_of(engine: Engine) -> Ceilings:
    """The ceilings of the engine's target."""
    target = engine.manifest["target"]
    limits = resolve(f"{target['name']}:{target['arch']}", target["threads"]).limits
    half = limits["mflops"] * 1e6
    return Ceilings(limits.get("fp32_mflops", limits["mflops"]) * 1e6, half, limits["mbytes_per_s"] * 1e6)


def profile(session: Session, feeds: Mapping[str, np.ndarray], runs: int) -> list[Profiled]:
    """Every step that ran at the shapes of `feeds`, in order."""
    ceilings, out = ceilings_of(session.engine), []

    def size(d: Dim) -> int:
        return session.evaluate(d, feeds)

    times = session.profile(feeds, runs)
    number = 0
    while number < len(times):
        step = times[number][0]
        launches = _launches([s for s, _ in times[number:]])
        us = sum(t for _, t in times[number : number + launches])
        if us > 0 or step.kind != "kernel" or all(size(d) > 0 for d in step.grid):  # else it is for other shapes
            work = size(step.flops), size(step.nbytes)
            out.append(_profiled(session.engine, number, launches, step, us, *work, ceilings))
        number += launches
    return out


def _launches(steps: Sequence[Step]) -> int:
    """How many steps from the first on are launches of one kernel: the work is told at the first."""
    first = steps[0]
    count = 1
    while count < len(steps) and first.kind == "kernel":
        s = steps[count]
        if (s.kind, s.name, s.origin, s.flops, s.nbytes) != ("kernel", first.name, first.origin, 0, 0):
            break
        count += 1
    return count


def _profiled(
    engine: Engine, number: int, launches: int, step: Step, us: float, flops: int, nbytes: int, ceilings: Ceilings
) -> Profiled:
    program = engine.program
    half = any(program.tensors[n].dtype.name in HALF for n in step.reads)
    least = ceilings.least_us(flops, nbytes, half)
    memory = nbytes / ceilings.bytes_per_s >= flops / ceilings.peak(half)
    time = max(us, 1e-3)
    kernel = program.kernels[step.kernel].tactic if step.kernel >= 0 else step.kind
    bound = "" if least == 0 else "memory" if memory else "compute"
    return Profiled(
        number, launches, step.name, kernel, us, nbytes, flops, half, bound, least, 100 * least / time,
        flops / time / 1e3, nbytes / time / 1e3, step.origin,
    )  # fmt: skip
