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

SLACK = 3.0  # a candidate is timed only if its estimate is within this factor of the best one
TIMED = 16  # most candidates of a problem that are timed, where the target does not say
BATCH = 8  # problems whose candidates are compiled together, where time is short
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

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]]) -> None:
        """Compile all that will be measured next. What was not prepared is compiled when it is measured."""

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]: ...


@dataclass
class _Task:
    """One problem: its candidates, the best estimates first, what is known of their times, and what was rejected."""

    problem: Problem
    candidates: list[Candidate]
    estimates: dict[str, float]  # microseconds, of the candidates whose tactics have an estimate
    rejected: list[tuple[str, str]]
    keys: dict[str, str]  # of each candidate's entry in the timing cache
    known: dict[str, Measured]

    def shortlist(self, most: int) -> list[Candidate]:
        """What is worth timing: the best by their estimates of those that have not failed, and all without one."""
        failed = {label for label, result in self.known.items() if result.us is None}
        alive = [c for c in self.candidates if c.label not in failed]
        estimated = [c for c in alive if c.label in self.estimates]
        best = self.estimates[estimated[0].label] if estimated else 0.0
        near = [c.label for c in estimated if self.estimates[c.label] <= SLACK * best][:most]
        return [c for c in alive if c.label in near or c.label not in self.estimates]

    def missing(self, most: int) -> list[Candidate]:
        """Those of the shortlist that have no time; none where there is nothing to choose."""
        found = self.shortlist(most)
        if len(found) == 1 and not self.known:
            return []
        return [c for c in found if c.label not in self.known]


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
            if not reason.other_op:
                reasons.append(f"{tactic.name}: {reason.text}")
        return "; ".join(reasons) or f"there is no tactic for {problem.op}"

    def choose(self, problems: Iterable[Problem]) -> dict[Problem, Choice]:
        """A choice for each distinct problem, the costly ones measured first."""
        counts: dict[Problem, int] = {}
        for problem in problems:
            counts[problem] = counts.get(problem, 0) + 1
        started = self.clock()
        order = sorted(counts, key=lambda p: (-counts[p] * estimate_us(p, self.target), p.key))
        tasks = [self._task(problem) for problem in order]
        out, batch = {}, len(tasks) if self.budget is None else BATCH
        for number, task in enumerate(tasks):
            spent = self.budget is not None and self.clock() - started > self.budget
            measure = self.mode == "device" and not spent
            if measure and number % batch == 0:
                self._prepare(tasks, number, batch)
            if self.progress is not None:
                self.progress(number, len(order), task.problem.op)
            out[task.problem] = self._choose(task, measure)
        if self.progress is not None:
            self.progress(len(order), len(order), "")
        return out

    @property
    def _most(self) -> int:
        return self.target.limits.get("timed_candidates", TIMED)

    def _task(self, problem: Problem) -> _Task:
        candidates, rejected = self._candidates(problem)
        if not candidates:
            shown = "\n".join(f"  {name}: {why}" for name, why in rejected)
            raise NoTacticError(f"no kernel computes {problem.key}:\n{shown}")
        estimates: dict[str, float] = {}
        for c in candidates:
            estimate = getattr(c.tactic, "estimate", None)
            if estimate is not None:
                estimates[c.label] = estimate(problem, self.target, c.config)
        candidates.sort(key=lambda c: estimates.get(c.label, float("inf")))
        task = _Task(problem, candidates, estimates, rejected, {}, {})
        if self.mode != "off":
            task.keys = {c.label: entry_key(problem, c.tactic, c.config, self.fingerprint) for c in candidates}
            for label, key in task.keys.items():
                entry = self.cache.get(key)
                if entry is not None:
                    task.known[label] = Measured(entry.us, entry.error)
        return task

    def _prepare(self, tasks: Sequence[_Task], first: int, count: int) -> None:
        """Compile what will be measured of `count` tasks, all at once."""
        work = [(t.problem, missing) for t in tasks[first : first + count] if (missing := t.missing(self._most))]
        if work and self.measurer is not None and self.cache.mode != "require":
            if self.progress is not None:
                self.progress(first, len(tasks), "compile")
            self.measurer.prepare(work)

    def _choose(self, task: _Task, measure: bool) -> Choice:
        problem = task.problem
        chosen_by = self._times(task, measure)
        measured = [(c, task.known[c.label]) for c in task.candidates if c.label in task.known]
        timed = [(c, result.us) for c, result in measured if result.us is not None]
        rejected = [*task.rejected, *((c.label, f"failed: {result.error}") for c, result in measured if result.error)]
        untimed = [c for c in task.candidates if c.label not in task.known]
        if not timed:
            if not untimed:
                raise NoTacticError(f"every kernel for {problem.op} failed", where=str(rejected))
            best, us, untimed, chosen_by = untimed[0], None, untimed[1:], "model"
        else:
            fastest = min(us for _, us in timed)
            close = [(c, us) for c, us in timed if us <= fastest * (1 + NOISE)]
            best, us = min(close, key=lambda t: (problem.typical(t[0].code.workspace), t[0].label))
            rejected += [(c.label, f"{t:.1f} us against {us:.1f} us") for c, t in timed if c is not best]
        shown = [(c.label, task.estimates[c.label]) for c in untimed if c.label in task.estimates]
        rejected += [(label, f"not timed: estimated {estimate:.1f} us") for label, estimate in shown]
        return Choice(best.tactic.name, best.config, best.code, us, chosen_by, tuple(rejected))

    def _candidates(self, problem: Problem) -> tuple[list[Candidate], list[tuple[str, str]]]:
        found: list[Candidate] = []
        rejected: list[tuple[str, str]] = []
        for tactic in self.tactics:
            reason: Reason | None = tactic.applicable(problem, self.target)
            if reason is not None:
                if not reason.other_op:
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

    def _times(self, task: _Task, measure: bool) -> str:
        """Measure what is worth it and not known yet; how the choice comes about."""
        if self.mode == "off":
            return "model"
        origin = "cache" if task.known else "model"
        while missing := task.missing(self._most):  # again where some fail: others take their places
            if self.cache.mode == "require":
                raise TimingCacheError(
                    f"{len(missing)} of {len(task.candidates)} candidates for {task.problem.op} are not in the "
                    "timing cache", where=task.problem.key, fix="build once with mode 'append' on the device",
                )  # fmt: skip
            if not measure or self.measurer is None:
                self.untuned += self.mode == "device" and self.measurer is not None
                break
            origin = "measured"
            for candidate, result in zip(missing, self.measurer.measure(task.problem, missing), strict=True):
                self._keep(task, candidate, result)
        return origin

    def _keep(self, task: _Task, candidate: Candidate, result: Measured) -> None:
        """Take note of a time or a failure, in the task and in the cache."""
        task.known[candidate.label] = result
        device, op = canon.digest(dict(self.fingerprint))[:16], task.problem.op
        name, config = candidate.tactic.name, candidate.config
        self.cache.put(Entry(task.keys[candidate.label], result.us, result.error, name, config, op, device))
        if result.error and self.log is not None:
            self.log(f"dropped {candidate.label} for {op}: {result.error}")
