"""Small models, built without tuning, that the runtime's tests run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bessemer.builder import run
from bessemer.engine.engine import Engine
from bessemer.options import BuildOptions
from bessemer.targets.base import Target
from bessemer.targets.cpu import CpuTarget, detect_level

WIDTH = 96


def perceptron(width: int = WIDTH, layers: int = 4, seed: int = 0) -> onnx.ModelProto:
    """x [n, width] -> layers of product, bias and ReLU -> softmax y [n, width]."""
    rng = np.random.default_rng(seed)
    nodes, weights, value = [], [], "x"
    for k in range(layers):
        w = rng.standard_normal((width, width), np.float32) / np.float32(width**0.5)
        b = rng.standard_normal(width, np.float32)
        weights += [numpy_helper.from_array(w, f"w{k}"), numpy_helper.from_array(b, f"b{k}")]
        nodes += [
            helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [f"g{k}"], name=f"layer{k}"),
            helper.make_node("Relu", [f"g{k}"], [f"r{k}"], name=f"relu{k}"),
        ]
        value = f"r{k}"
    nodes.append(helper.make_node("Softmax", [value], ["y"], name="out", axis=-1))
    return as_model(nodes, {"x": ["n", width]}, {"y": ["n", width]}, weights)


def as_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A model of f32 inputs and outputs."""

    def infos(values: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

    graph = helper.make_graph(list(nodes), "net", infos(inputs), infos(outputs), list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def expected(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What `perceptron` computes, in float64."""
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    value = x.astype(np.float64)
    for k in range(len(weights) // 2):
        value = np.maximum(value @ weights[f"w{k}"] + weights[f"b{k}"], 0)
    e = np.exp(value - value.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def built(model: onnx.ModelProto, target: str | Target | None = None, **options: Any) -> Engine:
    """An engine, compiled in haste."""
    options.setdefault("tune", "off")
    engine = run(model, BuildOptions(target or CpuTarget(detect_level(), 2, optimise=False), **options))
    assert engine is not None
    return engine
