"""Chooses a kernel for every Problem: from the timing cache, by measuring, or from the roofline model.

Logic only: the clock and the device are behind `Measurer`, so all of it is tested with fakes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bessemer.core import canon
from bessemer.core.errors import NoTacticError, TimingCacheError
from bessemer.kernels.base import KernelCode, Limits, Problem, Tactic
from bessemer.tune import borders
from bessemer.tune.cache import Entry, TimingCache, entry_key, problem_key
from bessemer.tune.candidates import Finder
from bessemer.tune.choice import Choice, Variant
from bessemer.tune.choosing import choose, choose_near, of
from bessemer.tune.left import Left, left
from bessemer.tune.model import estimate_us
from bessemer.tune.points import Box, at_rows, empty, points_of
from bessemer.tune.task import Candidate, Measured, NoCase, Task, label_of
from bessemer.tune.variants import joined

TIMED = 16  # most candidates of a problem that are timed, where the target does not say
BATCH = 8  # problems whose candidates are compiled together, where time is short
FEW = 4  # candidates of each problem that are timed before any more, where time is short
SAVE_SECONDS = 10.0  # between saves of the timing cache while measuring
MODES = ("off", "cache", "device")
Needed = Callable[[Mapping[Problem, Sequence[Variant]]], Collection[Problem]]


class Measurer(Protocol):
    """Times candidates of one problem on the device, after checking each against the reference."""

    def open(self) -> None:
        """Begin to get ready to measure, which may take as long as compiling does."""

    def close(self) -> None:
        """Give back what measuring needs; it gets it again where it must."""

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        """Compile all that will be measured next, for so many seconds at most. What was not prepared is compiled when
        it is measured."""

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        """Whether the compiler is done with a candidate."""

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        """NoCase where there is nothing to run them on, or to compare them with."""


@dataclass
class Tuner:
    """Options of one build's tuning. `tactics` are those whose language the target compiles, sorted by name."""

    target: Limits
    fingerprint: Mapping[str, Any]
    tactics: Sequence[Tactic]
    cache: TimingCache
    mode: str = "device"
    measurer: Measurer | None = None
    budget: float | None = None  # seconds from the first call of `choose`
    workspace: int | None = None  # most bytes of scratch for one kernel
    max_candidates: int = 24
    progress: Callable[[int, int, str], None] | None = None
    log: Callable[[str], None] | None = None
    clock: Callable[[], float] = time.monotonic
    left: Left | None = None  # what the budget left untuned
    tasks: dict[Problem, Task] = field(default_factory=dict)  # of all problems, at their opt shapes
    unchecked: list[str] = field(default_factory=list)  # problems whose kernels could not be run, and why
    defects: dict[KernelCode, str] = field(default_factory=dict)  # what is known not to compile, and why
    _saved: float = float("-inf")  # when the timing cache was

    def supports(self, problem: Problem) -> str | None:
        """None where some tactic applies, else all reasons."""
        return self._finder.supports(problem)

    def estimate(self, problem: Problem) -> float | None:
        """Microseconds by the model alone; None where no tactic applies."""
        return self._finder.estimate(problem)

    def choose(
        self, problems: Iterable[Problem], symbols: Collection[str] = (), needed: Needed | None = None
    ) -> dict[Problem, tuple[Variant, ...]]:  # fmt: skip
        """The variants of each distinct problem, one where it is static; the costly ones are measured first.

        `symbols` are those that inputs bind: kernels may differ by them. Every problem is tuned at its opt shape
        before any is elsewhere, which those are that `needed` names by what was chosen; None for all."""
        try:
            return self._chosen(problems, symbols, needed)
        finally:
            if self.measurer is not None:
                self.measurer.close()

    def _chosen(
        self, problems: Iterable[Problem], symbols: Collection[str], needed: Needed | None
    ) -> dict[Problem, tuple[Variant, ...]]:  # fmt: skip
        end = None if self.budget is None else self.clock() + self.budget
        counts: dict[Problem, int] = {}
        for problem in problems:
            counts[problem] = counts.get(problem, 0) + 1
        order = sorted(counts, key=lambda p: (-counts[p] * estimate_us(p, self.target), p.key))
        tasks = [self._task(problem, counts[problem]) for problem in order]
        self._tune(tasks, end)
        self.tasks = {t.problem: t for t in tasks}
        chosen = []
        for number, task in enumerate(tasks):
            self.tell(number, len(tasks), task.problem.op)
            chosen.append(choose(task, self.written))
        at_opt = {task.problem: (Variant(choice),) for task, choice in zip(tasks, chosen)}
        those = set(order if needed is None else needed(at_opt))
        elsewhere = [
            self._elsewhere(task, choice, symbols if task.problem in those else ())
            for task, choice in zip(tasks, chosen)
        ]
        others = [task for points in elsewhere for _, task in points if task.count == 0]
        self._tune(others, end)
        if self.mode == "device" and self.measurer is not None:
            self.left = left([*tasks, *others], self._most, self.target)
        out = {t.problem: self._variants(t, c, points, symbols) for t, c, points in zip(tasks, chosen, elsewhere)}
        self.tell(len(tasks), len(tasks), "")
        return out

    def _tune(self, tasks: Sequence[Task], end: float | None) -> None:
        """Come to know times: see that there are those that are required, or measure."""
        if self.cache.mode == "require" and self.mode != "off":
            self._require(tasks)
        elif self.mode == "device" and self.measurer is not None:
            try:
                self._measure(tasks, self.measurer, end)
            finally:
                self.cache.save()

    @property
    def _most(self) -> int:
        return self.target.limits.get("timed_candidates", TIMED)

    def tell(self, done: int, of: int, what: str) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(done, of, what)

    # -- candidates -----------------------------------------------------------------------------------------------

    @property
    def _finder(self) -> Finder:
        return Finder(self.target, self.tactics, self.workspace, self.max_candidates, self.log)

    def _task(self, problem: Problem, count: int, keep: Choice | None = None) -> Task:
        candidates, estimates, rejected = self._finder.find(problem, keep)
        if not candidates:
            shown = "\n".join(f"  {name}: {why}" for name, why in rejected)
            raise NoTacticError(f"no kernel computes {problem.key}:\n{shown}")
        task = Task(problem, count, candidates, estimates, rejected)
        if self.mode != "off":
            task.keys = {c.label: entry_key(problem, c.tactic, c.config, self.fingerprint) for c in candidates}
            for label, key in task.keys.items():
                entry = self.cache.get(key)
                if entry is not None:
                    task.known[label] = Measured(entry.us, entry.error)
            if task.known:  # else what was faster is no longer there
                task.slower = {label for label, key in task.keys.items() if self.cache.is_slower(key)} - set(task.known)
        return task

    def written(self, task: Task, candidate: Candidate) -> bool:
        """Whether the candidate has code, and is not known not to compile. One that has none failed, but only in this
        build: it is cheap to try."""
        why = self._finder.unwritten(candidate)
        if why is None and self.defects:
            why = self.defects.get(candidate.code)
            self._dropped(task, candidate, why)
        if why is not None:
            task.known[candidate.label] = Measured(None, why)
        return why is None

    def _missing(self, task: Task, width: int | None = None) -> list[Candidate]:
        """What is worth timing and has code; others take the places of those that have none."""
        while True:
            missing = task.missing(self._most, width)
            if all([self.written(task, c) for c in missing]):
                return missing

    # -- shapes other than the opt ones ---------------------------------------------------------------------------

    def _elsewhere(self, task: Task, choice: Choice, symbols: Collection[str]) -> list[tuple[Box, Task]]:
        """The points of a problem; at its own, and where nothing is left to compute, it is the task itself. Tasks of
        others count 0."""
        points = points_of(task.problem, symbols, self.target.limits.get("tuned_points", 1))
        out = []
        for point in points:
            same = point.problem == task.problem or empty(point.problem)
            there = task if same else self._task(point.problem, 0, choice)
            if there is not task:
                there.go_by(task)
                there.most, there.kept = FEW, label_of(choice.tactic, choice.config)
            out.append((point.box, there))
        return borders.worth_timing(out, task)

    def _variants(
        self, task: Task, choice: Choice, points: Sequence[tuple[Box, Task]], symbols: Collection[str]
    ) -> tuple[Variant, ...]:  # fmt: skip
        """What is chosen at each point, for the shapes around it; neighbours with one kernel are one variant."""
        kernels: dict[tuple[str, KernelCode], Choice] = {}

        def one(found: Choice) -> Choice:
            """The same choice where the same kernel was chosen before."""
            key = (label_of(found.tactic, found.config), found.code)
            return kernels.setdefault(key, choice if key[1] == choice.code else found)

        def made(there: Task, candidate: Candidate) -> Choice | None:
            found = of(there, candidate, self.written)
            return None if found is None else one(found)

        chosen = [
            borders.Chosen(box, there, choice if there is task else one(choose_near(there, choice, self.written)))
            for box, there in borders.known(points, task)
        ]
        cells = borders.crossed(chosen, lambda rows: at_rows(task.problem, symbols, rows), made)
        return joined(cells, task.problem.range_map)

    # -- measuring ------------------------------------------------------------------------------------------------

    def _measure(self, tasks: Sequence[Task], measurer: Measurer, end: float | None) -> None:
        """Time what is worth it and not known yet: everything, or what there is time for until `end`.

        Short of time, the first candidate of every problem is compiled before any is timed: the engine may need it.
        Then the best few of each problem are timed, and then the others."""
        if end is None:
            self._prepare(tasks, measurer, None, None)
            self._time(tasks, measurer, None, None)
            return
        self._prepare(tasks, measurer, 1, end)
        for width in (FEW, None):
            for first in range(0, len(tasks), BATCH):
                batch = tasks[first : first + BATCH]
                self._prepare(batch, measurer, width, end)
                self._time(batch, measurer, width, end)

    def _prepare(self, tasks: Sequence[Task], measurer: Measurer, width: int | None, end: float | None) -> None:
        """Compile what is missing, all at once."""
        seconds = None if end is None else end - self.clock()
        if seconds is not None and seconds <= 0:
            return
        work = [(t.problem, missing) for t in tasks if (missing := self._missing(t, width))]
        if work:
            self.tell(0, len(tasks), "compile")
            measurer.open()
            measurer.prepare(work, seconds)

    def _time(self, tasks: Sequence[Task], measurer: Measurer, width: int | None, end: float | None) -> None:
        for number, task in enumerate(tasks):
            self.tell(number, len(tasks), task.problem.op)
            while missing := self._missing(task, width):  # again where some fail: others take their places
                if end is not None:
                    missing = [c for c in missing if measurer.ready(task.problem, c)]
                    alone = len(missing) == 1 and not task.known  # there is nothing to compare it with
                    if self.clock() > end or not missing or alone:
                        break
                try:
                    results = measurer.measure(task.problem, missing)
                except NoCase as why:
                    task.untimed = str(why)
                    self.unchecked.append(f"{task.problem.op}: {why}")
                    break
                for candidate, result in zip(missing, results, strict=True):
                    self._keep(task, candidate, result)
                self._save_at_times()

    def _keep(self, task: Task, candidate: Candidate, result: Measured) -> None:
        """Take note of a time or a failure, in the task and in the cache."""
        us = None if result.us is None else round(result.us, 4)
        task.known[candidate.label] = Measured(us, result.error)
        device, op = canon.digest(dict(self.fingerprint))[:16], task.problem.op
        name, config, problem = candidate.tactic.name, candidate.config, problem_key(task.problem)
        self.cache.put(Entry(task.keys[candidate.label], us, result.error, name, config, op, device, problem))
        self._dropped(task, candidate, result.error)

    def _dropped(self, task: Task, candidate: Candidate, why: str | None) -> None:
        if why and self.log is not None:
            self.log(f"dropped {candidate.label} for {task.problem.op}: {why}")

    def _save_at_times(self) -> None:
        """A build that is killed loses only what it measured last."""
        if self.clock() >= self._saved + SAVE_SECONDS:
            self.cache.save()
            self._saved = self.clock()

    def _require(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            missing = self._missing(task)
            if missing and not task.decided(self._most):
                raise TimingCacheError(
                    f"{len(missing)} of {len(task.candidates)} candidates for {task.problem.op} are not in the "
                    "timing cache", where=task.problem.key, fix="build once with mode 'append' on the device",
                )  # fmt: skip
