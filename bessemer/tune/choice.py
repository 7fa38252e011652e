"""What tuning decides for one Problem."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.dim import Dim
from bessemer.kernels.base import Config, KernelCode
from bessemer.tune.points import Box


@dataclass(frozen=True)
class Choice:
    """A tactic, its configuration, the code it emits, and how it came to be chosen.

    `time_us` is the measured time (None: not measured). `rejected` holds (tactic and configuration, why not) for
    everything that was considered: the reason it does not apply, its time, or how it failed.
    """

    tactic: str
    config: Config
    code: KernelCode
    time_us: float | None
    chosen_by: str  # "measured", now or for the timing cache; "in place"; "model"
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Variant:
    """A choice for some shapes: those where the dim `when` is 1 (elsewhere it is 0). `shapes` tells which, in words.

    The variants of a problem take every shape of its range exactly once. `cells` are the boxes around points (see
    points.py) that it is made of."""

    choice: Choice
    when: Dim = 1
    shapes: str = ""
    cells: tuple[Box, ...] = ()
