"""Which candidates a problem has. A tactic that raises is a defect that costs its candidates, not the build: it is
logged, and `inspect` shows it as the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bessemer.kernels.base import Limits, Problem, Reason, Tactic
from bessemer.tune.choice import Choice
from bessemer.tune.model import estimate_us
from bessemer.tune.task import Candidate


class Found(NamedTuple):
    """Candidates, the microseconds that tactics estimate by label, and (tactic or label, reason) for the rest."""

    candidates: list[Candidate]
    estimates: dict[str, float]
    rejected: list[tuple[str, str]]


@dataclass(frozen=True)
class Finder:
    """Asks the tactics. `workspace` is the most bytes of scratch that a kernel may need, None for any."""

    target: Limits
    tactics: Sequence[Tactic]
    workspace: int | None
    most: int  # configurations of one tactic
    log: Callable[[str], None] | None

    def supports(self, problem: Problem) -> str | None:
        """None where some tactic applies, else all reasons."""
        reasons = []
        for tactic in self.tactics:
            reason = self._refused(tactic, problem)
            if reason is None:
                return None
            if not reason.other_op:
                reasons.append(f"{tactic.name}: {reason.text}")
        return "; ".join(reasons) or f"there is no tactic for {problem.op}"

    def estimate(self, problem: Problem) -> float | None:
        """Microseconds by the best estimate, or else by the roofline model; None where no tactic applies."""
        found = self.find(problem)
        return min(found.estimates.values(), default=estimate_us(problem, self.target)) if found.candidates else None

    def find(self, problem: Problem, keep: Choice | None = None) -> Found:
        """The candidates of a problem, those with the best estimates first and those without one last.

        What was chosen for the problem at another opt shape, `keep`, is among them."""
        candidates: list[Candidate] = []
        estimates: dict[str, float] = {}
        rejected: list[tuple[str, str]] = []
        for tactic in self.tactics:
            reason = self._refused(tactic, problem)
            if reason is not None:
                if not reason.other_op:
                    rejected.append((tactic.name, reason.text))
                continue
            try:
                configs = tactic.configs(problem, self.target)[: self.most]
            except Exception as error:
                rejected.append((tactic.name, self._defect(tactic.name, "configs", problem, error)))
                continue
            if keep is not None and keep.tactic == tactic.name and keep.config not in configs:
                configs = [*configs, keep.config]
            for c in (Candidate(tactic, config, problem, self.target) for config in configs):
                why = self._too_large(c) or self._estimate(c, estimates)
                if why is None:
                    candidates.append(c)
                else:
                    rejected.append((c.label, why))
        candidates.sort(key=lambda c: estimates.get(c.label, float("inf")))
        return Found(candidates, estimates, rejected)

    def unwritten(self, candidate: Candidate) -> str | None:
        """None where the candidate has code, else why its tactic gives none."""
        try:
            return None if candidate.code else "emit() gave nothing"
        except Exception as error:
            return self._defect(candidate.label, "emit", candidate.problem, error)

    def _refused(self, tactic: Tactic, problem: Problem) -> Reason | None:
        try:
            return tactic.applicable(problem, self.target)
        except Exception as error:
            return Reason(self._defect(tactic.name, "applicable", problem, error))

    def _too_large(self, candidate: Candidate) -> str | None:
        if self.workspace is None:
            return None
        why = self.unwritten(candidate)
        if why is not None:
            return why
        needed = candidate.code.workspace
        if candidate.problem.typical(needed) <= self.workspace:
            return None
        return f"needs {needed} bytes of workspace, {self.workspace} allowed"

    def _estimate(self, candidate: Candidate, estimates: dict[str, float]) -> str | None:
        """Note what the tactic estimates, if it does; a reason where it raises."""
        estimate = getattr(candidate.tactic, "estimate", None)
        if estimate is None:
            return None
        try:
            estimates[candidate.label] = estimate(candidate.problem, self.target, candidate.config)
        except Exception as error:
            return self._defect(candidate.label, "estimate", candidate.problem, error)
        return None

    def _defect(self, what: str, method: str, problem: Problem, error: Exception) -> str:
        why = f"{method}() raised {type(error).__name__}: {error}"
        if self.log is not None:
            self.log(f"dropped {what} for {problem.op}: {why}")
        return why
