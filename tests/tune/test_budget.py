"""A build budget: which problems come first, what is prepared at a time, and what is said to be left."""

from __future__ import annotations

import pytest

from bessemer.tune.cache import TimingCache
from tests.tune.fakes import FakeClock, FakeMeasurer, FakeTarget, problem
from tests.tune.tuning import A8, A16, B, Estimated, OneEach, label, tuner


def test_the_budget_ends_measuring_and_the_costly_problems_come_first() -> None:
    clock = FakeClock()
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0}, clock, seconds=10)
    sizes = [problem(m) for m in (8, 4096, 64, 512)]
    run = tuner(measurer=measurer, budget=15, clock=clock)
    chosen = run.choices(sizes)
    measured = {p.operands[0].type.shape[0] for p, c in chosen.items() if c.chosen_by == "measured"}
    assert measured == {4096, 512}
    assert run.left is not None and (run.left.open, run.left.problems) == (2, 4)
    assert [chosen[sizes[k]].tactic for k in (0, 2)] == ["a", "a"], "the rest takes the first candidate"
    assert chosen[sizes[0]].time_us is None


def test_a_repeated_problem_counts_as_often_as_it_occurs() -> None:
    clock = FakeClock()
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0}, clock, seconds=10)
    chosen = tuner(measurer=measurer, budget=5, clock=clock).choices([problem(512), *[problem(64)] * 20])
    assert chosen[problem(64)].chosen_by == "measured" and chosen[problem(512)].chosen_by == "model"


def test_all_that_will_be_measured_is_prepared_at_once() -> None:
    times = {A8: 3.0, A16: 2.0, B: 1.0}
    cache, measurer = TimingCache(), FakeMeasurer(times)
    tuner(cache=cache, measurer=measurer).choices([problem(m) for m in (8, 16, 32)])
    assert measurer.prepared == [[(A8, A16, B)] * 3]
    again = FakeMeasurer(times)
    tuner(cache=cache, measurer=again).choices([problem(m) for m in (8, 16)])
    assert again.prepared == [], "all is known"


def test_with_a_budget_few_problems_are_prepared_at_a_time() -> None:
    clock = FakeClock()
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0}, clock, seconds=10)
    run = tuner(measurer=measurer, budget=15, clock=clock)
    run.choices([problem(m) for m in range(1, 41)])
    assert [len(work) for work in measurer.prepared] == [40, 8], "one of each, then a batch"
    assert measurer.prepared[0] == [(A8,)] * 40
    assert len(measurer.asked) == 2 and run.left is not None and run.left.open == 38


def test_a_budget_holds_for_the_compiler_too_and_stops_within_a_batch() -> None:
    clock = FakeClock()
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0}, clock, seconds=0.0, compile_seconds=1.0)
    run = tuner(measurer=measurer, budget=20.5, clock=clock)
    chosen = run.choices([problem(m) for m in range(1, 17)])
    assert clock.now <= 20.5
    assert len(measurer.compiled) == 20, "one of each of 16, then two more of two"
    assert [len(a) for a in measurer.asked] == [3, 3], "one alone is not worth timing"
    assert len(chosen) == 16 and run.left is not None and run.left.open == 14


def test_short_of_time_few_candidates_of_all_are_timed_before_more_of_any() -> None:
    tiles = tuple(range(20, 10, -1))
    measurer = FakeMeasurer({label(t): float(t) for t in tiles})
    run = OneEach(FakeTarget(), {}, [Estimated("a", tiles=tiles)], TimingCache(), measurer=measurer, budget=60)
    run.choices([problem(8), problem(16)])
    few = tuple(label(t) for t in tiles[:4])
    assert measurer.asked == [few, few, *[tuple(label(t) for t in tiles[4:])] * 2]
    assert run.left is None


def test_what_is_left_is_judged_by_what_tuning_gave() -> None:
    clock = FakeClock()
    measurer = FakeMeasurer({label(64): 8.0, label(60): 4.0}, clock, seconds=10)
    run = tuner([Estimated("a", tiles=(60, 64))], measurer=measurer, budget=5, clock=clock)
    run.choices([problem(512), problem(64), problem(64)])
    assert run.left is not None and run.left.open == 1
    assert run.left.us == pytest.approx(2 * 100 / 64) and run.left.total_us == pytest.approx(4 + 2 * 100 / 64)
    assert run.left.saved_us == pytest.approx(100 / 64), "half, as with the other"
    assert "1 of 2 kernels" in str(run.left) and "may save 2 us" in str(run.left)
    nothing = tuner(measurer=measurer, budget=0, clock=clock)
    nothing.choices([problem(7)])
    assert nothing.left is not None and nothing.left.saved_us is None and "not known" in str(nothing.left)
