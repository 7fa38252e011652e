"""ONNX's reading of slice bounds, for numbers and for symbols."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.dim import evaluate, sym
from bessemer.core.interval import Range
from bessemer.ops.slice import resolve_slice

BOUND = st.one_of(st.integers(-12, 12), st.sampled_from([2**31 - 1, 2**63 - 1, -(2**31), -(2**63)]))
STEP = st.integers(-4, 4).filter(bool)


def elements(start: int, size: int, step: int) -> list[int]:
    return [start + k * step for k in range(size)]


def as_numpy(start: int, end: int, step: int, size: int) -> list[int]:
    """What numpy takes; its slices clamp as ONNX does, but for bounds before the front of a backward slice."""
    stop = None if step < 0 and end < -size else end
    start = max(start, -size) if step < 0 else start
    return np.arange(size)[slice(start, stop, step)].tolist()


@given(BOUND, BOUND, STEP, st.integers(0, 9))
def test_numbers_are_read_as_numpy_reads_them(start: int, end: int, step: int, size: int) -> None:
    first, count = resolve_slice(start, end, step, size, {})
    assert elements(first, count, step) == as_numpy(start, end, step, size)


@given(BOUND, BOUND, STEP, st.integers(1, 9))
def test_a_symbolic_size_gives_the_same_at_every_size(start: int, end: int, step: int, size: int) -> None:
    first, count = resolve_slice(start, end, step, sym("n"), {"n": Range(1, 100)})
    env = {"n": size}
    assert elements(evaluate(first, env), evaluate(count, env), step) == as_numpy(start, end, step, size)


@given(st.integers(-6, 6), st.integers(-6, 6), STEP, st.integers(1, 9), st.integers(1, 9))
def test_symbolic_bounds_of_either_sign(a: int, b: int, step: int, size: int, m: int) -> None:
    bounds = (sym("m") + a, b - sym("m"))
    first, count = resolve_slice(*bounds, step, sym("n"), {"n": Range(1, 100), "m": Range(1, 100)})
    env = {"n": size, "m": m}
    assert elements(evaluate(first, env), evaluate(count, env), step) == as_numpy(m + a, b - m, step, size)


def test_usual_bounds_stay_simple() -> None:
    n, ranges = sym("n"), {"n": Range(2, 4096)}
    assert resolve_slice(0, 2**63 - 1, 1, n, ranges) == (0, n)
    assert resolve_slice(-1, 2**63 - 1, 1, n, ranges) == (n - 1, 1)
    assert resolve_slice(0, -1, 1, n, ranges) == (0, n - 1)
    assert resolve_slice(1, n, 1, n, ranges) == (1, n - 1)
    assert resolve_slice(-1, -(2**63), -1, n, ranges) == (n - 1, n)
    assert resolve_slice(0, 2, 1, n, ranges) == (0, 2)
