"""GridSample and AffineGrid against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(21)
CASES = [
    c
    for c in itertools.product(("linear", "nearest", "cubic"), ("zeros", "border", "reflection"), (0, 1), (2, 3))
    if c[0] != "cubic" or (c[1] == "zeros" and c[3] == 2)  # torch pads the taps alone
]


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: tuple[str, str, int, int]) -> None:
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    mode, padding, align, rank = case
    x = RNG.standard_normal((2, 3, *(4, 5, 6)[:rank])).astype(np.float32)
    grid = RNG.uniform(-1.5, 1.5, (2, *(3, 2, 4)[:rank], rank)).astype(np.float32)
    named = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    want = functional.grid_sample(
        torch.tensor(x), torch.tensor(grid), mode=named, padding_mode=padding, align_corners=bool(align)
    )
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
    graph = import_model(node_model("GridSample", (x, grid), 20, attrs, 1, False))
    got = run(graph, {"x0": x, "x1": grid})["y0"]
    np.testing.assert_allclose(got, want.numpy(), 1e-4, 1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 2, 3, 4)])
def test_affine_grid(size: tuple[int, ...], align: int, constant: bool) -> None:
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    rank = len(size) - 2
    theta = RNG.standard_normal((2, rank, rank + 1)).astype(np.float32)
    want = functional.affine_grid(torch.tensor(theta), list(size), align_corners=bool(align)).numpy()
    inputs = (theta, np.array(size))
    graph = import_model(node_model("AffineGrid", inputs, 20, {"align_corners": align}, 1, constant))
    feeds = {k: v for k, v in zip(("x0", "x1"), inputs) if k in graph.inputs}
    np.testing.assert_allclose(run(graph, feeds)["y0"], want, 1e-5, 1e-6)
