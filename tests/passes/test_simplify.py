"""simplify: what does nothing goes, equal nodes are merged, and what does something stays."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.passes import simplify
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.rewriting import Spelling, rewritten

NOTHING: dict[str, Spelling] = {
    "identity cast": lambda g, x: g.cast(x, to=dt.f32),
    "cast there and back": lambda g, x: g.cast(g.cast(x, to=dt.f64), to=dt.f32),
    "reshape there and back": lambda g, x: g.reshape(g.reshape(x, shape=(6, 8)), shape=(2, 3, 8)),
    "identity transpose": lambda g, x: g.transpose(x, perm=(0, 1, 2)),
    "transposes that cancel": lambda g, x: g.transpose(g.transpose(x, perm=(2, 0, 1)), perm=(1, 2, 0)),
    "three transposes": lambda g, x: g.transpose(
        g.transpose(g.transpose(x, perm=(1, 2, 0)), perm=(1, 2, 0)), perm=(1, 2, 0)),
    "plus zero": lambda g, x: g.add(0.0, g.sub(g.add(x, 0.0), 0.0)),
    "times one": lambda g, x: g.mul(1.0, g.div(g.mul(x, 1.0), 1.0)),
    "power of one": lambda g, x: g.pow(x, 1.0),
    "whole slice": lambda g, x: g.slice(x, starts=(0, 0, 0), sizes=(2, 3, 8), steps=(1, 1, 1)),
    "expand to itself": lambda g, x: g.expand(x, shape=(2, 3, 8)),
    "concat of one": lambda g, x: g.concat(x, axis=1),
}  # fmt: skip


@pytest.mark.parametrize("build", NOTHING.values(), ids=NOTHING)
def test_what_does_nothing_goes(build: Spelling) -> None:
    graph = rewritten(lambda g, x: g.relu(build(g, x)), simplify.PASS)
    assert ops(graph) == {"relu": 1}


KEPT: dict[str, Spelling] = {
    "cast that loses": lambda g, x: g.cast(g.cast(x, to=dt.f16), to=dt.f32),
    "cast to int and back": lambda g, x: g.cast(g.cast(x, to=dt.i64), to=dt.f32),
    "cast to bool and back": lambda g, x: g.cast(g.cast(x, to=dt.bool_), to=dt.f32),
    "zero minus x": lambda g, x: g.sub(0.0, x),
    "one over x": lambda g, x: g.div(1.0, x),
    "plus a zero that broadcasts": lambda g, x: g.add(x, np.zeros((4, 2, 3, 8))),
    "reversed": lambda g, x: g.slice(x, starts=(0, 0, 7), sizes=(2, 3, 8), steps=(1, 1, -1)),
}


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_what_does_something_stays(build: Spelling) -> None:
    graph = rewritten(build, simplify.PASS)
    assert graph.nodes


def test_equal_nodes_are_merged_and_random_ones_are_not() -> None:
    graph = rewritten(lambda g, x: g.mul(g.exp(g.add(x, 1.5)), g.exp(g.add(x, 1.5))), simplify.PASS)
    assert ops(graph) == {"add": 1, "exp": 1, "mul": 1}
    different = rewritten(lambda g, x: g.add(g.reduce(x, "sum", 1), g.reduce(x, "max", 1)), simplify.PASS)
    assert ops(different)["reduce"] == 2


def test_powers_become_products_and_roots() -> None:
    graph = rewritten(lambda g, x: g.add(g.pow(x, 2.0), g.pow(x, 3.0)), simplify.PASS)
    assert "pow" not in ops(graph)
    assert ops(rewritten(lambda g, x: g.pow(g.abs(x), 0.5), simplify.PASS)) == {"abs": 1, "sqrt": 1}
    assert ops(rewritten(lambda g, x: g.pow(g.abs(x), 1.7), simplify.PASS))["pow"] == 1


def test_a_transpose_that_moves_only_ones_is_a_reshape() -> None:
    graph = rewritten(lambda g, x: g.transpose(x, perm=(1, 0, 2)), simplify.PASS, shape=(1, 3, 8))
    assert ops(graph) == {"reshape": 1}


def test_outputs_keep_their_names_when_they_become_inputs_or_each_other() -> None:
    g = G()
    x = g.input(2, 2)
    a, b = g.add(x, 0.0), g.mul(x, 1.0)
    before = g.done(a, b)
    graph = apply(simplify.PASS, before, PassOptions())
    assert not graph.nodes and graph.outputs == (x, x)
    assert_same_numbers(before, graph)


def test_views_of_a_view_plus_a_number_stay_together() -> None:
    g = G()
    part = g.slice(g.input(2, 8, 3), starts=(0, 4, 0), sizes=(2, 4, 3), steps=(1, 1, 1))
    before = g.done(g.reshape(g.add(part, 1.0), shape=(2, 1, 12)), g.reshape(g.mul(2.0, g.tanh(part)), shape=(24,)))
    after = apply(simplify.PASS, before, PassOptions())
    assert [n.op for n in after.nodes if n.outputs[0] in after.outputs] == ["add", "reshape"]
    assert_same_numbers(before, after)
