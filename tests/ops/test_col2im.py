"""Col2Im against torch's fold."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(4)


@pytest.mark.torch
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("case", [(2, 1, 0, 1), (1, 1, 1, 1), (2, 2, 1, 2), (3, 1, 2, 1)], ids=str)
def test_fold(case: tuple[int, int, int, int], constant: bool) -> None:
    torch = pytest.importorskip("torch")
    stride, dilation, pad, channels = case
    image, block = (7, 8), (2, 3)
    counts = [(image[k] + 2 * pad - dilation * (block[k] - 1) - 1) // stride + 1 for k in range(2)]
    x = RNG.standard_normal((2, channels * 6, counts[0] * counts[1])).astype(np.float32)
    want = torch.nn.functional.fold(
        torch.tensor(x), image, block, dilation=dilation, padding=pad, stride=stride
    ).numpy()
    inputs = (x, np.array(image), np.array(block))
    attrs = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4}
    graph = import_model(node_model("Col2Im", inputs, 18, attrs, 1, constant))
    feeds = {k: v for k, v in zip(("x0", "x1", "x2"), inputs) if k in graph.inputs}
    np.testing.assert_allclose(run(graph, feeds)["y0"], want, 1e-5, 1e-5)
