"""One problem under tuning: its candidates, what is known of their times, and what is worth timing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

from bessemer.core import canon
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Tactic

SLACK = 3.0  # a candidate is timed only if its estimate is within this factor of the best one
EACH = 4  # candidates of every tactic that come before more of another: estimates of two tactics compare badly


def label_of(tactic: str, config: Config) -> str:
    """How a tactic with a configuration is called."""
    return f"{tactic}{canon.dumps(dict(config))}" if config else tactic


@dataclass(frozen=True)
class Candidate:
    """A tactic with a configuration for a problem. The code is emitted when it is first asked for."""

    tactic: Tactic
    config: Config
    problem: Problem
    target: Limits

    @cached_property
    def code(self) -> KernelCode:
        return self.tactic.emit(self.problem, self.target, self.config)

    @cached_property
    def label(self) -> str:
        return label_of(self.tactic.name, self.config)


@dataclass(frozen=True)
class Measured:
    """A time in microseconds, or how the candidate failed (compile, crash, time-out, wrong result)."""

    us: float | None
    error: str | None = None


def estimate(problem: Problem, candidate: Candidate) -> float | None:
    """Microseconds of a kernel for the problem, by its tactic; None where that does not tell, or raises."""
    found = getattr(candidate.tactic, "estimate", None)
    try:
        return None if found is None else float(found(problem, candidate.target, candidate.config))
    except Exception:
        return None


class NoCase(Exception):
    """No inputs, or no answer, could be made up for a problem: its kernels can neither be checked nor timed."""


@dataclass
class Task:
    """A problem that occurs `count` times in the model (0: it is there at another opt shape); `candidates` have the
    best estimates first."""

    problem: Problem
    count: int
    candidates: list[Candidate]
    estimates: dict[str, float]  # microseconds, of the candidates whose tactics have an estimate
    rejected: list[tuple[str, str]]
    keys: dict[str, str] = field(default_factory=dict)  # of each candidate's entry in the timing cache
    known: dict[str, Measured] = field(default_factory=dict)
    slower: set[str] = field(default_factory=set)  # those that the timing cache only knows to have lost
    most: int | None = None  # candidates that are timed at most, where that is fewer than elsewhere
    kept: str = ""  # the candidate that is timed whatever its estimate
    untimed: str = ""  # why none can be timed
    factors: Mapping[str, float] = field(default_factory=dict)  # of the estimates, by tactic

    def go_by(self, opt: Task) -> None:
        """Multiply the estimates of each tactic by what its kernels took of them at the opt shape: those of two tactics
        compare badly, and where few candidates are timed all would be of one."""
        self.factors = opt.of_estimates()
        for c in self.candidates:
            if c.label in self.estimates:
                self.estimates[c.label] *= self.factors.get(c.tactic.name, 1.0)
        self.candidates.sort(key=lambda c: self.estimates.get(c.label, float("inf")))

    def estimate(self, candidate: Candidate) -> float | None:
        """The estimate of a kernel, which may be a candidate at another shape; None where it has none."""
        us = estimate(self.problem, candidate)
        return None if us is None else us * self.factors.get(candidate.tactic.name, 1.0)

    def of_estimates(self) -> dict[str, float]:
        """The times of each tactic's kernels over their estimates, the median."""
        found: dict[str, list[float]] = {}
        for c in self.candidates:
            us, estimate = self.known[c.label].us if c.label in self.known else None, self.estimates.get(c.label)
            if us is not None and estimate:
                found.setdefault(c.tactic.name, []).append(us / estimate)
        return {tactic: median(shares) for tactic, shares in found.items()}

    def shortlist(self, most: int) -> list[Candidate]:
        """What is worth timing: the best by their estimates of those that have not failed, and all without one."""
        failed = {label for label, result in self.known.items() if result.us is None}
        alive = [c for c in self.candidates if c.label not in failed]
        estimated = [c for c in alive if c.label in self.estimates]
        best = self.estimates[estimated[0].label] if estimated else 0.0
        most = most if self.most is None else min(most, self.most)
        near = _ranked([c for c in estimated if self.estimates[c.label] <= SLACK * best])[:most]
        labels = {c.label for c in near} | {self.kept}
        return [c for c in alive if c.label in labels or c.label not in self.estimates]

    def missing(self, most: int, width: int | None = None) -> list[Candidate]:
        """Those of the shortlist (of its first `width`) that have no time and can have one."""
        if self.untimed or (self.count == 0 and self.slower):  # a shape beside the opt one, from a pruned cache
            return []
        return [c for c in self.shortlist(most)[:width] if c.label not in self.known and c.label not in self.slower]

    def decided(self, most: int) -> bool:
        """Whether no time could change the choice: it has one candidate, whose time is not known."""
        return not self.known and len(self.shortlist(most)) == 1

    def best_us(self, most: int) -> float | None:
        """The least time among the first `most` of the shortlist; None where none of them has one."""
        times = [self.known[c.label].us for c in self.shortlist(most)[:most] if c.label in self.known]
        return min((us for us in times if us is not None), default=None)


def _ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first few of each tactic ahead of all others, otherwise in the same order."""
    seen: Counter[str] = Counter()
    first: list[Candidate] = []
    rest: list[Candidate] = []
    for c in candidates:
        (first if seen[c.tactic.name] < EACH else rest).append(c)
        seen[c.tactic.name] += 1
    return first + rest
