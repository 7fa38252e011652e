"""The tuner's logic, with fakes for the clock, the device and the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bessemer.core.dim import sym
from bessemer.core.errors import DeviceError, NoTacticError, TimingCacheError
from bessemer.core.interval import Range
from bessemer.kernels.base import Problem
from bessemer.tune.cache import TimingCache
from bessemer.tune.choice import Choice
from bessemer.tune.model import estimate_us, flops, traffic
from bessemer.tune.task import Candidate, Measured, NoCase
from bessemer.tune.tuner import Tuner
from tests.tune.fakes import FakeClock, FakeMeasurer, FakeTactic, FakeTarget, problem

TWO = [FakeTactic("a", tiles=(8, 16)), FakeTactic("b")]
A8, A16, B = 'a{"tile":8}', 'a{"tile":16}', "b"


class OneEach(Tuner):
    """A tuner of static problems."""

    def choices(self, problems: Sequence[Problem]) -> dict[Problem, Choice]:
        found = self.choose(problems)
        assert all(len(variants) == 1 and variants[0].when == 1 for variants in found.values())
        return {p: variants[0].choice for p, variants in found.items()}


def tuner(tactics: list[FakeTactic] | None = None, cache: TimingCache | None = None, **options: Any) -> OneEach:
    return OneEach(FakeTarget(), {"cpu": "fake"}, tactics or TWO, TimingCache() if cache is None else cache, **options)


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
    assert (second.tactic, dict(second.config), second.chosen_by, second.rejected) == (
        "a", {"tile": 8}, "cache", first.rejected)  # fmt: skip


def test_only_what_the_cache_lacks_is_measured() -> None:
    cache = TimingCache()
    tuner([FakeTactic("a", tiles=(8,)), TWO[1]], cache, measurer=FakeMeasurer({A8: 5.0, B: 6.0})).choices([problem()])
    measurer = FakeMeasurer({A16: 1.0})
    assert tuner(cache=cache, measurer=measurer).choices([problem()])[problem()].config == {"tile": 16}
    assert measurer.asked == [(A16,)]


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


def test_modes() -> None:
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0})
    cache = TimingCache()
    off = tuner(cache=cache, mode="off", measurer=measurer).choices([problem()])[problem()]
    assert (off.tactic, dict(off.config), off.chosen_by, measurer.asked) == ("a", {"tile": 8}, "model", [])
    empty = tuner(cache=cache, mode="cache", measurer=measurer).choices([problem()])[problem()]
    assert (empty.chosen_by, measurer.asked) == ("model", [])
    tuner(cache=cache, measurer=measurer).choices([problem()])
    cached = tuner(cache=cache, mode="cache").choices([problem()])[problem()]
    assert (cached.tactic, cached.time_us, cached.chosen_by) == ("b", 1.0, "cache")
    ignored = tuner(cache=cache, mode="off").choices([problem()])[problem()]
    assert ignored.tactic == "a", "off does not look at the cache"


class Estimated(FakeTactic):
    """Says that larger tiles cost less."""

    def estimate(self, problem: Any, target: Any, config: Any) -> float:
        return 100.0 / config["tile"]


def label(tile: int) -> str:
    return f'a{{"tile":{tile}}}'


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


def test_what_a_pruned_cache_calls_slower_is_neither_compiled_nor_timed() -> None:
    cache, small = TimingCache(), TimingCache()
    tuner(cache=cache, measurer=FakeMeasurer({A8: 30.0, A16: 10.0, B: 20.0})).choices([problem()])
    small.merge(cache.pruned())
    measurer = FakeMeasurer({})
    own = TimingCache()
    own.shipped = small
    choice = tuner(cache=own, measurer=measurer).choices([problem()])[problem()]
    assert (choice.config, choice.time_us, choice.chosen_by) == ({"tile": 16}, 10.0, "cache")
    assert measurer.asked == measurer.prepared == []
    assert dict(choice.rejected) == {A8: "slower, by the timing cache", B: "slower, by the timing cache"}
    newer = [FakeTactic("a", tiles=(8, 16), version=2), FakeTactic("b")]
    measurer = FakeMeasurer({A8: 3.0, A16: 2.0, B: 1.0})
    assert tuner(newer, own, measurer=measurer).choices([problem()])[problem()].tactic == "b"
    assert measurer.asked == [(A8, A16, B)], "without the fastest, nothing tells what the others lost against"


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


def test_the_roofline() -> None:
    p = problem(100)
    assert flops(p) == 2 * 100 * 8 * 8
    assert traffic(p) == 4 * (800 + 64 + 800)
    slow = FakeTarget(limits={"mflops": 1, "mbytes_per_s": 10**9})
    assert estimate_us(p, slow) == pytest.approx(12800)
    assert estimate_us(p, FakeTarget(limits={"mflops": 10**9, "mbytes_per_s": 2})) == pytest.approx(3328)


# -- tactics that raise -----------------------------------------------------------------------------------------------


@dataclass
class Defective(FakeTactic):
    """Raises in one of its methods; in emit() and estimate() for some tiles."""

    where: str = ""
    bad: tuple[int, ...] = ()

    def _raise(self, where: str, config: Any = None) -> None:
        if where == self.where and (config is None or config.get("tile", 0) in self.bad):
            raise KeyError(where)

    def applicable(self, problem: Any, target: Any) -> Any:
        self._raise("applicable")
        return super().applicable(problem, target)

    def configs(self, problem: Any, target: Any) -> Any:
        self._raise("configs")
        return super().configs(problem, target)

    def estimate(self, problem: Any, target: Any, config: Any) -> float:
        self._raise("estimate", config)
        return 100.0 / max(1, config.get("tile", 0))

    def emit(self, problem: Any, target: Any, config: Any) -> Any:
        self._raise("emit", config)
        return super().emit(problem, target, config)


RAISING = {"applicable": ("a", []), "configs": ("a", []), "estimate": (A8, [A16]), "emit": (A8, [A16])}


@pytest.mark.parametrize("where", RAISING)
def test_a_tactic_that_raises_costs_its_candidates_is_logged_and_kept_for_inspect(where: str) -> None:
    dropped, left_over = RAISING[where]
    lines: list[str] = []
    cache, measurer = TimingCache(), FakeMeasurer({A16: 2.0, B: 9.0, "c": 10.0})
    tactics = [Defective("a", tiles=(8, 16), where=where, bad=(8,)), TWO[1], FakeTactic("c")]
    run = tuner(tactics, cache, measurer=measurer)
    run.log = lines.append
    choice = run.choices([problem()])[problem()]
    assert measurer.asked == [(*left_over, B, "c")]
    assert choice.tactic == ("a" if left_over else "b")
    said = f"{where}() raised KeyError: '{where}'"
    assert dict(choice.rejected)[dropped] in (said, f"failed: {said}")
    assert lines.count(f"dropped {dropped} for matmul: {said}") == 1
    assert not any(e.error for e in cache.entries.values()), "a tactic that is mended is tried again at once"


@pytest.mark.parametrize("options", [{"mode": "off"}, {"mode": "cache"}, {"workspace": 0}, {"budget": 100.0}], ids=str)
def test_a_candidate_without_code_is_never_chosen(options: dict[str, Any]) -> None:
    tactics = [Defective("a", tiles=(8, 16), where="emit", bad=(16,)), TWO[1]]  # 16 has the best estimate
    run = tuner(tactics, measurer=FakeMeasurer({A8: 1.0, B: 2.0}, FakeClock()), **options)
    choice = run.choices([problem()])[problem()]
    assert choice.config == {"tile": 8}
    assert "emit() raised" in dict(choice.rejected)[A16]


def test_a_winner_of_the_cache_that_has_no_code_any_more_gives_way() -> None:
    cache = TimingCache()
    tuner(cache=cache, measurer=FakeMeasurer({A8: 1.0, A16: 1.01, B: 9.0})).choices([problem()])
    tactics = [Defective("a", tiles=(8, 16), where="emit", bad=(8, 16)), TWO[1]]
    choice = tuner(tactics, cache, mode="cache").choices([problem()])[problem()]
    assert choice.tactic == "b" and choice.time_us == 9.0
    assert {label for label, why in choice.rejected if "emit() raised" in why} == {A8, A16}


def test_if_every_tactic_raises_the_error_has_all_reasons() -> None:
    tactics = [Defective("a", tiles=(8,), where="emit", bad=(8,)), Defective("b", where="configs")]
    with pytest.raises(NoTacticError, match="every kernel for matmul failed") as caught:
        tuner(tactics, measurer=FakeMeasurer({})).choices([problem()])
    assert "emit() raised KeyError" in str(caught.value)
    with pytest.raises(NoTacticError, match=r"b: configs\(\) raised KeyError: 'configs'"):
        tuner([Defective("b", where="configs")]).choices([problem()])
    assert tuner([Defective("c", where="applicable")]).supports(problem()) == (
        "c: applicable() raised KeyError: 'applicable'"
    )


# -- nothing that was measured is lost --------------------------------------------------------------------------------


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
