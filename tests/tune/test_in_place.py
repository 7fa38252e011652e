"""Exchanging kernels in their places: the logic, with a clock that knows what each engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core.dim import evaluate, sym
from bessemer.core.errors import InputError
from bessemer.core.interval import Range
from bessemer.kernels.base import Problem
from bessemer.tune.cache import TimingCache, problem_key
from bessemer.tune.choice import Variant
from bessemer.tune.engine_clock import GpuEngineClock
from bessemer.tune.in_place import Choices, settled
from bessemer.tune.rivals import Rivals
from bessemer.tune.task import label_of
from bessemer.tune.tuner import Tuner
from bessemer.tune.variants import at_opt
from tests.tune.fakes import FakeMeasurer, FakeTactic, FakeTarget, problem

A8, A16, B, C = 'a{"tile":8}', 'a{"tile":16}', "b", "c"
ALONE = {A8: 10.0, A16: 11.0, B: 13.0, C: 14.0}


class Clock:
    """An engine takes the sum of what its kernels take in their places."""

    def __init__(self, us: Mapping[str, float], lost_after: int = 99) -> None:
        self.us, self.best, self.tried, self.ended = us, 0.0, list[tuple[str, ...]](), 0
        self.lost_after = lost_after

    @property
    def lost(self) -> bool:
        return len(self.tried) >= self.lost_after

    def _run(self, choices: Choices) -> float:
        return sum(self.us[label] for label in labels(choices))

    def begin(self, choices: Choices) -> None:
        self.best = self._run(choices)

    def beats(self, choices: Choices) -> bool:
        self.tried.append(tuple(labels(choices)))
        won = self._run(choices) < self.best
        self.best = min(self.best, self._run(choices))
        return won

    def end(self) -> float:
        self.ended += 1
        return self.best


class AtOpt(Clock):
    """An engine runs at the opt shape alone."""

    def _run(self, choices: Choices) -> float:
        return super()._run({p: [at_opt(p, variants)] for p, variants in choices.items()})


def labels(choices: Choices) -> list[str]:
    return [label_of(v.choice.tactic, v.choice.config) for variants in choices.values() for v in variants]


def tuned(
    cache: TimingCache, problems: Sequence[Problem], alone: Mapping[str, float] = ALONE
) -> tuple[Rivals, dict[Problem, tuple[Variant, ...]]]:
    tactics = [FakeTactic("a", tiles=(8, 16)), FakeTactic("b"), FakeTactic("c")]
    tuner = Tuner(FakeTarget(), {"gpu": "fake"}, tactics, cache, "device", FakeMeasurer(dict(alone)))
    return Rivals(tuner), tuner.choose(problems)


def test_what_is_faster_in_its_place_is_taken_and_remembered(tmp_path: Path) -> None:
    cache, p = TimingCache(tmp_path / "times.jsonl"), problem()
    rivals, alone = tuned(cache, [p])
    clock = Clock({A8: 5.0, A16: 4.0, B: 3.0, C: 1.0})
    found = settled(alone, rivals, [p], clock)
    assert labels(alone) == [A8] and labels(found) == [B]
    assert clock.tried == [(A16,), (B,)], "c is 40 % slower alone: it is no rival"
    assert found[p][0].choice.chosen_by == "in place" and found[p][0].choice.time_us == 13.0 and clock.ended == 1
    cache.save()

    again = Clock({})
    there = TimingCache(tmp_path / "times.jsonl")
    rivals, alone = tuned(there, [p])
    assert settled(alone, rivals, [p], again) == found and again.ended == 0, "all is known"
    assert settled(alone, rivals, [p], None) == found, "nor does it take a device"
    small = TimingCache()
    small.merge(there.pruned())
    rivals, alone = tuned(small, [p])
    assert labels(settled(alone, rivals, [p], None)) == [B], "a pruned cache keeps what was chosen"
    assert labels(settled(alone, rivals, [p, p], None)) == [A8], "another sequence"


def test_what_was_placed_counts_while_the_same_kernel_is_the_fastest_alone() -> None:
    cache, p = TimingCache(), problem()
    rivals, alone = tuned(cache, [p])
    settled(alone, rivals, [p], Clock({A8: 5.0, A16: 4.0, B: 3.0}))
    (entry,) = (e for e in cache.entries.values() if e.tactic == "c")
    faster = TimingCache()
    faster.merge(cache.lines())
    faster.entries[entry.key] = type(entry)(entry.key, 9.0, None, "c", {}, entry.op, entry.device, entry.problem)
    rivals, alone = tuned(faster, [p])
    assert labels(settled(alone, rivals, [p], None)) == [C]
    clock = Clock({A8: 5.0, A16: 4.0, B: 3.0, C: 4.5})
    assert labels(settled(alone, rivals, [p], clock)) == [A16], "13 us are no rival of 9"
    assert [line.chosen[entry.problem][0] for line in faster.placed.values()] == [entry.key], "the newer one counts"


def test_the_costliest_problems_come_first_and_short_time_ends_it() -> None:
    cache, small, large = TimingCache(), problem(8), problem(16)
    rivals, alone = tuned(cache, [small, large, large])
    clock = Clock({A8: 5.0, A16: 4.0, B: 3.0})
    times = iter([0.0, 0.5, 1.0, 2.0, 3.0, *[11.0] * 20])
    found = settled(alone, rivals, [small, large, large], clock, seconds=10.0, now=lambda: next(times))
    assert {p: labels({p: v}) for p, v in found.items()} == {small: [A8], large: [B]}
    assert len(clock.tried) == 2 and not cache.placed, "nothing was tried to the end"
    rivals, alone = tuned(cache, [small, large, large])
    assert settled(alone, rivals, [small, large, large], clock, seconds=0.0) == alone
    assert len(clock.tried) == 2
    found = settled(alone, rivals, [small, large, large], clock)
    assert labels(found) == [B, B]


@pytest.mark.parametrize("seconds,tried", [(None, 2), (110.0, 2), (90.0, 0)])
def test_compilers_take_time_of_a_budget_alone(
    seconds: float | None, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine they may take longer than the exchanges."""
    times, p = [0.0], problem()
    rivals, alone = tuned(TimingCache(), [p])
    monkeypatch.setattr(rivals, "prepare", lambda problems: times.append(100.0))
    clock = Clock({A8: 5.0, A16: 4.0, B: 3.0})
    settled(alone, rivals, [p], clock, seconds, now=lambda: times[-1])
    assert len(clock.tried) == tried


