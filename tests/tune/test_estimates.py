"""Which candidates are worth timing, going by estimates: the tactics' own, and the roofline."""

from __future__ import annotations

import pytest

from bessemer.tune.cache import TimingCache
from bessemer.tune.model import estimate_us, flops, traffic
from tests.tune.fakes import FakeMeasurer, FakeTactic, FakeTarget, problem
from tests.tune.tuning import TWO, B, Estimated, OneEach, label, tuner


def test_a_tactics_own_estimate_orders_without_times() -> None:
    choice = tuner([Estimated("a", tiles=(8, 16))], mode="off").choices([problem()])[problem()]
    assert choice.config == {"tile": 16} and choice.chosen_by == "model"
    assert choice.rejected == ((label(8), "not timed: estimated 12.5 us"),)


def test_only_the_best_few_by_their_estimates_are_timed() -> None:
    tiles = tuple(range(10, 21))
    measurer = FakeMeasurer({label(t): float(t) for t in tiles})
    target = FakeTarget(limits={"timed_candidates": 3})
    run = OneEach(target, {}, [Estimated("a", tiles=tiles)], TimingCache(), measurer=measurer)
    choice = run.choices([problem()])[problem()]
    assert measurer.asked == [(label(20), label(19), label(18))]
    assert choice.config == {"tile": 18} and choice.time_us == 18.0
    assert dict(choice.rejected)[label(10)] == "not timed: estimated 10.0 us"
    assert len(choice.rejected) == len(tiles) - 1


def test_the_best_of_every_tactic_are_timed_since_estimates_of_two_compare_badly() -> None:
    modest = Estimated("b", tiles=(40, 50, 60))
    measurer = FakeMeasurer({f'{name}{{"tile":{t}}}': 90.0 - t for name in "ab" for t in range(40, 90)})
    target = FakeTarget(limits={"timed_candidates": 6})
    OneEach(target, {}, [Estimated("a", tiles=tuple(range(70, 80))), modest], TimingCache(), measurer=measurer).choices(
        [problem()]
    )
    ((*asked,),) = measurer.asked
    assert asked == [label(79), label(78), label(77), label(76), 'b{"tile":60}', 'b{"tile":50}']


def test_candidates_far_behind_are_not_timed_and_one_alone_is() -> None:
    measurer = FakeMeasurer({label(64): 2.0, label(40): 1.0, label(4): 0.1})
    choice = tuner([Estimated("a", tiles=(4, 40, 64))], measurer=measurer).choices([problem()])[problem()]
    assert measurer.asked == [(label(64), label(40))] and choice.config == {"tile": 40}
    alone = FakeMeasurer({label(64): 3.0})
    choice = tuner([Estimated("a", tiles=(4, 64))], measurer=alone).choices([problem()])[problem()]
    assert alone.asked == [(label(64),)] and choice.config == {"tile": 64} and choice.time_us == 3.0


def test_candidates_without_an_estimate_are_always_timed() -> None:
    measurer = FakeMeasurer({label(64): 2.0, B: 1.0})
    choice = tuner([Estimated("a", tiles=(4, 64)), TWO[1]], measurer=measurer).choices([problem()])[problem()]
    assert measurer.asked == [(label(64), B)] and choice.tactic == "b"


def test_others_take_the_places_of_those_that_fail() -> None:
    measurer = FakeMeasurer({label(64): "crashed", label(60): "crashed", label(4): 9.0})
    choice = tuner([Estimated("a", tiles=(4, 60, 64))], measurer=measurer).choices([problem()])[problem()]
    assert measurer.asked == [(label(64), label(60)), (label(4),)]
    assert choice.config == {"tile": 4} and choice.chosen_by == "measured"


def test_known_times_count_whatever_the_estimate() -> None:
    cache = TimingCache()
    tuner([FakeTactic("a", tiles=(4,)), TWO[1]], cache, measurer=FakeMeasurer({label(4): 1.0, B: 3.0})).choices(
        [problem()]
    )
    measurer = FakeMeasurer({label(64): 2.0, label(60): 3.0})
    choice = tuner([Estimated("a", tiles=(4, 60, 64))], cache, measurer=measurer).choices([problem()])[problem()]
    assert measurer.asked == [(label(64), label(60))]
    assert choice.config == {"tile": 4} and choice.time_us == 1.0


def test_the_roofline() -> None:
    p = problem(100)
    assert flops(p) == 2 * 100 * 8 * 8
    assert traffic(p) == 4 * (800 + 64 + 800)
    slow = FakeTarget(limits={"mflops": 1, "mbytes_per_s": 10**9})
    assert estimate_us(p, slow) == pytest.approx(12800)
    assert estimate_us(p, FakeTarget(limits={"mflops": 10**9, "mbytes_per_s": 2})) == pytest.approx(3328)
