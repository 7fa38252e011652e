"""LSTM, GRU and RNN against onnxruntime: directions, lengths, peepholes, clipping, activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.frontend.onnx import import_model
from tests.ops.onnx_nodes import check_node, node_model

RNG = np.random.default_rng(23)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, B, I, H = 5, 3, 4, 6


def operands(op: str, dirs: int = 1, states: bool = True, lengths: bool = False, peepholes: bool = False) -> Any:
    g = GATES[op]

    def real(*shape: int) -> np.ndarray:
        return (0.5 * RNG.standard_normal(shape)).astype(np.float32)

    found = [real(T, B, I), real(dirs, g * H, I), real(dirs, g * H, H), real(dirs, 2 * g * H)]
    found.append(np.array([5, 2, 4], np.int32) if lengths else None)
    found.append(real(dirs, B, H) if states else None)
    if op == "LSTM":
        found += [real(dirs, B, H) if states else None, real(dirs, 3 * H) if peepholes else None]
    return tuple(found)


def check(op: str, inputs: Any, **attrs: Any) -> None:
    given = {"hidden_size": H, **attrs}
    check_node(op, inputs, 14, given, outputs=3 if op == "LSTM" else 2, rtol=1e-4, dynamic=(False,))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions(op: str, direction: str) -> None:
    dirs = 2 if direction == "bidirectional" else 1
    check(op, operands(op, dirs), direction=direction)
    check(op, operands(op, dirs, states=False), direction=direction)
    check(op, operands(op, dirs, lengths=True), direction=direction)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_no_bias(op: str) -> None:
    x, w, r, _, *rest = operands(op)
    check(op, (x, w, r, None, *rest))


def test_gru_linear_before_reset() -> None:
    check("GRU", operands("GRU"), linear_before_reset=1)


def test_peepholes_clipping_and_coupled_gates() -> None:
    check("LSTM", operands("LSTM", peepholes=True))
    check("LSTM", operands("LSTM", 2, peepholes=True), direction="bidirectional", clip=0.4)
    check("LSTM", operands("LSTM"), input_forget=1)
    check("GRU", operands("GRU"), clip=0.2)


@pytest.mark.parametrize(
    ("op", "names", "alphas", "betas"),
    [
        ("LSTM", ["Sigmoid", "LeakyRelu", "Softsign"], [0.3], []),
        ("LSTM", ["HardSigmoid", "ScaledTanh", "Affine"], [0.3, 0.9, 0.7], [0.4, 0.6, 0.1]),
        ("GRU", ["HardSigmoid", "Relu"], [0.3], [0.4]),
        ("GRU", ["Sigmoid", "Softplus"], [], []),
        ("RNN", ["Elu"], [0.6], []),
        ("RNN", ["ThresholdedRelu"], [0.2], []),
        ("RNN", ["Relu"], [], []),
    ],
)
def test_activations(op: str, names: list[str], alphas: list[float], betas: list[float]) -> None:
    numbers = {k: v for k, v in (("activation_alpha", alphas), ("activation_beta", betas)) if v}
    check(op, operands(op), activations=names, **numbers)


def test_which_forms_have_kernels() -> None:
    def ops(op: str, inputs: Any, **attrs: Any) -> list[str]:
        model = node_model(op, inputs, 14, {"hidden_size": H, **attrs}, 1, True)
        return [n.op for n in import_model(model).nodes]

    assert ops("LSTM", operands("LSTM")) == ["lstm"]
    assert ops("GRU", operands("GRU", 2), direction="bidirectional") == ["gru"]
    full = (*operands("LSTM")[:4], np.full(B, T, np.int32), *operands("LSTM")[5:7])
    assert ops("LSTM", full) == ["lstm"]
    assert ops("LSTM", operands("LSTM", lengths=True)) == ["recurrent"]
    assert ops("RNN", operands("RNN")) == ["recurrent"]
