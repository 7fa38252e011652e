"""The interpreter: symbols, checks of every value, bf16, nested graphs."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import GraphError, InputError
from bessemer.ir.interp import run
from bessemer.ir.text import parse

TEXT = """\
graph "g"(%x: f32[N,4], %y: f32[M,N]) -> (%s as "sum", %d) {
  sym N = [1, 8] opt 2
  sym M = [2, 64] opt 2 multiple 2
  %k: f32[4] = constant [1, 2, 3, 4]
  %s: f32[N,4] = add(%x, %k)
  %r: f32[4*N] = reshape(%s) {shape = (<4*N>,)}
  %d: i64[2] = dims() {values = (<N>, <2*M>), shape = (2,), dtype = i64}
}
"""
X, Y, LONG = np.ones((3, 4), np.float32), np.ones((2, 3), np.float32), np.ones((9, 9), np.float32)


def test_symbols_are_bound_and_outputs_have_the_models_names():
    kept: dict[str, np.ndarray] = {}
    graph = parse(TEXT.replace(', %d)', ' as "sum", %d as "d")').replace('%s as "sum" as "sum"', '%s as "sum"'))
    out = run(graph, {"x": X, "y": Y}, keep=kept)
    assert np.array_equal(out["sum"], X + [1, 2, 3, 4]) and out["d"].tolist() == [3, 4]
    assert kept["r"].shape == (12,) and {"x", "y", "k", "s", "r", "d"} == kept.keys()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": X}, "no array for y"),
        ({"x": X, "y": Y, "z": Y}, "no input called z"),
        ({"x": X.astype(np.float64), "y": Y}, "input 'x' is float64, the graph takes f32"),
        ({"x": X[0], "y": Y}, "has not the rank of f32[N,4]"),
        ({"x": X[:, :3], "y": Y}, "dimension 1 of shape [3, 3] is 3, f32[N,4] says 4"),
        ({"x": X, "y": Y[:, :2]}, "dimension 1 of shape [2, 2] is 2, f32[M,N] says N = 3"),
        ({"x": LONG[:, :4], "y": LONG[:2]}, "dimension N is 9, and the graph takes 1 to 8"),
        ({"x": X, "y": X[:, :3]}, "dimension M is 3, and the graph takes 2 to 64 in steps of 2"),
    ],
)
def test_wrong_inputs_are_named(inputs, message: str):
    with pytest.raises(InputError) as error:
        run(parse(TEXT.replace(' as "sum"', "")), inputs)
    assert message in str(error.value)


def test_a_result_that_is_not_of_its_type_is_never_passed_on():
    text = TEXT.replace(' as "sum"', "").replace("%s: f32[N,4] = add", "%s: f32[N,5] = add")
    with pytest.raises(GraphError, match="dimension 1 of shape"):
        run(parse(text), {"x": X, "y": Y})


def test_a_reference_that_fails_is_shown_with_its_node():
    text = TEXT.replace(' as "sum"', "").replace("(<4*N>,)", "(<4*N+1>,)")
    with pytest.raises(GraphError, match="the reference of reshape failed"):
        run(parse(text), {"x": X, "y": Y})


def test_bf16_is_computed_in_f32_and_rounded_once_per_op():
    text = 'graph "g"(%x: bf16[2]) -> (%y) {\n  %y: bf16[2] = add(%x, %x)\n}'
    values = np.array([1.00390625, 3.0], np.float32)
    out = run(parse(text), {"x": dt.to_bf16(values)})["y"]
    assert out.dtype == np.uint16
    assert np.array_equal(dt.from_bf16(out), 2 * dt.from_bf16(dt.to_bf16(values)))


LOOP = """\
graph "g"(%n: i64[], %x: f32[N]) -> (%last, %all) {
  sym N = [1, 8] opt 2
  sym u1 = [0, inf]
  sym u2 = [0, inf]
  %last: f32[N], %all: f32[u2,N] = loop(%n, _, %x) {
    body = graph "b"(%i: i64[], %c: bool[], %v: f32[N]) -> (%c, %w, %o) {
    %w: f32[N] = add(%v, %x)
    %o: f32[N] = neg(%w)
  }}
}
"""


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_loop(steps: int):
    x = np.array([1, 2], np.float32)
    out = run(parse(LOOP), {"n": np.array(steps), "x": x})
    assert np.array_equal(out["last"], x * (1 + steps))
    assert out["all"].shape == (steps, 2) and np.array_equal(out["all"], -np.outer(np.arange(2, steps + 2), x))
