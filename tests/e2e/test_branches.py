"""Branches that give a value of the graph around them as it is: what exporters make of `x = f(x) if c else x`."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bessemer import build, load
from tests.frontend.models import model, node, tensor, value


def chosen(kept: str, batch: int | str = 3) -> bytes:
    """y = exp(2 x) where x adds up to more than nothing, else 2 x; `kept` is the branch that keeps."""
    change = helper.make_graph([node("Exp", ["twice"], ["e"])], "change", [], [value("e")])
    keep = helper.make_graph([node("Identity", ["twice"], ["k"])], "keep", [], [value("k")])
    other = "then_branch" if kept == "else_branch" else "else_branch"
    nodes = [
        node("Add", ["x", "x"], ["twice"]), node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]), node("If", ["positive"], ["z"], **{kept: keep, other: change}),
        node("Neg", ["z"], ["y"]),
    ]  # fmt: skip
    return model(nodes, [value("x", [batch, 4])], ["y"], [tensor("zero", np.float32(0))]).SerializeToString()


@pytest.mark.parametrize("batch", [3, "b"])
@pytest.mark.parametrize("kept", ["then_branch", "else_branch"])
def test_a_branch_keeps_a_value(kept: str, batch: int | str) -> None:
    session = load(build(chosen(kept, batch), tune="off"))
    for sign in (1, -1, 1):
        x = sign * np.random.default_rng().uniform(0.1, 1, (3, 4)).astype(np.float32)
        keeps = (kept == "then_branch") == (sign > 0)
        np.testing.assert_allclose(session.run({"x": x})["y"], -2 * x if keeps else -np.exp(2 * x), rtol=1e-5)


def test_branches_of_half_precision_values_write_one_type() -> None:
    """What a product gives in fp16 is kept as it is, or changed by a product."""
    pytest.importorskip("triton", reason="builds for a GPU need triton")
    weights = tensor("w", np.eye(64, dtype=np.float32))
    change = helper.make_graph([node("MatMul", ["twice", "w"], ["e"])], "change", [], [value("e")])
    keep = helper.make_graph([node("Identity", ["twice"], ["k"])], "keep", [], [value("k")])
    nodes = [
        node("MatMul", ["x", "w"], ["twice"]), node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["z"], then_branch=change, else_branch=keep), node("MatMul", ["z", "w"], ["y"]),
    ]  # fmt: skip
    proto = model(nodes, [value("x", [64, 64])], ["y"], [weights, tensor("zero", np.float32(0))])
    program = build(proto, target="cuda:sm_90", precision="fp16", tune="off").program
    (copy,) = [s for s in program.steps if s.kind == "copy"]
    read, written = (program.tensors[n] for n in (copy.reads[0], copy.writes[0]))
    assert read.dtype == written.dtype and [s.kind for s in program.steps].count("branch") == 1
