"""The tuner's choice: the fastest that works, and why not another. The clock, the device and the kernels are fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bessemer.core.dim import sym
from bessemer.core.errors import NoTacticError
from bessemer.core.interval import Range
from bessemer.kernels.base import Problem
from bessemer.tune.cache import TimingCache
from bessemer.tune.task import Candidate, Measured, NoCase
from tests.tune.fakes import FakeClock, FakeMeasurer, FakeTactic, problem
from tests.tune.tuning import A8, A16, TWO, B, tuner


def test_the_fastest_wins_and_the_others_keep_their_reasons() -> None:
    asked = FakeMeasurer({A8: 30.0, A16: 10.0, B: 20.0})
    choice = tuner(measurer=asked).choices([problem()])[problem()]
    assert (choice.tactic, dict(choice.config), choice.time_us, choice.chosen_by) == (
        "a",
        {"tile": 16},
        10.0,
        "measured",
    )
    assert dict(choice.rejected) == {A8: "30.0 us against 10.0 us", B: "20.0 us against 10.0 us"}
    assert choice.code.text == "a 16"


def test_within_the_noise_the_least_workspace_wins_then_the_name() -> None:
    scratch = FakeTactic("a", tiles=(8, 16), workspace={8: 4096, 16: 64})
    measurer = FakeMeasurer({A8: 100.0, A16: 101.9, B: 102.1})
    assert dict(tuner([scratch, TWO[1]], measurer=measurer).choices([problem()])[problem()].config) == {"tile": 16}
    level = FakeMeasurer({A8: 100.0, A16: 100.0, B: 101.0})
    assert tuner(measurer=level).choices([problem()])[problem()].config == {"tile": 16}, "by label"
    outside = FakeMeasurer({A8: 100.0, A16: 102.1, B: 103.0})
    assert dict(tuner([scratch, TWO[1]], measurer=outside).choices([problem()])[problem()].config) == {"tile": 8}


def test_symbolic_workspace_is_compared_at_the_opt_shape() -> None:
    n = sym("n")
    p = problem(n, n=Range(1, 1024, 4))
    a = FakeTactic("a", tiles=(8, 16), workspace={8: n * 16, 16: 65})
    chosen = tuner([a], measurer=FakeMeasurer({A8: 1.0, A16: 1.0})).choices([p])[p]
    assert dict(chosen.config) == {"tile": 8}


def test_equal_problems_are_measured_once() -> None:
    measurer = FakeMeasurer({A8: 1.0, A16: 2.0, B: 3.0})
    chosen = tuner(measurer=measurer).choices([problem(), problem(), problem(16), problem()])
    assert len(chosen) == 2 and len(measurer.asked) == 2


def test_all_failed_is_an_error_with_every_reason() -> None:
    measurer = FakeMeasurer({A8: "hangs", A16: "crashes", B: "wrong"})
    with pytest.raises(NoTacticError, match="every kernel for matmul failed") as caught:
        tuner(measurer=measurer).choices([problem()])
    assert all(word in str(caught.value) for word in ("hangs", "crashes", "wrong"))


def test_nothing_applies_is_an_error_with_every_reason() -> None:
    tactics = [FakeTactic("a", reason="needs sm_90"), FakeTactic("c", op="conv")]
    with pytest.raises(NoTacticError, match=r"a: needs sm_90") as caught:
        tuner(tactics).choices([problem()])
    assert "computes conv" not in str(caught.value), "kernels of other ops are noise"
    assert tuner(tactics).supports(problem()) == "a: needs sm_90"
    assert tuner(tactics[1:]).supports(problem()) == "there is no tactic for matmul"
    assert tuner().supports(problem()) is None


def test_a_workspace_limit_rejects_and_says_so() -> None:
    scratch = FakeTactic("a", tiles=(8, 16), workspace={8: 4096})
    measurer = FakeMeasurer({A16: 9.0, B: 10.0})
    choice = tuner([scratch, TWO[1]], measurer=measurer, workspace=1024).choices([problem()])[problem()]
    assert measurer.asked == [(A16, B)]
    assert (A8, "needs 4096 bytes of workspace, 1024 allowed") in choice.rejected
    with pytest.raises(NoTacticError, match="needs 4096 bytes of workspace"):
        tuner([FakeTactic("a", tiles=(8,), workspace={8: 4096})], workspace=0).choices([problem()])


def test_modes() -> None:
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0})
    cache = TimingCache()
    off = tuner(cache=cache, mode="off", measurer=measurer).choices([problem()])[problem()]
    assert (off.tactic, dict(off.config), off.chosen_by, measurer.asked) == ("a", {"tile": 8}, "model", [])
    empty = tuner(cache=cache, mode="cache", measurer=measurer).choices([problem()])[problem()]
    assert (empty.chosen_by, measurer.asked) == ("model", [])
    tuner(cache=cache, measurer=measurer).choices([problem()])
    cached = tuner(cache=cache, mode="cache").choices([problem()])[problem()]
    assert (cached.tactic, cached.time_us, cached.chosen_by) == ("b", 1.0, "measured")
    ignored = tuner(cache=cache, mode="off").choices([problem()])[problem()]
    assert ignored.tactic == "a", "off does not look at the cache"


def test_code_is_emitted_only_where_it_is_needed() -> None:
    emitted: list[str] = []

    class Counting(FakeTactic):
        def emit(self, problem: Any, target: Any, config: Any) -> Any:
            emitted.append(str(config["tile"]))
            return super().emit(problem, target, config)

    tactics = [Counting("a", tiles=(8, 16)), TWO[1]]
    cache = TimingCache()
    tuner(tactics, cache, measurer=FakeMeasurer({A8: 3.0, A16: 2.0, B: 2.5})).choices([problem()])
    del emitted[:]
    assert tuner(tactics, cache).choices([problem()])[problem()].config == {"tile": 16}
    assert emitted == ["16"]


def test_a_single_candidate_is_checked_and_timed_where_there_is_time() -> None:
    measurer = FakeMeasurer({"only": 2.0})
    run = tuner([FakeTactic("only")], measurer=measurer)
    choice = run.choices([problem()])[problem()]
    assert (choice.chosen_by, choice.time_us, measurer.asked) == ("measured", 2.0, [("only",)])
    with pytest.raises(NoTacticError, match="every kernel for matmul failed"):
        tuner([FakeTactic("only")], measurer=FakeMeasurer({"only": "wrong result"})).choices([problem()])
    short = FakeMeasurer({"only": 2.0}, FakeClock())
    run = tuner([FakeTactic("only")], measurer=short, budget=5, clock=short.clock)
    assert run.choices([problem()])[problem()].chosen_by == "model"
    assert short.asked == [] and run.left is None, "there is nothing to choose"


def test_what_no_case_can_be_made_of_is_chosen_by_the_model_and_reported() -> None:
    class Caseless(FakeMeasurer):
        def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
            raise NoCase("sizes 3 and 4 differ")

    run = tuner(measurer=Caseless({}))
    choice = run.choices([problem()])[problem()]
    assert choice.chosen_by == "model" and run.unchecked == ["matmul: sizes 3 and 4 differ"] and run.left is None
    assert {why for _, why in choice.rejected} == {"sizes 3 and 4 differ"}


def test_at_most_so_many_configurations_of_a_tactic_are_tried() -> None:
    many = FakeTactic("a", tiles=tuple(range(1, 100)))
    measurer = FakeMeasurer({f'a{{"tile":{k}}}': float(100 - k) for k in range(1, 100)})
    tuner([many], measurer=measurer, max_candidates=5).choices([problem()])
    assert len(measurer.asked[0]) == 5


def test_progress_runs_from_nothing_to_all() -> None:
    seen: list[tuple[int, int, str]] = []
    tuner(mode="off", progress=lambda *at: seen.append(at)).choices([problem(), problem(16)])
    assert seen == [(0, 2, "matmul"), (1, 2, "matmul"), (2, 2, "")]
