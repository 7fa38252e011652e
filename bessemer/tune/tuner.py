"""Chooses a kernel for every Problem: from the timing cache, by measuring, or from the roofline model.

Logic only: the clock and the device are behind `Measurer`, so all of it is tested with fakes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bessemer.core import canon
from bessemer.core.errors import NoTacticError, TimingCacheError
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, Tactic
from bessemer.tune.cache import Entry, TimingCache, entry_key
from bessemer.tune.choice import Choice
from bessemer.tune.model import estimate_us

NOISE = 0.02  # candidates within this share of the fastest are equal: the least workspace wins, then the name
MODES = ("off", "cache", "device")


@dataclass(frozen=True)
class Candidate:
    """A tactic with a configuration, and the code it emits."""

    tactic: Tactic
    config: Config
    code: KernelCode

    @property
    def label(self) -> str:
        return f"{self.tactic.name}{canon.dumps(dict(self.config))}" if self.config else self.tactic.name


@dataclass(frozen=True)
class Measured:
    """A time in microseconds, or how the candidate failed (compile, crash, time-out, wrong result)."""

    us: float | None
    error: str | None = None


class Measurer(Protocol):
    """Times candidates of one problem on the device, after checking each against the reference."""

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]: ...


@dataclass
class Tuner:
    """Options of one build's tuning. `tactics` are those whose language the target compiles, sorted by name."""

    target: Limits
    fingerprint: Mapping[str, Any]
    tactics: Sequence[Tactic]
    cache: TimingCache
    mode: str = "device"
    measurer: Measurer | None = None
    budget: float | None = None  # seconds
    workspace: int | None = None  # most bytes of scratch for one kernel
    max_candidates: int = 24
    progress: Callable[[int, int, str], None] | None = None
    log: Callable[[str], None] | None = None
    clock: Callable[[], float] = time.monotonic
    untuned: int = 0  # problems left to the model because the budget ran out

    def supports(self, problem: Problem) -> str | None:
        """None where some tactic applies, else all reasons."""
        reasons = []
        for tactic in self.tactics:
            reason = tactic.applicable(problem, self.target)
            if reason is None:
                return None
            reasons.append(f"{tactic.name}: {reason.text}")
        named = [r for r in reasons if not r.endswith(_other_op(problem))]
        return "; ".join(named or reasons) or f"there is no tactic for {problem.op}"

    def choose(self, problems: Iterable[Problem]) -> dict[Problem, Choice]:
        """A choice for each distinct problem, the costly ones measured first."""
        counts: dict[Problem, int] = {}
        for problem in problems:
            counts[problem] = counts.get(problem, 0) + 1
        started = self.clock()
        order = sorted(counts, key=lambda p: (-counts[p] * estimate_us(p, self.target), p.key))
        out = {}
        for number, problem in enumerate(order):
            if self.progress is not None:
                self.progress(number, len(order), problem.op)
            spent = self.budget is not None and self.clock() - started > self.budget
            out[problem] = self._choose(problem, measure=self.mode == "device" and not spent)
        if self.progress is not None:
            self.progress(len(order), len(order), "")
        return out

    def _choose(self, problem: Problem, measure: bool) -> Choice:
        candidates, rejected = self._candidates(problem)
        if not candidates:
            shown = "\n".join(f"  {name}: {why}" for name, why in rejected)
            raise NoTacticError(f"no kernel computes {problem.key}:\n{shown}")
        measured, chosen_by = self._times(problem, candidates, measure)
        timed = [(c, measured[c.label].us) for c in candidates if c.label in measured]
        timed = [(c, us) for c, us in timed if us is not None]
        failed = [(c.label, measured[c.label].error or "") for c in candidates if c.label in measured]
        rejected = [*rejected, *((label, f"failed: {error}") for label, error in failed if error)]
        if not timed:
            broken = {label for label, error in failed if error}
            usable = [c for c in candidates if c.label not in broken]
            if not usable:
                raise NoTacticError(f"every kernel for {problem.op} failed", where=str(rejected))
            best = min(usable, key=lambda c: _model_order(c, problem, self.target, candidates))
            return Choice(best.tactic.name, best.config, best.code, None, "model", tuple(rejected))
        fastest = min(us for _, us in timed)  # type: ignore[type-var]
        close = [(c, us) for c, us in timed if us <= fastest * (1 + NOISE)]  # type: ignore[operator]
        best, us = min(close, key=lambda t: (problem.typical(t[0].code.workspace), t[0].label))
        slower = [(c.label, f"{t:.1f} us against {us:.1f} us") for c, t in timed if c is not best]
        return Choice(best.tactic.name, best.config, best.code, us, chosen_by, (*rejected, *slower))

    def _candidates(self, problem: Problem) -> tuple[list[Candidate], list[tuple[str, str]]]:
        found: list[Candidate] = []
        rejected: list[tuple[str, str]] = []
        for tactic in self.tactics:
            reason: Reason | None = tactic.applicable(problem, self.target)
            if reason is not None:
                if not reason.text.endswith(_other_op(problem)):
                    rejected.append((tactic.name, reason.text))
                continue
            for config in tactic.configs(problem, self.target)[: self.max_candidates]:
                code = tactic.emit(problem, self.target, config)
                if self.workspace is not None and problem.typical(code.workspace) > self.workspace:
                    why = f"needs {code.workspace} bytes of workspace, {self.workspace} allowed"
                    rejected.append((tactic.name, why))
                    continue
                found.append(Candidate(tactic, config, code))
        return found, rejected

    def _times(
        self, problem: Problem, candidates: Sequence[Candidate], measure: bool
    ) -> tuple[dict[str, Measured], str]:
        if self.mode == "off":
            return {}, "model"
        known: dict[str, Measured] = {}
        missing: list[Candidate] = []
        keys = {c.label: entry_key(problem, c.tactic, c.config, self.fingerprint) for c in candidates}
        for candidate in candidates:
            entry = self.cache.get(keys[candidate.label])
            if entry is None:
                missing.append(candidate)
            else:
                known[candidate.label] = Measured(entry.us, entry.error)
        if not missing:
            return known, "cache"
        if len(candidates) == 1:  # nothing to choose: never timed, so never in a cache
            return known, "model"
        if self.cache.mode == "require":
            raise TimingCacheError(
                f"{len(missing)} of {len(candidates)} candidates for {problem.op} are not in the timing cache",
                where=problem.key, fix="build once with mode 'append' on the device",
            )  # fmt: skip
        if not measure or self.measurer is None:
            self.untuned += self.mode == "device" and self.measurer is not None
            return known, "cache" if known else "model"
        for candidate, result in zip(missing, self.measurer.measure(problem, missing), strict=True):
            known[candidate.label] = result
            key = keys[candidate.label]
            device = canon.digest(dict(self.fingerprint))[:16]
            name, config = candidate.tactic.name, candidate.config
            self.cache.put(Entry(key, result.us, result.error, name, config, problem.op, device))
            if result.error and self.log is not None:
                self.log(f"dropped {candidate.label} for {problem.op}: {result.error}")
        return known, "measured"


def _other_op(problem: Problem) -> str:
    """How tactics end the reason that they compute other ops; such reasons are noise in reports."""
    return f"not {problem.op}"


def _model_order(c: Candidate, problem: Problem, target: Limits, all_: Sequence[Candidate]) -> tuple[float, int]:
    """Without times: the tactic's own estimate, then the order in which candidates were given."""
    estimate = getattr(c.tactic, "estimate", None)
    position = next(k for k, other in enumerate(all_) if other is c)
    return (estimate(problem, target, c.config) if estimate is not None else float("inf"), position)
