"""ONNX graphs as torch modules, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def test_agrees_with_onnxruntime_and_folds_shapes(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from bench.onnx_torch import torch_module

    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((6, 3, 3, 3), np.float32), "ends": np.array([2], np.int64),
        "zero": np.array([0], np.int64), "rest": np.array([-1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("HardSigmoid", ["c"], ["h"], alpha=0.3),
        helper.make_node("Split", ["h"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Mul", ["a", "b"], ["m"]),
        helper.make_node("Shape", ["m"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "ends"], ["head"]),
        helper.make_node("Concat", ["head", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["m", "shape"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    feeds = {"x": rng.standard_normal((2, 3, 8, 8), np.float32)}
    want = onnxruntime.InferenceSession(str(path)).run(None, feeds)[0]
    module = torch_module(path, feeds)
    (got,) = module(torch.from_numpy(feeds["x"]))
    assert got.shape == want.shape == (2, 3, 64)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6)
    assert {n.target for n in module.graph.nodes if n.op == "get_attr"} == {"value_0"}  # only the weights are left
