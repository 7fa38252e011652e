"""Small ONNX models for the frontend's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, shape: Sequence[int | str | None] | None = None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """A typed input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    """A node; `name` and `domain` are its own, the rest are attributes."""
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def tensor(name: str, array: Any) -> onnx.TensorProto:
    """An initializer with raw data."""
    return numpy_helper.from_array(np.asarray(array), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto | str],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    extra_opsets: Sequence[tuple[str, int]] = (),
) -> onnx.ModelProto:
    """A model; outputs given by name alone are undeclared floats."""
    declared = [o if isinstance(o, onnx.ValueInfoProto) else value(o) for o in outputs]
    graph = helper.make_graph(list(nodes), "test", list(inputs), declared, list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in extra_opsets)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def small() -> onnx.ModelProto:
    """x[N,4] -> Relu -> + b -> Reshape [N,2,2]."""
    return model(
        [
            node("Relu", ["x"], ["r"], name="act"),
            node("Add", ["r", "b"], ["s"], name="bias"),
            node("Reshape", ["s", "shape"], ["y"], name="split"),
        ],
        [value("x", ["N", 4])],
        [value("y", ["N", 2, 2])],
        [tensor("b", np.arange(4, dtype=np.float32)), tensor("shape", np.array([0, 2, 2]))],
    )
