"""Times candidates on the CPU: compiled and linked in batches, screened in a child process, then timed in turns.

Candidates run first in a forked child, on guard-banded buffers with poisoned outputs, against the numpy oracle: one
that crashes, hangs, writes outside its outputs or computes wrongly costs only itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bessemer.core.errors import CompilerError, DeviceError
from bessemer.device.cpu import Library
from bessemer.kernels.base import Problem
from bessemer.targets.base import Target
from bessemer.targets.c_compiler import Source, compile_objects, link_objects
from bessemer.targets.cpu import interpreter, source_of
from bessemer.tune.case import Case, case_of
from bessemer.tune.child import Lost, forked
from bessemer.tune.guarded_cpu import Guarded, guard
from bessemer.tune.task import Candidate, Measured

SCREEN_SECONDS = 20.0
TARGET_SECONDS = 0.02  # of timing per candidate
BURST_SECONDS = 2e-4  # short enough that many bursts are not interrupted on a busy machine
ROUNDS = 5
OUT_OF_RACE = 3.0  # times the fastest: such a candidate is not timed again


class _Batch:
    """Sources compiled in parallel and linked into one library, and what became of those that failed."""

    def __init__(self, sources: Sequence[Source], arch: str, seconds: float | None) -> None:
        compiled = dict(zip(sources, compile_objects(sources, arch, seconds=seconds)))
        self.sources = frozenset(s for s, found in compiled.items() if found is not None)
        self.failed = {s: found for s, found in compiled.items() if isinstance(found, str)}
        good = {s: found for s, found in compiled.items() if isinstance(found, Path)}
        (base,) = compile_objects([interpreter()], arch)
        if not isinstance(base, Path):
            raise CompilerError(f"the step interpreter does not compile:\n{base}")
        self.library = self._link(list(good.items()), [base]) or _load([base])

    def _link(self, more: Sequence[tuple[Source, Path]], linked: list[Path]) -> Library | None:
        """Link and load `more` on top of `linked`; one that does not fit, by itself or with others, is left out.

        None where nothing was added."""
        if not more:
            return None
        try:
            library = _load([*linked, *(path for _, path in more)])
        except (CompilerError, DeviceError) as error:
            if len(more) == 1:
                self.failed[more[0][0]] = str(error)
                return None
            half = len(more) // 2
            first = self._link(more[:half], linked)
            return self._link(more[half:], linked) or first
        linked += [path for _, path in more]
        return library


def _load(objects: Sequence[Path]) -> Library:
    return Library(link_objects(objects))


class CpuMeasurer:
    """Measures on this machine with the target's number of threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.rng = np.random.default_rng()
        self.batch: _Batch | None = None

    def open(self) -> None:
        """Nothing is needed but what is compiled."""

    def close(self) -> None:
        """Forget what was compiled last."""
        self.batch = None

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        """Compile what these candidates need, so that measuring them does not wait for the compiler."""
        self._compiled([c for _, candidates in work for c in candidates], seconds)

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        """Whether the batch that was prepared last has the candidate, or its compiler's failure."""
        return self.batch is not None and source_of(candidate.code) in self.batch.sources

    def _compiled(self, candidates: Sequence[Candidate], seconds: float | None = None) -> _Batch:
        sources = dict.fromkeys(source_of(c.code) for c in candidates)
        if self.batch is None or not self.batch.sources.issuperset(sources):
            self.batch = _Batch(list(sources), self.target.arch, seconds)
        return self.batch

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        case = case_of(problem, self.rng)
        batch = self._compiled(candidates)
        broken = [batch.failed.get(source_of(c.code)) for c in candidates]
        results = [Measured(None, error[:500]) if error else None for error in broken]
        ready = [k for k, error in enumerate(broken) if not error]
        codes = {k: candidates[k].code for k in ready}
        guarded = guard(problem, codes, batch.library, case.inputs, case.env, self.target.limits["threads"])
        try:
            failed = {**guarded.failed, **_screen(guarded, case)}
            times = _time(guarded, [k for k in guarded.steps if k not in failed])
        finally:
            guarded.table.close()
        for k in ready:
            results[k] = Measured(times.get(k), failed.get(k))
        return [r for r in results if r is not None]


def _screen(guarded: Guarded, case: Case) -> dict[int, str]:
    """Run each candidate once in a child; what went wrong with those that did not end in time with the right answer."""
    out: dict[int, str] = {}
    waiting = list(guarded.steps)
    while waiting:
        verdicts = _screen_from(waiting, guarded, case)
        out.update((k, verdict) for k, verdict in zip(waiting, verdicts) if verdict is not None)
        waiting = waiting[len(verdicts) :]
    return out


def _screen_from(numbers: Sequence[int], guarded: Guarded, case: Case) -> list[str | None]:
    """The verdicts on these candidates, up to one that ends the child."""

    def work(send: Callable[[str | None], None]) -> None:
        guarded.table.single()
        for k in numbers:
            try:
                message = _verdict(k, guarded, case)
            except BaseException as error:
                message = f"{type(error).__name__}: {error}"
            send(message and message[:1000])

    child = forked(work)
    verdicts: list[str | None] = []
    try:
        while len(verdicts) < len(numbers):
            verdicts.append(child.receive(SCREEN_SECONDS))
    except Lost as lost:
        verdicts.append(str(lost))
    child.close()
    return verdicts


def _verdict(k: int, guarded: Guarded, case: Case) -> str | None:
    guarded.poison()
    guarded.run(k)
    for number, got in enumerate(guarded.outputs):
        if why := case.wrong(number, got):
            return why
    return None if guarded.unharmed(k) else "wrote outside its buffers"


def _time(guarded: Guarded, ready: Sequence[int]) -> dict[int, float]:
    """The least mean time of a burst of each candidate, over rounds taken in turn, in microseconds."""
    repeats, best = {}, {}
    for k in ready:
        guarded.run(k)  # pages and caches
        best[k] = min(_seconds(guarded, k, 1) for _ in range(3))
        repeats[k] = max(1, int(BURST_SECONDS / best[k]))
    for number in range(ROUNDS):
        fastest = min(best.values(), default=0.0)
        for k in ready:
            if number == 0 or best[k] <= OUT_OF_RACE * fastest:
                end = time.perf_counter() + TARGET_SECONDS / ROUNDS
                while time.perf_counter() < end:
                    best[k] = min(best[k], _seconds(guarded, k, repeats[k]))
    return {k: seconds * 1e6 for k, seconds in best.items()}


def _seconds(guarded: Guarded, k: int, repeats: int) -> float:
    """The mean time of `repeats` runs of candidate `k`."""
    started = time.perf_counter()
    for _ in range(repeats):
        guarded.run(k)
    return max((time.perf_counter() - started) / repeats, 1e-7)
