"""Sizes that a model takes to be equal: runs at which they are not are refused, with what, where and the fix."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bessemer import ShapeError, build, load
from bessemer.core.dim import sym
from bessemer.engine.engine import Engine
from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from bessemer.plan.equalities import equalities
from tests.frontend.models import INT64, model, node, tensor, value

RNG = np.random.default_rng()
N, B, S = sym("n"), sym("b"), sym("s")


def folded(*target: int) -> bytes:
    """Softmax of x [n, 64] as `target`."""
    nodes = [node("Reshape", ["x", "to"], ["r"]), node("Softmax", ["r"], ["y"], axis=-1)]
    return model(nodes, [value("x", ["n", 64])], ["y"], [tensor("to", np.array(target))]).SerializeToString()


def lstm(branch: bool = False) -> bytes:
    """An LSTM whose states have a batch of their own, in a branch that depends on data or outside."""
    weights = [tensor(k, 0.3 * RNG.standard_normal(s).astype(np.float32)) for k, s in (
        ("w", (1, 32, 4)), ("r", (1, 32, 8)), ("bias", (1, 64)))]  # fmt: skip
    cell = node("LSTM", ["x", "w", "r", "bias", "", "h", "h"], ["", "y"], hidden_size=8)
    inputs = [value("x", [5, "b", 4]), value("h", [1, "s", 8])]
    if not branch:
        return model([cell], inputs, ["y"], weights).SerializeToString()
    cell.output[1] = "inside"
    then = helper.make_graph([cell], "then", [], [value("inside", None)])
    other = helper.make_graph([node("Identity", ["h"], ["same"])], "else", [], [value("same", None)])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]  # fmt: skip
    return model(nodes, inputs, ["y"], [*weights, tensor("zero", np.float32(0))]).SerializeToString()


def check(engine: Engine, proto: bytes, feeds: dict[str, np.ndarray]) -> None:
    want = run(import_model(proto), feeds)["y"]
    np.testing.assert_allclose(load(engine).run(feeds)["y"], want, 1e-4, 1e-5)


@pytest.mark.parametrize("tune", ["off", "device"])
def test_a_reshape_that_has_no_room_for_all_is_refused(tune: str) -> None:
    proto = folded(11, -1, 64)
    engine = build(proto, tune=tune)
    assert [(e.left, e.nodes) for e in engine.program.equalities] == [(64 * N, "Reshape_0")]
    for rows in (11, 33):
        check(engine, proto, {"x": RNG.standard_normal((rows, 64)).astype(np.float32)})
    with pytest.raises(ShapeError, match=r"at n = 12, 64\*n is 768 and 704\*floordiv\(64\*n,704\) is 704") as refused:
        load(engine).run({"x": np.zeros((12, 64), np.float32)})
    assert "Reshape_0" in str(refused.value) and "sizes at which these two are equal" in str(refused.value)


def test_what_is_equal_at_all_sizes_is_not_checked() -> None:
    for target in ((-1, 8, 8), (0, 2, -1), (-1,)):
        assert equalities(import_model(folded(*target))) == ()


@pytest.mark.parametrize("branch", [False, True])
def test_states_of_another_batch_are_refused(branch: bool) -> None:
    """The kernel reads as many as there are in the data, in branches too."""
    proto = lstm(branch)
    engine = build(proto, tune="off")
    (found,) = engine.program.equalities
    assert {found.left, found.right} == {B, S}
    x = np.abs(RNG.standard_normal((5, 3, 4))).astype(np.float32)
    check(engine, proto, {"x": x, "h": RNG.standard_normal((1, 3, 8)).astype(np.float32)})
    with pytest.raises(ShapeError, match="at b = 3, s = 2, s is 2 and b is 3"):
        load(engine).run({"x": x, "h": np.zeros((1, 2, 8), np.float32)})


def test_weights_of_other_sizes_than_the_data_are_refused() -> None:
    """Weights that are inputs, of sizes that the model leaves open."""
    cell = node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=8)
    inputs = [value("x", [5, "b", "i"]), value("w", [1, 32, "k"]), value("r", [1, 32, 8])]
    proto = model([cell], inputs, ["y"]).SerializeToString()
    engine = build(proto, tune="off")
    assert [{e.left, e.right} for e in engine.program.equalities] == [{sym("i"), sym("k")}]
    feeds = {"x": (5, 2, 4), "w": (1, 32, 4), "r": (1, 32, 8)}
    given = {k: 0.3 * RNG.standard_normal(s).astype(np.float32) for k, s in feeds.items()}
    check(engine, proto, given)
    with pytest.raises(ShapeError, match="at i = 4, k = 3"):
        load(engine).run({**given, "w": given["w"][:, :, :3]})


def test_kernels_that_do_not_run_at_the_opt_shape_are_reported() -> None:
    """No case can be made of them: they are built untimed, and the build says so."""
    nodes = [node("Reshape", ["x", "to"], ["parts"]), node("LSTM", ["parts", "w", "r", "", "", "h"], ["", "y"],
             hidden_size=8)]  # fmt: skip
    weights = [tensor("w", np.ones((1, 32, 4), np.float32)), tensor("r", np.ones((1, 32, 8), np.float32) / 8)]
    inputs = [value("x", ["n", 4]), value("h", [1, "s", 8])]
    proto = model(nodes, inputs, ["y"], [*weights, tensor("to", np.array([3, -1, 4]))]).SerializeToString()
    engine = build(proto, tune="device")
    (note,) = [n for n in engine.manifest["notes"] if n.startswith("neither checked nor timed")]
    assert "lstm: no case can be made of it at its opt shape: initial_h of f32[" in note
    feeds = {"x": RNG.standard_normal((12, 4)).astype(np.float32), "h": np.zeros((1, 4, 8), np.float32)}
    check(engine, proto, feeds)


def test_sizes_that_no_input_tells_are_left_out() -> None:
    nodes = [node("NonZero", ["x"], ["at"]), node("Reshape", ["at", "to"], ["y"])]
    proto = model(nodes, [value("x", ["n", 3])], [value("y", None, INT64)], [tensor("to", np.array([-1, 3]))])
    assert equalities(import_model(proto.SerializeToString())) == ()
