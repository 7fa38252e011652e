"""ONNX Attention against torch, and which forms become one op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core.dim import sym
from bessemer.core.dtype import f32
from bessemer.core.interval import Range
from bessemer.frontend.onnx import import_model
from bessemer.ir.graph import TensorType
from bessemer.ir.interp import run
from bessemer.ir.opdef import OPS, InferContext
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(6)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def outcome(inputs: Any, attrs: dict[str, Any], outputs: int = 1) -> tuple[dict[str, np.ndarray], list[str]]:
    graph = import_model(node_model("Attention", inputs, 24, attrs, outputs, False))
    feeds = {f"x{n}": a for n, a in enumerate(inputs) if a is not None}
    return run(graph, feeds), [n.op for n in graph.nodes]


@pytest.mark.torch
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("keys", [5, 9])
def test_torch(keys: int, heads: tuple[int, int], causal: int) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = real(2, heads[0], 5, 8), real(2, heads[1], keys, 8), real(2, heads[1], keys, 6)
    want = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(a) for a in (q, k, v)), is_causal=bool(causal), enable_gqa=heads[0] != heads[1]
    )
    got, ops = outcome((q, k, v), {"is_causal": causal})
    np.testing.assert_allclose(got["y0"], want.numpy(), 1e-4, 1e-5)
    assert ops == ["attention"]


def test_heads_inside_need_no_transposes() -> None:
    q, k, v = real(2, 5, 24), real(2, 9, 8), real(2, 9, 8)
    got, ops = outcome((q, k, v), {"q_num_heads": 3, "kv_num_heads": 1, "scale": 0.2})
    assert ops == ["reshape", "reshape", "reshape", "attention", "reshape"]
    split = q.reshape(2, 5, 3, 8).transpose(0, 2, 1, 3)
    scores = 0.2 * split @ k[:, None].swapaxes(-1, -2)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    want = (weights @ v[:, None]).transpose(0, 2, 1, 3).reshape(2, 5, 24)
    np.testing.assert_allclose(got["y0"], want, 1e-4, 1e-5)


def test_cached_steps_equal_one_pass() -> None:
    q, k, v = real(1, 2, 7, 8), real(1, 2, 7, 8), real(1, 2, 7, 8)
    whole, _ = outcome((q, k, v), {"is_causal": 1})
    past = (k[:, :, :4], v[:, :, :4])
    got, ops = outcome((q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], None, *past), {"is_causal": 1}, 3)
    np.testing.assert_allclose(got["y0"], whole["y0"][:, :, 4:], 1e-4, 1e-5)
    np.testing.assert_array_equal(got["y1"], k)
    assert ops == ["concat", "concat", "attention"]


def test_hidden_rows_are_zero() -> None:
    q, k, v = real(1, 1, 3, 4), real(1, 1, 5, 4), real(1, 1, 5, 4)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    for softcap in (0.0, 2.0):
        got, ops = outcome((q, k, v, mask), {"softcap": softcap})
        assert ("attention" in ops) == (softcap == 0.0)
        assert not got["y0"][0, 0, 1].any() and got["y0"][0, 0, 0].any()


def test_lengths_stay_symbolic() -> None:
    s, t = sym("s"), sym("t")
    types = tuple(TensorType(f32, (2, n, length, 8)) for n, length in ((4, s), (2, t), (2, t)))
    attrs: dict[str, Any] = {"scale": 1.0, "causal": False, "has_mask": False, "layout": "BHSD"}
    context = InferContext(types, attrs, {"s": Range(1, 64), "t": Range(1, 64)})
    op = OPS.get("attention")
    assert op.infer(context)[0].shape == (2, 4, s, 8)
    assert op.flops is not None
    assert str(op.flops(context)) == "256*s*t"
