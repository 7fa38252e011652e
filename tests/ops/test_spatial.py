"""DeformConv and MaxUnpool against plain loops and against max pooling itself."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core.errors import BessemerError
from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(12)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_zero_offsets_are_a_convolution() -> None:
    x, w, bias = real(2, 4, 7, 6), real(6, 2, 3, 3), real(6)
    offsets, mask = np.zeros((2, 36, 4, 3), np.float32), np.ones((2, 18, 4, 3), np.float32)
    attrs = {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 2, "offset_group": 2}
    deformed = import_model(node_model("DeformConv", (x, w, offsets, bias, mask), 19, attrs, 1, True))
    shared = {k: attrs[k] for k in ("strides", "pads", "group")}
    plain = import_model(node_model("Conv", (x, w, bias), 11, shared, 1, True))
    got, want = run(deformed, {"x0": x})["y0"], run(plain, {"x0": x})["y0"]
    np.testing.assert_allclose(got, want, 1e-4, 1e-5)


def test_half_an_offset_averages_neighbours() -> None:
    x, w = real(1, 1, 4, 4), np.ones((1, 1, 1, 1), np.float32)
    offsets = np.zeros((1, 2, 4, 4), np.float32)
    offsets[:, 1] = 0.5
    graph = import_model(node_model("DeformConv", (x, w, offsets), 19, {}, 1, True))
    right = np.concatenate([x[..., 1:], np.zeros((1, 1, 4, 1), np.float32)], -1)
    np.testing.assert_allclose(run(graph, {"x0": x})["y0"], (x + right) / 2, 1e-5, 1e-6)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("wanted", [None, (2, 3, 6, 8), (2, 3, 9, 8)])
def test_unpool_inverts_pool(wanted: tuple[int, ...] | None, constant: bool) -> None:
    x = real(2, 3, 6, 8)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pooled = run(import_model(node_model("MaxPool", (x,), 12, window, 2, False)), {"x0": x})
    values, indices = pooled["y0"], pooled["y1"]
    inputs = (values, indices, None if wanted is None else np.array(wanted))
    graph = import_model(node_model("MaxUnpool", inputs, 11, window, 1, constant))
    feeds = {f"x{k}": a for k, a in enumerate(inputs) if a is not None and f"x{k}" in graph.inputs}
    got = run(graph, feeds)["y0"]
    want = np.zeros(wanted or x.shape, np.float32)
    want[:, :, :6] = np.where(np.isin(x, values), x, 0)
    np.testing.assert_array_equal(got, want)


def test_unpool_into_less_is_refused() -> None:
    inputs = (real(1, 1, 2, 2), np.arange(4).reshape(1, 1, 2, 2), np.array([1, 1, 3, 3]))
    with pytest.raises(BessemerError, match="less than"):
        import_model(node_model("MaxUnpool", inputs, 11, {"kernel_shape": [2, 2], "strides": [2, 2]}, 1, True))
