"""ScatterND at constant indices is a gather through the inverse map."""

from __future__ import annotations

import numpy as np

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(4)
X = RNG.standard_normal((4, 5, 3)).astype(np.float32)


def scattered(indices: np.ndarray, updates: np.ndarray) -> tuple[list[str], np.ndarray]:
    graph = import_model(node_model("ScatterND", (X, indices, updates), 16, {}, 1, True))
    return [n.op for n in graph.nodes], run(graph, {"x0": X})["y0"]


def test_some_rows() -> None:
    updates = RNG.standard_normal((2, 3)).astype(np.float32)
    names, out = scattered(np.array([[0, 1], [-1, 4]]), updates)
    expected = X.copy()
    expected[0, 1], expected[3, 4] = updates
    assert names == ["where"] and np.array_equal(out, expected)


def test_repeated_indices_keep_the_last_update() -> None:
    updates = RNG.standard_normal((2, 5, 3)).astype(np.float32)
    _, out = scattered(np.array([[2], [2]]), updates)
    assert np.array_equal(out[2], updates[1]) and np.array_equal(out[:2], X[:2])


def test_all_rows_leave_nothing_of_the_data() -> None:
    updates = RNG.standard_normal((4, 5, 3)).astype(np.float32)
    names, out = scattered(np.array([[3], [1], [0], [2]]), updates)
    assert names == [] and np.array_equal(out[[3, 1, 0, 2]], updates)


def test_indices_that_are_data_run_on_the_host() -> None:
    updates = RNG.standard_normal((2, 3)).astype(np.float32)
    graph = import_model(node_model("ScatterND", (X, np.array([[0, 1], [1, 2]]), updates), 16, {}, 1, False))
    assert [n.op for n in graph.nodes] == ["scatter_nd"]
