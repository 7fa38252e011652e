"""Normal forms of min, max and quotients."""

from __future__ import annotations

import itertools

import pytest

from bessemer.core.dim import evaluate, floordiv, maximum, minimum, sym
from bessemer.core.dimtext import parse

N, M = sym("n"), sym("m")


@pytest.mark.parametrize(
    ("expression", "normal"),
    [
        (maximum(minimum(512, N), N), N),
        (minimum(N, maximum(N, M)), N),
        (maximum(maximum(N, M), N), maximum(M, N)),
        (maximum(N, maximum(M, N + 1)), maximum(N + 1, M)),
        (minimum(minimum(N, 3), minimum(5, M)), minimum(M, minimum(3, N))),
        (maximum(maximum(minimum(512, N), N), N), N),
    ],
)
def test_nested_extremes_are_one(expression, normal):
    assert expression == normal and parse(str(expression)) == expression


@pytest.mark.parametrize(
    ("quotient", "normal"),
    [
        (floordiv(N * M, 3 * M), floordiv(N, 3)),
        (floordiv(12 * N * M * M, 8 * M), floordiv(3 * N * M, 2)),
        (floordiv(N * M + M, 2 * M), floordiv(N + 1, 2)),
        (floordiv(N, 2 * M), floordiv(N, 2 * M)),
    ],
)
def test_common_factors_of_a_quotient_are_cancelled(quotient, normal):
    assert quotient == normal and str(quotient) == str(normal)
    for n, m in itertools.product((1, 2, 3, 5, 8), repeat=2):
        assert evaluate(quotient, {"n": n, "m": m}) == evaluate(normal, {"n": n, "m": m})


def test_quotients_keep_their_values():
    numerators, divisors = (N * M, 12 * N * M * M, N * M + M, 6 * N - 9 * M), (3 * M, 8 * M, 2 * N, 3 * N * M)
    for a, b in itertools.product(numerators, divisors):
        for n, m in itertools.product((1, 2, 3, 5, 8), repeat=2):
            env = {"n": n, "m": m}
            assert evaluate(floordiv(a, b), env) == evaluate(a, env) // evaluate(b, env)


def test_values_are_kept():
    operands = (N, M, N + M, 3, minimum(N, 4), maximum(M, N))
    for a, b, c in itertools.product(operands, repeat=3):
        expression = maximum(minimum(a, b), c)
        for n, m in itertools.product((0, 2, 3, 5), repeat=2):
            env = {"n": n, "m": m}
            x, y, z = (evaluate(d, env) for d in (a, b, c))
            assert evaluate(expression, env) == max(min(x, y), z)
