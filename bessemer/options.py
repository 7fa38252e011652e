"""What a build is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from bessemer.core.errors import BuildError
from bessemer.frontend.profile import Profile
from bessemer.targets.base import Target
from bessemer.tune.cache import TimingCache
from bessemer.tune.tuner import MODES

STAGES = ("import", "fuse", "layout", "precision", "lower", "tune", "plan")
PRECISIONS = ("fp32", "fp16", "bf16")
Progress = Callable[[str, int, int, str], None]  # (stage, done, total, what)


@dataclass(frozen=True)
class BuildOptions:
    """Everything `build` takes but the model; see there. `target` may also be a Target that is already made."""

    target: str | Target = "cpu"
    precision: str = "fp32"
    tf32: bool = False
    shapes: Mapping[str, Sequence[int]] | None = None
    profiles: Sequence[Profile] | None = None
    tune: str = "device"
    timing_cache: TimingCache | str | Path | None = None
    workspace: int | None = None
    build_budget: float | None = None
    threads: int | None = None
    calibration: Sequence[Mapping[str, np.ndarray]] = ()
    stop_after: str | None = None
    dump: Path | None = None
    progress: Progress | None = None
    log: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("precision", self.precision, PRECISIONS),
            ("tune", self.tune, MODES),
            ("stop_after", self.stop_after, (None, *STAGES)),
        ):
            if value not in allowed:
                raise BuildError(f"{name} is {value!r}", fix=f"use one of {', '.join(str(a) for a in allowed if a)}")
        for name, number, kind, least in (
            ("threads", self.threads, Integral, 1), ("workspace", self.workspace, Integral, 0),
            ("build_budget", self.build_budget, Real, 0),
        ):  # fmt: skip
            if number is not None and not (isinstance(number, kind) and number >= least):
                whole = "a whole number, " if kind is Integral else ""
                raise BuildError(f"{name} is {number!r}", fix=f"give {whole}{least} or more, or leave it out")
        if not isinstance(self.target, str) and not hasattr(self.target, "fingerprint"):  # a Target that is made
            raise BuildError(f"target is {self.target!r}", fix="use cpu, cpu:avx2, cuda or cuda:sm_90")
        if self.shapes is not None and not isinstance(self.shapes, Mapping):
            raise BuildError(
                f"shapes is {self.shapes!r}, which names no inputs", fix="give {input: shape}, as {'x': (4, 8)}"
            )
        profiles = self.profiles
        if profiles is not None and not (isinstance(profiles, Sequence) and all(type(p) is Profile for p in profiles)):
            raise BuildError(
                f"profiles is {profiles!r}, no list of profiles", fix="give [Profile({input: (min, opt, max)})]"
            )
        sets, form = self.calibration, "give a list of sets of inputs: [{input: array}, ...]"
        if not isinstance(sets, Sequence):
            raise BuildError(f"calibration is of type {type(sets).__name__}, no list", fix=form)
        for given in (type(inputs).__name__ for inputs in sets if not isinstance(inputs, Mapping)):
            raise BuildError(f"calibration holds {given}, which names no inputs", fix=form)
        if sets and self.precision != "fp16":
            raise BuildError(
                f"calibration inputs are for fp16, and the precision is {self.precision}", fix="leave them out"
            )
