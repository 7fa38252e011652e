"""Random numbers: the distribution, and what a seed means."""

from __future__ import annotations

from typing import Any

import numpy as np

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import node_model


def draw(op: str, inputs: tuple[np.ndarray, ...] = (), **attrs: Any) -> np.ndarray:
    graph = import_model(node_model(op, inputs, 15, attrs, 1, False))
    return run(graph, {f"x{k}": a for k, a in enumerate(inputs)})["y0"]


def test_moments() -> None:
    normal = draw("RandomNormal", shape=[200, 200], mean=3.0, scale=2.0, seed=1.0)
    assert abs(normal.mean() - 3) < 0.05 and abs(normal.std() - 2) < 0.05
    uniform = draw("RandomUniformLike", (np.zeros((200, 200), np.float32),), low=-1.0, high=3.0)
    assert uniform.min() >= -1 and uniform.max() < 3 and abs(uniform.mean() - 1) < 0.05
    assert abs(draw("Bernoulli", (np.full((300, 300), 0.3, np.float32),)).mean() - 0.3) < 0.02


def test_classes_come_with_their_probabilities() -> None:
    logits = np.log(np.array([[0.1, 0.6, 0.3]], np.float32))
    out = draw("Multinomial", (logits,), sample_size=20000, seed=2.0)
    assert out.dtype == np.int32 and np.abs(np.bincount(out[0]) / 20000 - [0.1, 0.6, 0.3]).max() < 0.02


def test_a_seed_repeats_and_none_does_not() -> None:
    first, second = (draw("RandomNormal", shape=[9], seed=5.0) for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first, draw("RandomNormal", shape=[9], seed=6.0))
    assert not np.array_equal(draw("RandomNormal", shape=[9]), draw("RandomNormal", shape=[9]))
