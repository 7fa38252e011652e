"""simplify: what does nothing goes, equal nodes are merged, and what does something stays."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import interp
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


ROOTS: dict[str, tuple[Spelling, bool]] = {
    "deviation": (lambda g, x: g.add(g.reduce(g.mul(x, x), "mean", 2), 1e-5), True),
    "length": (lambda g, x: g.reshape(g.reduce(g.pow(x, 2.0), "sum", 2), shape=(6,)), True),
    "length, in one": (lambda g, x: g.max(g.reduce(x, "sum_square", 2), 1e-5), True),
    "clipped": (lambda g, x: g.div(g.max(0.0, x), 2.0), True),
    "moved below zero": (lambda g, x: g.add(g.abs(x), -1.0), False),
    "divided by a negative": (lambda g, x: g.div(g.abs(x), -2.0), False),
    "no square": (lambda g, x: g.mul(x, g.exp(x)), False),
    "anything": (lambda g, x: x, False),
}


@pytest.mark.parametrize("base,root", ROOTS.values(), ids=ROOTS)
def test_a_power_of_a_half_is_a_root_of_what_is_not_below_zero(base: Spelling, root: bool) -> None:
    after = rewritten(lambda g, x: g.pow(base(g, x), 0.5), simplify.PASS)
    assert ("sqrt" in ops(after), "pow" in ops(after)) == (root, not root)


def test_the_power_of_minus_infinity_is_infinity() -> None:
    g = G()
    before = g.done(g.pow(g.input(3), 0.5))
    given = {"x": np.asarray([-np.inf, -0.0, 4.0], np.float32)}
    (got,) = interp.run(apply(simplify.PASS, before, PassOptions()), given).values()
    assert np.array_equal(got, [np.inf, 0.0, 2.0]) and not np.signbit(got).any()


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


MAGIC = np.float32(1.5 * 2**23)  # x + MAGIC has no digit after the point
SUMS: dict[str, tuple[Spelling, int]] = {
    "biases": (lambda g, x: g.add(g.sub(g.add(x, g.weight(3, 8)), 0.75), g.weight(8, seed=2)), 1),
    "rounded to integers": (lambda g, x: g.sub(g.add(x, MAGIC), MAGIC), 2),
    "rounded to integers, then moved": (lambda g, x: g.sub(g.add(g.add(x, MAGIC), 1.0), MAGIC), 3),
    "what of x is left beside 1": (lambda g, x: g.sub(g.add(x, 1.0), 1.0), 2),
    "nearly taken off again": (lambda g, x: g.add(g.add(x, 16.0), -15.75), 2),
    "infinite": (lambda g, x: g.max(g.add(g.add(x, 1.0), -np.float32(np.inf)), -1.0), 3),
    "not a number": (lambda g, x: g.add(g.add(x, 1.0), np.float32(np.nan)), 2),
}


@pytest.mark.parametrize("spelling,left", SUMS.values(), ids=SUMS)
def test_constants_are_joined_where_only_rounding_changes(spelling: Spelling, left: int) -> None:
    after = rewritten(spelling, simplify.PASS, tolerance=1e-6)
    assert len(after.nodes) == left


@pytest.mark.parametrize("dtype,c", [(dt.f16, 40000.0), (dt.f16, 1536.0), (dt.f64, 1.5 * 2**52)], ids=str)
def test_large_constants_are_added_one_by_one(dtype: DType, c: float) -> None:
    """-60000 + 40000 + 40000 is 20000, and 40000 + 40000 is beyond f16; 1536 and 1.5 * 2^52 round to integers."""
    for d in (c, -c):
        g = G()
        x = g.input(5, dtype=dtype)
        before = g.done(g.add(g.add(x, g.const(c, dtype)), g.const(d, dtype)))
        after = apply(simplify.PASS, before, PassOptions())
        given = {"x": np.asarray([-1.2 * c, -c / 2, 0.4, -7.7, 2.5], dtype.numpy)}
        assert len(after.nodes) == 2
        assert np.array_equal(interp.run(after, given)[after.outputs[0]], interp.run(before, given)[before.outputs[0]])
