"""LSTM and GRU against float64: directions, initial states, biases, both places of the reset gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.kernels.base import TACTICS, Tactic
from tests.kernels.triton.problems import Array, Case, case, check, compiles, first, normal, reason, rounded

pytestmark = [pytest.mark.triton, pytest.mark.torch]

TILE = {"bh": 32, "bk": 32, "warps": 4}


def tactic(op: str) -> Tactic:
    return TACTICS.get(f"triton_{op}")


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def cell(op: str, px: Array, h: Array, c: Array, r: Array, rb: Array, linear: bool) -> tuple[Array, Array]:
    """One step: px holds x w^T with its bias."""
    n = h.shape[1]
    ph = h @ r.T + rb
    if op == "lstm":
        i, o, f, g = np.split(px + ph, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    z, reset = sigmoid(px[:, :n] + ph[:, :n]), sigmoid(px[:, n : 2 * n] + ph[:, n : 2 * n])
    late = reset * ph[:, 2 * n :] if linear else (reset * h) @ r[2 * n :].T + rb[2 * n :]
    return (1 - z) * np.tanh(px[:, 2 * n :] + late) + z * h, c


def recurrent(
    op: str, sizes: tuple[int, int, int, int], direction: str, dtype: DType, bias: bool, states: int,
    linear: bool = False,
) -> Case:  # fmt: skip
    """sizes: steps, batch, inputs, hidden."""
    steps, batch, inputs, hidden = sizes
    directions, gates = (2 if direction == "bidirectional" else 1), (4 if op == "lstm" else 3)
    shapes = [(steps, batch, inputs), (directions, gates * hidden, inputs), (directions, gates * hidden, hidden)]
    shapes += [(directions, 2 * gates * hidden)] * bias + [(directions, batch, hidden)] * states  # type: ignore[list-item]
    arrays = [rounded(0.4 * normal(s), dtype) for s in shapes]
    x, w, r, *rest = (a.astype(np.float64) for a in arrays)
    b = rest.pop(0) if bias else np.zeros((directions, 2 * gates * hidden))
    begin = [*rest, *(np.zeros((directions, batch, hidden)) for _ in range(2 - states))]
    y, last_h, last_c = np.zeros((steps, directions, batch, hidden)), begin[0].copy(), begin[1].copy()
    for d in range(directions):
        order = range(steps - 1, -1, -1) if direction == "reverse" or d == 1 else range(steps)
        h, c = begin[0][d], begin[1][d]
        for t in order:
            px = x[t] @ w[d].T + b[d, : gates * hidden]
            h, c = cell(op, px, h, c, r[d], b[d, gates * hidden :], linear)
            y[t, d] = h
        last_h[d], last_c[d] = h, c
    attrs: dict[str, Any] = {
        "direction": direction, "hidden_size": hidden, "linear_before_reset": linear, "has_bias": bias,
        "has_initial_h": states > 0, "has_initial_c": states > 1,
    }  # fmt: skip
    return case(op, arrays, [y, last_h, last_c][: 3 if op == "lstm" else 2], dtype, attrs, (1, 2))


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f16])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions(op: str, dtype: DType, direction: str) -> None:
    check(tactic(op), recurrent(op, (4, 3, 20, 24), direction, dtype, True, 1), TILE)


def test_initial_cells_no_bias_and_many_sequences() -> None:
    check(tactic("lstm"), recurrent("lstm", (3, 18, 9, 40), "forward", dt.f32, False, 2), TILE)
    check(tactic("gru"), recurrent("gru", (3, 18, 9, 40), "forward", dt.f32, False, 0), TILE)


@pytest.mark.parametrize("bias", [True, False])
def test_the_reset_gate_after_the_product(bias: bool) -> None:
    check(tactic("gru"), recurrent("gru", (4, 3, 20, 33), "bidirectional", dt.f32, bias, 1, linear=True), TILE)


def test_reasons() -> None:
    c = recurrent("gru", (2, 1, 4, 4), "forward", dt.f32, False, 0)
    assert "not gru" in reason(tactic("lstm"), c.problem)
    one = replace(c.problem, outputs=c.problem.outputs[:1])
    assert "all 2 outputs" in reason(tactic("gru"), one)


def test_compiles_for_every_architecture() -> None:
    for op in ("lstm", "gru"):
        compiles(tactic(op), [recurrent(op, (3, 2, 32, 64), "bidirectional", dt.f16, True, 1).problem], first)
        compiles(tactic(op), [recurrent(op, (3, 2, 32, 64), "forward", dt.f32, True, 1, op == "gru").problem], first)
