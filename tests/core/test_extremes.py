"""Normal forms of min and max."""

from __future__ import annotations

import itertools

import pytest

from bessemer.core.dim import evaluate, maximum, minimum, parse, sym

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


def test_values_are_kept():
    operands = (N, M, N + M, 3, minimum(N, 4), maximum(M, N))
    for a, b, c in itertools.product(operands, repeat=3):
        expression = maximum(minimum(a, b), c)
        for n, m in itertools.product((0, 2, 3, 5), repeat=2):
            env = {"n": n, "m": m}
            x, y, z = (evaluate(d, env) for d in (a, b, c))
            assert evaluate(expression, env) == max(min(x, y), z)
