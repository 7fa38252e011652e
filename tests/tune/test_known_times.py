"""The tuner with a timing cache: what it knows is not measured again, and what is measured is not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bessemer.core.errors import DeviceError, TimingCacheError
from bessemer.tune.cache import TimingCache
from tests.tune.fakes import FakeClock, FakeMeasurer, FakeTactic, problem
from tests.tune.tuning import A8, A16, TWO, B, tuner


def test_failed_candidates_are_dropped_logged_cached_and_never_retried() -> None:
    cache, lines = TimingCache(), list[str]()
    broken = FakeMeasurer({A8: 5.0, A16: "crashed: SIGSEGV", B: "wrong result: error 0.3"})
    first = tuner(cache=cache, measurer=broken, log=lines.append).choices([problem()])[problem()]
    assert dict(first.config) == {"tile": 8}
    assert dict(first.rejected)[B] == "failed: wrong result: error 0.3"
    assert lines == [f"dropped {A16} for matmul: crashed: SIGSEGV", "dropped b for matmul: wrong result: error 0.3"]
    again = FakeMeasurer({})
    second = tuner(cache=cache, measurer=again).choices([problem()])[problem()]
    assert again.asked == []
    assert second == first


def test_only_what_the_cache_lacks_is_measured() -> None:
    cache = TimingCache()
    tuner([FakeTactic("a", tiles=(8,)), TWO[1]], cache, measurer=FakeMeasurer({A8: 5.0, B: 6.0})).choices([problem()])
    measurer = FakeMeasurer({A16: 1.0})
    assert tuner(cache=cache, measurer=measurer).choices([problem()])[problem()].config == {"tile": 16}
    assert measurer.asked == [(A16,)]


def test_what_a_pruned_cache_calls_slower_is_neither_compiled_nor_timed() -> None:
    cache, small = TimingCache(), TimingCache()
    tuner(cache=cache, measurer=FakeMeasurer({A8: 30.0, A16: 10.0, B: 20.0})).choices([problem()])
    small.merge(cache.pruned())
    measurer = FakeMeasurer({})
    own = TimingCache()
    own.shipped = small
    choice = tuner(cache=own, measurer=measurer).choices([problem()])[problem()]
    assert (choice.config, choice.time_us, choice.chosen_by) == ({"tile": 16}, 10.0, "measured")
    assert measurer.asked == measurer.prepared == []
    assert dict(choice.rejected) == {A8: "slower, by the timing cache", B: "slower, by the timing cache"}
    newer = [FakeTactic("a", tiles=(8, 16), version=2), FakeTactic("b")]
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0})
    assert tuner(newer, own, measurer=measurer).choices([problem()])[problem()].tactic == "b"
    assert measurer.asked == [(A8, A16, B)], "without the fastest, nothing tells what the others lost against"


def test_require_names_what_is_missing_and_lets_single_candidates_pass(tmp_path: Any) -> None:
    path = tmp_path / "cache.jsonl"
    cache = TimingCache(path)
    tuner(cache=cache, measurer=FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0})).choices([problem()])
    cache.save()
    required = TimingCache(path, "require")
    assert tuner(cache=required).choices([problem()])[problem()].tactic == "b"
    with pytest.raises(TimingCacheError, match="3 of 3 candidates for matmul are not in the timing cache"):
        tuner(cache=required).choices([problem(16)])
    assert tuner([FakeTactic("only")], required).choices([problem(16)])[problem(16)].tactic == "only"


def test_times_are_saved_while_others_are_measured_and_when_measuring_fails(tmp_path: Path) -> None:
    path, clock = tmp_path / "cache.jsonl", FakeClock()
    seen: list[int] = []

    class Failing(FakeMeasurer):
        def measure(self, problem: Any, candidates: Any) -> Any:
            seen.append(len(TimingCache(path).entries))
            if len(seen) == 5:
                raise DeviceError("the GPU fell off the bus")
            return super().measure(problem, candidates)

    failing = Failing({A8: 3.0, A16: 2.0, B: 1.0}, clock, seconds=6.0)
    run = tuner(cache=TimingCache(path), measurer=failing, clock=clock)
    with pytest.raises(DeviceError, match="fell off the bus"):
        run.choices([problem(m) for m in range(8, 80, 8)])
    assert not failing.opened
    assert seen == [0, 3, 3, 9, 9], "every ten seconds"
    assert len(TimingCache(path).entries) == 12, "and in the end"
