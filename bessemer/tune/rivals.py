"""The candidates of each problem that may win in their places, after its tuner has timed them alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bessemer.core import canon
from bessemer.kernels.base import Problem
from bessemer.tune import choosing
from bessemer.tune.cache import Placed, problem_key
from bessemer.tune.choice import Choice
from bessemer.tune.task import Candidate, label_of
from bessemer.tune.tuner import Tuner

WITHIN, MOST = 0.35, 6  # of the fastest alone: rivals this close have won in their places; how many are tried


class Rivals:
    """What a tuner knows of rivals, and what its timing cache knows of those that won."""

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner
        self.device = canon.digest(dict(tuner.fingerprint))[:16]
        self._found: dict[Problem, list[Choice]] = {}

    def of(self, problem: Problem) -> Sequence[Choice]:
        """The candidates to try, the fastest alone first; none where there is nothing to choose."""
        if problem not in self._found:
            task = self.tuner.tasks[problem]
            near = choosing.rivals(task, self.tuner.written, WITHIN, MOST)
            self._found[problem] = [replace(c, chosen_by="in place") for c in near] if len(near) > 1 else []
        return self._found[problem]

    def by_key(self, problem: Problem, key: str) -> Choice | None:
        """The candidate with that key in the timing cache, if it is known to work."""
        task = self.tuner.tasks[problem]
        candidate = next((c for c in task.candidates if task.keys.get(c.label) == key), None)
        found = None if candidate is None else choosing.of(task, candidate, self.tuner.written)
        return None if found is None else replace(found, chosen_by="in place")

    def key(self, problem: Problem, choice: Choice) -> str:
        """The choice's key in the timing cache."""
        return self.tuner.tasks[problem].keys[label_of(choice.tactic, choice.config)]

    def costliest_first(self) -> list[Problem]:
        """The problems that have rivals, by what their kernels take of a run."""
        count = {p: t.count for p, t in self.tuner.tasks.items() if self.of(p)}
        return sorted(count, key=lambda p: (-count[p] * (self.of(p)[0].time_us or 0.0), p.key))

    def prepare(self, problems: Iterable[Problem]) -> None:
        """Compile all of them at once: times that came from a cache came without kernels."""
        if self.tuner.measurer is not None:
            self.tuner.measurer.prepare([(p, self._candidates(p)) for p in problems])

    def placed(self, sequence: str) -> Placed | None:
        """What the timing cache knows of a sequence."""
        return self.tuner.cache.placed_in(sequence, self.device) if self.tuner.mode != "off" else None

    def place(self, sequence: str, us: float, chosen: Mapping[Problem, tuple[Choice, Choice]]) -> None:
        """Keep what is fastest of each problem alone, and in its place."""
        keys = {problem_key(p): (self.key(p, alone), self.key(p, here)) for p, (alone, here) in chosen.items()}
        self.tuner.cache.put(Placed(sequence, self.device, round(us, 4), keys))

    def _candidates(self, problem: Problem) -> list[Candidate]:
        labels = {label_of(c.tactic, c.config) for c in self.of(problem)}
        return [c for c in self.tuner.tasks[problem].candidates if c.label in labels]
