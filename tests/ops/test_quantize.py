"""Quantisation per block and of products, against onnx's own reference and plain integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import check_node, node_model

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("length", [8, 7])  # 7: the last block is not full
def test_blocks(constants: bool, length: int) -> None:
    x = RNG.standard_normal((3, length, 2)).astype(np.float32)
    scale = RNG.uniform(0.01, 0.1, (3, 2, 2)).astype(np.float32)
    zero = RNG.integers(-5, 5, (3, 2, 2)).astype(np.int8)
    attrs = {"axis": 1, "block_size": 4}
    proto = node_model("QuantizeLinear", (x, scale, zero), 21, attrs, 1, constants)
    graph = import_model(proto)
    arrays = {"x0": x, "x1": scale, "x2": zero}
    q = run(graph, {n: arrays[n] for n in graph.inputs})["y0"]
    spread = [np.repeat(p, 4, 1)[:, :length] for p in (scale, zero)]
    assert np.array_equal(q, np.clip(np.rint(x / spread[0]) + spread[1], -128, 127).astype(np.int8))
    back = import_model(node_model("DequantizeLinear", (q, scale, zero), 21, attrs, 1, constants))
    real = run(back, {n: {**arrays, "x0": q}[n] for n in back.inputs})["y0"]
    np.testing.assert_allclose(real, (q.astype(np.float32) - spread[1]) * spread[0], 1e-6)


def test_integer_products_have_no_rounding() -> None:
    a, b = RNG.integers(0, 256, (2, 5, 70)).astype(np.uint8), RNG.integers(-128, 128, (70, 9)).astype(np.int8)
    check_node("MatMulInteger", (a, b, np.array(113, np.uint8), np.array(-3, np.int8)), 10, dynamic=(False,))
    x, w = RNG.integers(0, 256, (1, 3, 6, 7)).astype(np.uint8), RNG.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8)
    check_node("ConvInteger", (x, w, np.array(99, np.uint8)), 10, {"pads": [1, 1, 1, 1]}, dynamic=(False,))


def test_quantised_products_are_off_by_one_step_at_most() -> None:
    def parameters(scale: float, zero: int, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
        return np.array(scale, np.float32), np.array(zero, dtype)

    a, b = RNG.integers(0, 256, (5, 40)).astype(np.uint8), RNG.integers(0, 256, (40, 9)).astype(np.uint8)
    inputs = (a, *parameters(0.02, 113), b, *parameters(0.01, 120), *parameters(0.05, 128))
    model = node_model("QLinearMatMul", inputs, 10, {}, 1, True)
    want = ReferenceEvaluator(model).run(None, {"x0": a})[0].astype(int)
    got = run(import_model(model), {"x0": a})["y0"].astype(int)
    assert np.abs(got - want).max() <= 1 and np.mean(got != want) < 0.05


def test_per_channel_convolution_with_bias() -> None:
    x, w = RNG.integers(0, 256, (1, 3, 6, 7)).astype(np.uint8), RNG.integers(-9, 9, (4, 3, 3, 3)).astype(np.int8)
    scales, zeros = RNG.uniform(0.01, 0.05, 4).astype(np.float32), np.zeros(4, np.int8)
    bias = RNG.integers(-500, 500, 4).astype(np.int32)
    inputs = (
        x, np.array(0.03, np.float32), np.array(128, np.uint8), w, scales, zeros,
        np.array(0.1, np.float32), np.array(100, np.uint8), bias,
    )  # fmt: skip
    model = node_model("QLinearConv", inputs, 10, {"pads": [1, 1, 1, 1]}, 1, True)
    got = run(import_model(model), {"x0": x})["y0"].astype(int)
    padded = np.pad(x.astype(int) - 128, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    total = np.einsum("nchwij,ocij->nohw", windows, w.astype(int)) + bias[:, None, None]
    want = np.clip(np.rint(total * (0.03 * scales[:, None, None].astype(float) / 0.1)) + 100, 0, 255)
    assert np.abs(got - want).max() <= 1 and np.mean(got != want) < 0.05


def test_a_tensor_of_zeros_gets_the_scale_one() -> None:
    graph = import_model(node_model("DynamicQuantizeLinear", (np.zeros((2, 3), np.float32),), 11, {}, 3, False))
    out = run(graph, {"x0": np.zeros((2, 3), np.float32)})
    assert (out["y1"], out["y2"], out["y0"].max()) == (1, 0, 0)
