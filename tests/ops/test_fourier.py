"""DFT and STFT against numpy, by matrices and on the host; the mel filters against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import check_node, node_model

RNG = np.random.default_rng(30)


def signal_model(op: str, inputs: Any, attrs: dict[str, Any], constant: bool, dynamic: bool) -> onnx.ModelProto:
    """A model of one node; with `dynamic` all sizes of the signal but the last are named."""
    model = node_model(op, inputs, 20, attrs, 1, constant, dynamic)
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value = inputs[0].shape[-1]
    return model


def as_parts(z: np.ndarray) -> np.ndarray:
    return np.stack([z.real, z.imag], -1)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("length", [None, 6, 12])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_dft(axis: int, length: int | None, dynamic: bool, constant: bool) -> None:
    x = RNG.standard_normal((3, 9, 4, 2)).astype(np.float32)
    z = x[..., 0] + 1j * x[..., 1]
    inputs = (x, None if length is None else np.array(length), np.array(axis))
    at = axis if axis >= 0 else axis + 1
    for inverse in (0, 1):
        graph = import_model(signal_model("DFT", inputs, {"inverse": inverse}, constant, dynamic))
        feeds = {f"x{k}": a for k, a in enumerate(inputs) if f"x{k}" in graph.inputs}
        want = (np.fft.ifft if inverse else np.fft.fft)(z, length, at)
        np.testing.assert_allclose(run(graph, feeds)["y0"], as_parts(want), 1e-4, 1e-5)
        ops = {n.op for n in graph.nodes}
        assert ("matmul" in ops) == (constant and not dynamic), ops


@pytest.mark.parametrize("length", [10, 11])
def test_real_transforms_invert_each_other(length: int) -> None:
    x = RNG.standard_normal((2, length, 1)).astype(np.float32)
    there = import_model(node_model("DFT", (x, None, np.array(1)), 20, {"onesided": 1}, 1, True))
    half = run(there, {"x0": x})["y0"]
    np.testing.assert_allclose(half, as_parts(np.fft.rfft(x[..., 0])), 1e-4, 1e-5)
    inputs = (half, np.array(length), np.array(1))
    back = import_model(node_model("DFT", inputs, 20, {"onesided": 1, "inverse": 1}, 1, True))
    np.testing.assert_allclose(run(back, {"x0": half})["y0"], x, 1e-4, 1e-5)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_stft(parts: int, onesided: int, dynamic: bool) -> None:
    x, window = RNG.standard_normal((2, 50, parts)).astype(np.float32), RNG.random(16).astype(np.float32)
    z = x[..., 0] if parts == 1 else x[..., 0] + 1j * x[..., 1]
    frames = np.stack([z[:, k : k + 16] * window for k in range(0, 50 - 15, 5)], 1)
    want = as_parts(np.fft.fft(frames))[:, :, : 9 if onesided else 16]
    for given in (None, np.array(16)):
        for constant in (True, False):
            inputs = (x, np.array(5), window, given)
            graph = import_model(signal_model("STFT", inputs, {"onesided": onesided}, constant, dynamic))
            feeds = {f"x{k}": a for k, a in enumerate(inputs) if a is not None and f"x{k}" in graph.inputs}
            np.testing.assert_allclose(run(graph, feeds)["y0"], want, 1e-4, 1e-5)


def test_mel_weights() -> None:
    scalars = (np.array(12), np.array(64), np.array(16000), np.array(20, np.float32), np.array(7600, np.float32))
    check_node("MelWeightMatrix", scalars, 17, {}, constants=(False,), dynamic=(False,))
    first, *rest = scalars
    graph = import_model(node_model("MelWeightMatrix", (first, *rest), 17, {}, 1, True))
    assert [n.op for n in graph.nodes] == ["mel_weights"]
