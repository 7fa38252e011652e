"""Broadcasting of sizes that are known, ranged, or open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.dim import evaluate, sym
from bessemer.core.errors import ShapeError
from bessemer.core.interval import Range
from bessemer.ops.broadcasting import broadcast_dim, broadcast_shapes, same_dim

N, M = sym("n"), sym("m")
WIDE = {"n": Range(1, 64), "m": Range(1, 64)}


def test_known_sizes() -> None:
    assert broadcast_shapes([(3, 1, 5), (4, 1)], {}) == (3, 4, 5)
    with pytest.raises(ValueError, match=r"\[3, 4\] and \[5\]"):
        broadcast_shapes([(3, 4), (5,)], {})


def test_symbols() -> None:
    assert broadcast_dim(N, 1, WIDE) == N
    assert broadcast_dim(N, N, WIDE) == N
    assert broadcast_dim(N, 7, WIDE) == 7
    assert broadcast_dim(N, M, {"n": Range(2, 64), "m": Range(1, 1)}) == N


@given(st.sampled_from([(0, 1), (1, 0), (1, 5), (5, 1), (4, 4), (1, 1), (0, 0)]))
def test_two_open_symbols_give_an_exact_expression(sizes: tuple[int, int]) -> None:
    n, m = sizes
    expected = m if n == 1 else n
    open_ranges = {"n": Range(), "m": Range()}
    assert evaluate(broadcast_dim(N, M, open_ranges), {"n": n, "m": m}) == expected


def test_sizes_that_must_agree_are_decided_or_refused() -> None:
    assert same_dim(N, N, WIDE) == N and same_dim(N, 3, {"n": Range(3, 3)}) == 3
    with pytest.raises(ValueError, match="differ"):
        same_dim(2, 3, {})
    with pytest.raises(ShapeError, match="cannot decide"):
        same_dim(N, M, WIDE)
    assert same_dim(sym("u3_nonzero"), N, WIDE) == N
