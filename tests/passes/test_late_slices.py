"""Slices move behind reshapes that add or drop axes of size one."""

from __future__ import annotations

import pytest

from bessemer.ir.graph import Graph
from bessemer.ir.text import parse
from bessemer.passes import late_slices
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers
from tests.passes.test_texts import canonical

STEPS = (1, 1, 1)


def after(graph: Graph) -> Graph:
    return apply(late_slices.PASS, graph, PassOptions())


def order(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def test_before_becomes_after() -> None:
    before = parse(late_slices.BEFORE)
    assert canonical(after(before)) == canonical(parse(late_slices.AFTER))
    assert_same_numbers(before, after(before))


@pytest.mark.parametrize("shape", [(4, 2, 6), (1, 4, 2, 6, 1), (4, 2, 1, 6), (1, 1, 4, 2, 6)])
def test_axes_of_size_one_come_and_go(shape: tuple[int, ...]) -> None:
    g = G()
    half = g.slice(g.input(4, 1, 2, 12), starts=(0, 0, 0, 6), sizes=(4, 1, 2, 6), steps=(1, *STEPS))
    before = g.done(g.exp(g.reshape(half, shape=shape)))
    assert order(after(before)) == ["reshape", "slice", "exp"]
    assert_same_numbers(before, after(before))


def test_an_axis_that_the_slice_makes_one_long_stays() -> None:
    g = G()
    row = g.slice(g.input(3, 4, 6), starts=(1, 0, 0), sizes=(1, 4, 6), steps=STEPS)
    before = g.done(g.exp(g.reshape(row, shape=(4, 6))))
    assert order(after(before)) == ["slice", "reshape", "exp"]


@pytest.mark.parametrize("shape", [(24, 6), (2, 2, 1, 6, 6), (4, 36)])
def test_other_reshapes_stay(shape: tuple[int, ...]) -> None:
    g = G()
    part = g.slice(g.input(4, 6, 8), starts=(0, 0, 2), sizes=(4, 6, 6), steps=STEPS)
    before = g.done(g.exp(g.reshape(part, shape=shape)))
    assert order(after(before)) == ["slice", "reshape", "exp"]


def test_a_slice_that_others_read_too_stays() -> None:
    g = G()
    part = g.slice(g.input(4, 6, 8), starts=(0, 0, 2), sizes=(4, 6, 6), steps=STEPS)
    before = g.done(g.exp(g.reshape(part, shape=(4, 1, 6, 6))), g.tanh(part))
    assert order(after(before)) == order(before)


def test_a_slice_that_a_kernel_computes_with_what_it_reads_stays() -> None:
    g = G()
    part = g.slice(g.relu(g.input(4, 6, 8)), starts=(0, 0, 2), sizes=(4, 6, 6), steps=STEPS)
    before = g.done(g.exp(g.reshape(part, shape=(4, 1, 6, 6))))
    assert order(after(before)) == ["relu", "slice", "reshape", "exp"]


def test_a_slice_that_no_kernel_takes_in_stays() -> None:
    for product in (True, False):
        g = G()
        part = g.slice(g.input(4, 6, 8), starts=(0, 0, 2), sizes=(4, 6, 6), steps=STEPS)
        view = g.reshape(part, shape=(4, 1, 6, 6))
        before = g.done(g.matmul(view, g.weight(6, 3)) if product else view)
        assert order(after(before))[:2] == ["slice", "reshape"]