def test_a_device_that_fails_ends_it_and_what_was_tried_before_counts() -> None:
    cache, small, large = TimingCache(), problem(8), problem(16)
    rivals, alone = tuned(cache, [small, large, large])
    clock = Clock({A8: 5.0, A16: 4.0, B: 3.0}, lost_after=3)
    found = settled(alone, rivals, [small, large, large], clock)
    assert {p: labels({p: v}) for p, v in found.items()} == {small: [A16], large: [B]} and clock.ended == 1
    (placed,) = cache.placed.values()
    assert len(placed.chosen) == 1, "the second problem was not tried to the end"


def test_what_was_known_stays_where_it_was_not_tried_again() -> None:
    cache, small, large = TimingCache(), problem(8), problem(16)
    sequence, us = [small, large, large], {A8: 5.0, A16: 4.0, B: 3.0}
    rivals, alone = tuned(cache, sequence)
    settled(alone, rivals, sequence, Clock(us))
    ((at, whole),) = cache.placed.items()
    cache.placed[at] = replace(whole, chosen={problem_key(small): whole.chosen[problem_key(small)]})
    rivals, alone = tuned(cache, sequence)
    clock = Clock(us, lost_after=3)  # both rivals of the large problem, and one of the small one
    assert labels(settled(alone, rivals, sequence, clock)) == [B, B] and len(clock.tried) == 3
    assert cache.placed[at].chosen == whole.chosen


def test_only_the_kernel_of_the_opt_shape_is_exchanged() -> None:
    n = sym("n")
    p = problem(n, n=Range(1, 1024, 4))
    rivals, alone = tuned(TimingCache(), [p])
    mine = alone[p][0].choice
    variants = {p: (Variant(mine, 1 - _at_most(n, 64)), Variant(mine, _at_most(n, 64)))}
    found = settled(variants, rivals, [p], Clock({A8: 5.0, A16: 4.0, B: 3.0}))
    assert labels(found) == [A8, B] and [v.when for v in found[p]] == [v.when for v in variants[p]]


def test_shapes_that_shared_the_kernel_of_the_opt_shape_keep_it() -> None:
    """The rival was timed at the opt shape alone: where else it serves, it may be slower."""
    n = sym("n")
    p = problem(n, n=Range(1, 1024, 32))
    tuner = Tuner(
        FakeTarget(limits={"mflops": 1000, "mbytes_per_s": 1000, "tuned_points": 9}), {"gpu": "fake"},
        [FakeTactic("a", tiles=(8, 16)), FakeTactic("b"), FakeTactic("c")], TimingCache(), "device",
        FakeMeasurer(dict(ALONE)),
    )  # fmt: skip
    alone = tuner.choose([p], {"n"})
    assert labels(alone) == [A8] and len(alone[p][0].cells) > 2
    found = settled(alone, Rivals(tuner), [p], AtOpt({A8: 5.0, A16: 4.0, B: 3.0}))
    here = [[label_of(v.choice.tactic, v.choice.config) for v in found[p] if evaluate(v.when, {"n": k})] for k in (
        1, 32, 1024)]  # fmt: skip
    assert here == [[A8], [B], [A8]]


def test_a_model_that_refuses_made_up_inputs_keeps_its_kernels() -> None:
    def refuse() -> dict[str, np.ndarray]:
        raise InputError("x must be 8000 or 16000")

    said = list[str]()
    cache, p = TimingCache(), problem()
    rivals, alone = tuned(cache, [p])
    clock = GpuEngineClock(lambda choices: pytest.fail("there is nothing to run it on"), refuse, said.append)
    assert settled(alone, rivals, [p], clock) == alone and not cache.placed
    assert said == ["kernels in their places: the engine does not run here: x must be 8000 or 16000"]


def _at_most(n: object, most: int):  # type: ignore[no-untyped-def]
    from bessemer.core.dim import floordiv, minimum

    return minimum(floordiv(most, n), 1)  # type: ignore[arg-type]
