"""What times a target's kernels, and whole engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bessemer.engine.engine import Engine
from bessemer.targets.base import Target
from bessemer.tune.in_place import Choices, EngineClock
from bessemer.tune.tuner import Measurer


def measurer_for(target: Target) -> Measurer | None:
    """The measurer of `target`, or None where its device is not in this machine."""
    if target.name == "cpu":
        from bessemer.tune.measure_cpu import CpuMeasurer

        return CpuMeasurer(target)
    from bessemer.device.cuda_devices import find_device
    from bessemer.targets.cuda import CudaTarget
    from bessemer.tune.measure_cuda import CudaMeasurer

    found = find_device()
    if not isinstance(target, CudaTarget) or found is None or found.arch != target.arch:
        return None
    return CudaMeasurer(target)


def clock_for(
    target: Target, assemble: Callable[[Choices], Engine], inputs: Callable[[], Mapping[str, np.ndarray]],
    log: Callable[[str], None] | None,
) -> EngineClock | None:  # fmt: skip
    """What times whole engines that `assemble` makes on `inputs`; None where the GPU is not in this machine, and
    for CPUs, where an engine takes seconds to link."""
    from bessemer.device.cuda_devices import find_device

    found = find_device() if target.name == "cuda" else None
    if found is None or found.arch != target.arch:
        return None
    from bessemer.tune.engine_clock import GpuEngineClock

    return GpuEngineClock(assemble, inputs, log)
