"""Concatenations whose parts are written in place, from the model to the run."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer import build, load
from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.frontend.models import model, node, tensor, value


def joined(axis: int, lead: tuple[int, ...]) -> bytes:
    """Two products, joined along `axis`, read whole by a third and in part by a softmax."""
    rng = np.random.default_rng(5)
    weights = [tensor(name, rng.standard_normal((32, 32)).astype(np.float32) / 6) for name in "uvw"]
    weights += [tensor(name, np.array([k])) for name, k in (("three", 3), ("eleven", 11), ("axis", axis))]
    nodes = [
        node("MatMul", ["x", "u"], ["p"]), node("Relu", ["p"], ["a"]),
        node("MatMul", ["x", "v"], ["q"]), node("Tanh", ["q"], ["b"]),
        node("Concat", ["a", "b"], ["c"], axis=axis), node("MatMul", ["c", "w"], ["y"]),
        node("Slice", ["c", "three", "eleven", "axis"], ["s"]), node("Softmax", ["s"], ["z"], axis=-1),
        node("Add", ["a", "b"], ["sum"]),
    ]  # fmt: skip
    return model(nodes, [value("x", [*lead, 8, 32])], ["y", "z", "sum"], weights).SerializeToString()


@pytest.mark.parametrize("lead", [(), (1,)])
def test_parts_are_written_where_they_lie(lead: tuple[int, ...]) -> None:
    proto = joined(len(lead), lead)
    engine = build(proto, tune="off")
    assert not any("concat" in step.name for step in engine.program.steps if "slice" not in step.name)
    x = np.random.default_rng(6).standard_normal((*lead, 8, 32)).astype(np.float32)
    want, session = run(import_model(proto), {"x": x}), load(engine)
    for _ in range(2):
        got = session.run({"x": x})
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, 1e-4, 1e-5, err_msg=name)
