"""The fastest of the ways to lower a graph, by measured times or by estimates, never by a mixture."""

from __future__ import annotations

from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.kernels.base import KernelCode, Problem
from bessemer.lower.items import Lowered
from bessemer.lower.ways import ways
from bessemer.passes.base import PassOptions
from bessemer.tune.choice import Choice, Variant
from bessemer.tune.ways import fastest, problems_of
from tests.passes.test_normalize_readers import block

GPU = PassOptions("cuda", "fp16")
CODE = KernelCode("cuda", "", ())


def two() -> tuple[Lowered, Lowered]:
    plain, apart = ways(block(True), GPU, lambda problem: None, lambda problem: 1.0)
    return plain, apart


def choices(found: tuple[Lowered, ...], us: dict[bool, float | None]) -> dict[Problem, list[Variant]]:
    """So many microseconds for kernels with sums, and for others."""
    return {p: [Variant(Choice("t", {}, CODE, us[p.sums], "measured"))] for p in problems_of(*found)}


def test_by_what_was_measured() -> None:
    plain, apart = found = two()
    assert fastest(found, choices(found, {True: 1.0, False: 1.0}), lambda p: 1.0) is apart
    assert fastest(found, choices(found, {True: 2.5, False: 1.0}), lambda p: 1.0) is plain


def test_little_gain_leaves_the_plain_way() -> None:
    plain, apart = found = two()
    more = (len(problems_of(plain)) * 0.995 - sum(not p.sums for p in problems_of(apart))) / 2
    assert fastest(found, choices(found, {True: more, False: 1.0}), lambda p: 1.0) is plain
    assert fastest(found, choices(found, {True: more - 0.05, False: 1.0}), lambda p: 1.0) is apart


def test_what_was_measured_is_not_given_up_for_estimates() -> None:
    plain, _ = found = two()
    assert fastest(found, choices(found, {True: None, False: 1.0}), lambda p: 1.0) is plain


def test_by_estimates_where_nothing_was_measured() -> None:
    plain, apart = found = two()
    none = choices(found, {True: None, False: None})
    assert fastest(found, none, lambda p: 1.0) is apart
    assert fastest(found, none, lambda p: 2.5 if p.sums else 1.0) is plain


def test_variants_count_at_the_opt_shape() -> None:
    n = sym("n")
    plain, apart = ways(block(True, rows=n), GPU, lambda problem: None, lambda problem: 1.0)
    assert any(p.range_map.get("n") == Range(2, 64, 10) for p in problems_of(plain))
    slow, fast = (Choice("t", {}, CODE, us, "measured") for us in (9.0, 1.0))
    few = (n + 31) // 32 // 2  # 0 up to 32, 1 beyond
    both = [Variant(slow, few), Variant(fast, 1 - few)]
    by = {p: both if p.sums else [Variant(fast)] for p in problems_of(plain, apart)}
    assert fastest((plain, apart), by, lambda p: 1.0) is apart


def test_a_way_is_judged_by_the_shape_where_it_is_worst() -> None:
    n = sym("n")
    plain, apart = found = ways(block(True, rows=n), GPU, lambda problem: None, lambda problem: 1.0)
    faster_apart = choices(found, {True: 0.5, False: 1.0})

    def estimate(p: Problem) -> float:
        return 9.0 if p.sums and p.range_map["n"].typical == 2 else 1.0

    assert fastest(found, faster_apart, estimate, ["n"]) is plain  # at n = 2 its products take nine times as long
    assert fastest(found, faster_apart, estimate) is apart  # n is not known when a kernel is taken
    assert fastest(found, faster_apart, lambda p: 1.0, ["n"]) is apart
