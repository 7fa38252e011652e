"""Which measurer times a target's kernels."""

from __future__ import annotations

from collections.abc import Callable

from bessemer.targets.base import Target
from bessemer.tune.tuner import Measurer


def measurer_for(target: Target, threads: int | None, log: Callable[[str], None] | None) -> Measurer | None:
    """The measurer of `target`, or None where the device is not in this machine."""
    if target.name == "cpu":
        from bessemer.tune.measure_cpu import CpuMeasurer

        return CpuMeasurer(target)
    return None
