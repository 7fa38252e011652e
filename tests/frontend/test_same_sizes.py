"""Dimensions with names of their own that a model's nodes need to be equal: one is taken to be the other, or a sum."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bessemer
from bessemer.core.errors import InputError, ShapeError
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from bessemer.ir.interp import run
from bessemer.ir.verify import verify
from tests.frontend.models import model, node, tensor, value


def _shapes(graph) -> dict[str, str]:
    return {name: ",".join(map(str, graph.types[name].shape)) for name in graph.inputs}


def _joined(op: str) -> onnx.ModelProto:
    """Two inputs that have to have one length."""
    if op == "MatMul":
        return model([node("MatMul", ["x", "y"], ["z"])], [value("x", [3, "n"]), value("y", ["m", 5])], ["z"])
    attrs = {"axis": 0} if op == "Concat" else {}
    nodes = [node(op, ["x", "y"], ["z"], **attrs)]
    return model(nodes, [value("x", [3, "n"]), value("y", [3, "m"])], ["z"])


@pytest.mark.parametrize("op", ["MatMul", "Concat", "Add"])
def test_two_names_for_one_length(op: str):
    profile = Profile({"x": ((3, 2), (3, 4), (3, 9)), "y": ((2, 5), (4, 5), (8, 5)) if op == "MatMul" else
                       ((3, 2), (3, 4), (3, 8))})  # fmt: skip
    graph = import_model(_joined(op), profiles=[profile])
    verify(graph)
    (name,) = graph.ranges
    assert (graph.ranges[name].lo, graph.ranges[name].hi, graph.ranges[name].opt) == (2, 8, 4), "what both allow"
    x, y = np.ones((3, 6), np.float32), np.ones((6, 5) if op == "MatMul" else (3, 6), np.float32)
    session = bessemer.load(bessemer.build(_joined(op), tune="off", profiles=[profile]))
    assert session.run({"x": x, "y": y})["z"].tobytes() == run(graph, {"x": x, "y": y})["z"].tobytes()
    with pytest.raises(ShapeError, match=r"dimension . is 6, the engine takes 5 \(. = 5 by the other inputs\)"):
        session.run({"x": x[:, :5], "y": y})


def test_opt_shapes_that_differ_leave_it_open():
    profile = Profile({"x": ((3, 2), (3, 4), (3, 9)), "y": ((3, 2), (3, 5), (3, 8))})
    with pytest.raises(ShapeError, match="cannot decide whether dimensions n and m are equal"):
        import_model(_joined("Concat"), profiles=[profile])


def test_a_length_that_may_be_one_is_still_broadcast():
    graph = import_model(_joined("Add"))
    assert _shapes(graph) == {"x": "3,n", "y": "3,m"}
    x, y = np.ones((3, 4), np.float32), np.ones((3, 1), np.float32)
    assert run(graph, {"x": x, "y": y})["z"].shape == (3, 4)


def _decoder() -> onnx.ModelProto:
    """Keys of the past and new ones, and a mask over both that has a length of its own: softmax(q k + mask) k."""
    nodes = [
        node("Concat", ["past", "new"], ["keys"], axis=0),
        node("Transpose", ["keys"], ["turned"], perm=[1, 0]),
        node("MatMul", ["new", "turned"], ["scores"]),
        node("Where", ["mask", "scores", "least"], ["masked"]),
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "keys"], ["y"]),
    ]
    inputs = [value("mask", ["total"], onnx.TensorProto.BOOL), value("past", ["p", 8]), value("new", ["t", 8])]
    return model(nodes, inputs, ["y"], [tensor("least", np.array(-1e9, np.float32))])


@pytest.mark.parametrize("least", [None, 0, 2])
def test_a_mask_as_long_as_past_and_new_keys(least: int | None):
    sizes = (least or 0, 20, 64)
    profiles = None if least is None else [
        Profile({"mask": ((sizes[0] + 1,), (21,), (80,)), "past": tuple((n, 8) for n in sizes),
                 "new": ((1, 8), (1, 8), (16, 8))})
    ]  # fmt: skip
    graph = import_model(_decoder(), profiles=profiles)
    session = bessemer.load(bessemer.build(_decoder(), tune="off", profiles=profiles))
    rng = np.random.default_rng(3)
    for past, new in ((2, 1), (5, 3), (64, 16)):
        k, x = rng.standard_normal((past, 8)).astype("f"), rng.standard_normal((new, 8)).astype("f")
        mask = rng.random(past + new) < 0.7
        mask[-1] = True
        keys = np.concatenate([k, x]).astype(np.float64)
        scores = np.where(mask, x.astype(np.float64) @ keys.T, -1e9)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        wanted = shares / shares.sum(-1, keepdims=True) @ keys
        feeds = {"mask": mask, "past": k, "new": x}
        np.testing.assert_allclose(session.run(feeds)["y"], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(run(graph, feeds)["y"], wanted, rtol=1e-5, atol=1e-5)


def test_a_sum_that_the_model_needs_is_taken_and_checked():
    """A product of the scores with values that have the mask's length: equal, or no run at all."""
    made = _decoder()
    made.graph.input.append(value("values", ["total", 4]))
    made.graph.node[-1].input[1] = "values"
    graph = import_model(made)
    assert _shapes(graph)["mask"] == "p+t" and _shapes(graph)["values"] == "p+t,4"
    feeds = {"mask": np.ones(5, bool), "past": np.ones((3, 8), "f"), "new": np.ones((2, 8), "f")}
    feeds["values"] = np.eye(5, 4, dtype="f")
    assert run(graph, feeds)["y"].shape == (2, 4)
    with pytest.raises(InputError, match=r"p\+t = 5"):
        run(graph, feeds | {"mask": np.ones(6, bool)})
