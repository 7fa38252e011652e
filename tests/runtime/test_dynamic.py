"""Sizes that are only known while running: unbounded inputs, and results whose size depends on data."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bessemer.builder import BuildOptions, run
from bessemer.runtime.session import Session, load
from bessemer.targets.cpu import CpuTarget, detect_level


def session(nodes: list[onnx.NodeProto], inputs: dict[str, list[str | int]], outputs: dict[str, int]) -> Session:
    """A session of f32 inputs with these dimensions and outputs of these element types, built without a profile."""
    graph = helper.make_graph(
        nodes, "dynamic",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = run(model, BuildOptions(CpuTarget(detect_level(), 2, optimise=False), tune="off"))
    assert engine is not None
    return load(engine)


def test_tensors_without_a_bound_follow_the_shapes() -> None:
    """[a, b, c] may be of any size, so nothing inside is planned; softmax over axis 0 needs scratch."""
    s = session(
        [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 0]), helper.make_node("Softmax", ["t"], ["p"], axis=0),
         helper.make_node("ReduceSum", ["p"], ["y"], keepdims=0)],
        {"x": ["a", "b", "c"]}, {"y": TensorProto.FLOAT},
    )  # fmt: skip
    assert s.engine.memory["arena"] == 0
    rng = np.random.default_rng()
    for shape in ((2, 3, 5), (40, 30, 20), (2, 3, 5), (1, 1, 1), (7, 300, 11)):
        x = rng.standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(s.run({"x": x})["y"], shape[0] * shape[2], rtol=1e-4)


def test_sizes_that_depend_on_data_change_from_run_to_run() -> None:
    """Results stay as they are when later runs give others, and runs of equal sizes do not share memory."""
    s = session(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("NonZero", ["r"], ["places"]),
         helper.make_node("Cast", ["places"], ["z"], to=TensorProto.FLOAT), helper.make_node("Neg", ["z"], ["y"])],
        {"x": ["a", 4]}, {"y": TensorProto.FLOAT, "places": TensorProto.INT64},
    )  # fmt: skip
    rng = np.random.default_rng()
    given = [rng.standard_normal((rows, 4)).astype(np.float32) for rows in (3, 3, 50, 3, 1, 50)] * 2
    found = [s.run({"x": x}) for x in given]
    for x, got in zip(given, found):
        wanted = np.array(np.nonzero(x > 0))
        np.testing.assert_array_equal(got["places"], wanted)
        np.testing.assert_array_equal(got["y"], -wanted.astype(np.float32))


def test_a_result_is_not_a_view_of_what_the_next_step_overwrites() -> None:
    """A host step may give its input back; later kernels take the input's memory."""
    s = session(
        [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("NonZero", ["e"], ["n"]),
         helper.make_node("Shape", ["n"], ["size"]), helper.make_node("Expand", ["row", "size"], ["y"])],
        {"x": [3, 5], "row": [1, 1]}, {"y": TensorProto.FLOAT},
    )  # fmt: skip
    row = np.array([[2.5]], np.float32)
    first = s.run({"x": np.zeros((3, 5), np.float32), "row": row})["y"]
    second = s.run({"x": np.zeros((3, 5), np.float32), "row": row + 1})["y"]
    assert first.shape == second.shape == (2, 15)
    assert (first == 2.5).all() and (second == 3.5).all()


@pytest.mark.parametrize("rank", [2, 3])
def test_a_branch_on_a_shape_that_fails_is_named(rank: int) -> None:
    """Squeeze of a dimension that may be 1: exporters write it as If(dimension is 1, Squeeze, Identity)."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=axes), helper.make_node("Squeeze", ["r", "k"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )  # fmt: skip
    keep = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["o"])],
        "else", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )  # fmt: skip
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    s = session(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Shape", ["r"], ["shape"]),
         helper.make_node("Constant", [], ["zero"], value=zero), helper.make_node("Constant", [], ["one"], value=one),
         helper.make_node("Gather", ["shape", "zero"], ["size"]),
         helper.make_node("Equal", ["size", "one"], ["single"]),
         helper.make_node("If", ["single"], ["y"], name="maybe", then_branch=then, else_branch=keep)],
        {"x": ["a", 4, 6][:rank]}, {"y": TensorProto.FLOAT},
    )  # fmt: skip
    x = np.random.default_rng().standard_normal((1, 4, 6)[:rank]).astype(np.float32)
    np.testing.assert_array_equal(s.run({"x": x})["y"], np.maximum(x[0], 0))
    assert s.engine.manifest["slow_paths"] == []
    with pytest.raises(Exception, match="maybe squeezes a dimension that is not 1"):
        s.run({"x": np.concatenate([x, x])})
    np.testing.assert_array_equal(s.run({"x": x})["y"], np.maximum(x[0], 0))
