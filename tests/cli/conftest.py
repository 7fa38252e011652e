"""A small model, and one engine of it, built once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper


def small_model(path: Path) -> Path:
    """relu(x w + b), then softmax, with a dynamic batch."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((8, 4)).astype(np.float32), "b": rng.standard_normal(4).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "Product"),
        helper.make_node("Add", ["m", "b"], ["a"], "Bias"),
        helper.make_node("Relu", ["a"], ["r"], "Activation"),
        helper.make_node("Softmax", ["r"], ["y"], "Rank", axis=-1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    initializers = [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "small", [x], [y], initializers),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="session")
def engine(model: Path) -> Path:
    from bessemer import Profile, build

    profile = Profile({"x": ((1, 8), (4, 8), (16, 8))})
    return build(model, tune="off", profiles=[profile]).save(model.with_suffix(".engine"))
