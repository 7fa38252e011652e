"""Bounds of sizes as equalities: those known to hold are not recorded, and others hold where the bound does."""

from __future__ import annotations

import itertools

import pytest

from bessemer.core.dim import Dim, evaluate, maximum, minimum, sym
from bessemer.core.interval import Range
from bessemer.ops.bounds import at_most
from bessemer.ops.slice import resolve_slice

N, M = sym("n"), sym("m")
RANGES = {"n": Range(0, 9), "m": Range(0, 9)}
ENDS = [-30, -3, -1, 0, 2, 7, 30, 2**31]


@pytest.mark.parametrize("step", [1, 2, 3, -1, -2])
@pytest.mark.parametrize("start,end", list(itertools.product(ENDS, ENDS)))
def test_slices_as_the_standard_clamps_them_need_no_check(start: int, end: int, step: int) -> None:
    first, size = resolve_slice(start, end, step, N, RANGES)
    last = first + (size - 1) * step
    low, high = (first, last) if step > 0 else (last, first)
    assert [*at_most(0, low, RANGES), *at_most(high + 1, N, RANGES)] == []


@pytest.mark.parametrize("step", [1, 2])
def test_nor_do_those_from_and_to_sizes(step: int) -> None:
    for start, end in itertools.product((M, M - 3, 0), (M, N - M, 2 * M)):
        first, size = resolve_slice(start, end, step, N, RANGES)
        assert [*at_most(0, first, RANGES), *at_most(first + (size - 1) * step + 1, N, RANGES)] == []


@pytest.mark.parametrize(
    "a,b",
    [(6, N), (0, N - 5), (N, 4), (M, N), (M + 2, N - 1), (maximum(N, M), 7), (minimum(N, M), N - 1), (N // 2, M),
     (M, N // 2), (3 - N, M), (7, 6), (minimum(N, 3), 2)],
)  # fmt: skip
def test_what_is_recorded_holds_where_the_bound_does(a: Dim, b: Dim) -> None:
    found = list(at_most(a, b, RANGES))
    assert found
    for n, m in itertools.product(range(10), repeat=2):
        env = {"n": n, "m": m}
        holds = all(evaluate(x, env) == evaluate(y, env) for x, y in found)
        assert holds == (evaluate(a, env) <= evaluate(b, env)), (env, found)
