"""Attention of rank 3, as over the pixels of an image: found in its spellings, and without transposes beside convs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bessemer.core.dim import Dim, sym
from bessemer.core.interval import Range
from bessemer.ir.graph import Graph
from bessemer.passes import layout, simplify
from bessemer.passes.base import PassOptions, apply
from bessemer.passes.fusion import PATTERNS
from tests.graphs import G, assert_same_numbers, ops

GPU = PassOptions("cuda")


def run_of(g: G, x: str, start: int, batch: Dim, width: int, pixels: int) -> str:
    return g.slice(x, starts=(0, start, 0), sizes=(batch, width, pixels), steps=(1, 1, 1))


def block(g: G, x: str, batch: Dim, heads: int, size: int = 4) -> str:
    """A convolution to q, k and v, attention of `heads` over 3 x 5 pixels, and a convolution back."""
    width = heads * size
    qkv = g.add(g.conv(x, g.weight(3 * width, 6, 1, 1)), g.weight(1, 3 * width, 1, 1, seed=2))
    flat = g.reshape(qkv, shape=(batch, 3 * width, 15))
    parts = [run_of(g, flat, k * width, batch, width, 15) for k in range(3)]
    q, k = (g.mul(p, size**-0.25) for p in parts[:2])
    q, k, v = (g.reshape(p, shape=(batch * heads, size, 15)) for p in (q, k, parts[2]))
    weights = g.softmax(g.matmul(q, k, ta=True), axis=2, log=False)
    joined = g.transpose(g.matmul(weights, v, tb=True), perm=(0, 2, 1))
    return g.conv(g.reshape(joined, shape=(batch, width, 3, 5)), g.weight(6, width, 1, 1, seed=3))


def optimised(before: Graph, options: PassOptions = GPU) -> Graph:
    after = before
    for p in (simplify.PASS, *PATTERNS, simplify.PASS, layout.PASS, simplify.PASS):
        after = apply(p, after, options)
    assert_same_numbers(before, after)
    return after


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_pixels_attend_without_transposes(heads: int, batch: int) -> None:
    g = G()
    x = g.input(batch, 6, 3, 5)
    after = ops(optimised(g.done(g.add(block(g, g.relu(g.conv(x, g.weight(6, 6, 3, 3), pad=1)), batch, heads), x))))
    assert after["attention"] == 1 and not {"softmax", "mul"} & set(after)
    assert after["matmul"] == 1 and after["transpose"] <= 2, dict(after)  # of the graph's input and output


def test_a_dynamic_batch_keeps_the_convolution() -> None:
    g = G(b=Range(1, 8, 2))
    before = g.done(block(g, g.input(sym("b"), 6, 3, 5), sym("b"), 3))
    after = ops(optimised(before))
    assert after["attention"] == 1 and after["conv"] == 2 and not {"softmax", "matmul"} & set(after)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_rows_that_are_no_channels(target: str) -> None:
    g = G()
    q, k, v = (g.input(4, rows, 8, name=name) for rows, name in ((5, "q"), (7, "k"), (7, "v")))
    weights = g.softmax(g.mul(g.matmul(q, k, tb=True), 0.3), axis=2, log=False)
    after = optimised(g.done(g.matmul(weights, v)), PassOptions(target))
    (node,) = (n for n in after.nodes if n.op == "attention")
    assert node.attrs["scale"] == pytest.approx(0.3) and not {"softmax", "transpose"} & set(ops(after))


SPELLINGS: dict[str, Callable[[G, str], str]] = {
    "large heads": lambda g, x: g.matmul(
        g.softmax(g.matmul(g.weight(1, 7, 160), g.weight(1, 7, 160, seed=2), tb=True), axis=2, log=False), x),
    "masked scores": lambda g, x: g.matmul(
        g.softmax(g.add(g.matmul(x, x, tb=True), g.weight(1, 7, 7)), axis=2, log=False), x),
    "columns": lambda g, x: g.matmul(g.softmax(g.matmul(x, x, tb=True), axis=1, log=False), x),
    "log": lambda g, x: g.matmul(g.softmax(g.matmul(x, x, tb=True), axis=2, log=True), x),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_what_is_left_alone(spelling: Callable[[G, str], str]) -> None:
    g = G()
    assert "attention" not in ops(optimised(g.done(spelling(g, g.input(1, 7, 8)))))
