"""Which measurer times a target's kernels."""

from __future__ import annotations

from bessemer.targets.base import Target
from bessemer.tune.tuner import Measurer


def measurer_for(target: Target) -> Measurer | None:
    """The measurer of `target`, or None where its device is not in this machine."""
    if target.name == "cpu":
        from bessemer.tune.measure_cpu import CpuMeasurer

        return CpuMeasurer(target)
    from bessemer.device.cuda import find_device
    from bessemer.targets.cuda import CudaTarget
    from bessemer.tune.measure_cuda import CudaMeasurer

    found = find_device()
    if not isinstance(target, CudaTarget) or found is None or found.arch != target.arch:
        return None
    return CudaMeasurer(target)
