"""Scales go into the constant weights of the product before them, where nothing else reads it."""

from __future__ import annotations

import pytest

from bessemer.passes import fold_affine
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.rewriting import Spelling, rewritten

CONVS: dict[str, tuple[Spelling, dict[str, int]]] = {
    "scale per channel": (lambda g, x: g.mul(g.conv(x, g.weight(6, 4, 3, 3)), g.weight(6, 1, 1)), {"conv": 1}),
    "batch norm": (
        lambda g, x: g.add(g.mul(g.conv(x, g.weight(6, 4, 1, 1)), g.weight(1, 6, 1, 1)), g.weight(6, 1, 1, seed=2)),
        {"conv": 1, "add": 1}),
    "bias then batch norm": (
        lambda g, x: g.add(g.mul(g.add(g.conv(x, g.weight(6, 4, 1, 1)), g.weight(6, 1, 1, seed=4)), g.weight(6, 1, 1)),
                           g.weight(6, 1, 1, seed=2)), {"conv": 1, "add": 2}),
    "one number": (lambda g, x: g.mul(g.conv(x, g.weight(6, 4, 1, 1)), 0.3), {"conv": 1}),
    "twice": (
        lambda g, x: g.mul(g.mul(g.conv(x, g.weight(6, 2, 1, 1), groups=2), 0.3), g.weight(6, 1, 1)), {"conv": 1}),
    "scale per column": (lambda g, x: g.mul(g.conv(x, g.weight(6, 4, 1, 1)), g.weight(5)), {"conv": 1, "mul": 1}),
    "matmul": (lambda g, x: g.mul(g.matmul(x, g.weight(5, 7)), g.weight(7)), {"matmul": 1}),
    "matmul, transposed": (lambda g, x: g.mul(g.matmul(x, g.weight(7, 5), tb=True), g.weight(1, 7)), {"matmul": 1}),
    "matmul, per row": (lambda g, x: g.mul(g.matmul(x, g.weight(5, 7)), g.weight(3, 1)), {"matmul": 1, "mul": 1}),
}  # fmt: skip


@pytest.mark.parametrize("spelling,left", CONVS.values(), ids=CONVS)
def test_scales_go_into_weights(spelling: Spelling, left: dict[str, int]) -> None:
    assert ops(rewritten(spelling, fold_affine.PASS, shape=(2, 4, 3, 5))) == left


def test_a_scaled_product_that_others_read_is_kept() -> None:
    g = G()
    y = g.conv(g.input(2, 4, 3, 5), g.weight(6, 4, 1, 1))
    before = g.done(g.mul(y, g.weight(6, 1, 1)), y)
    after = apply(fold_affine.PASS, before, PassOptions())
    assert ops(after) == {"conv": 1, "mul": 1}
    assert_same_numbers(before, after)
