"""Ops of the domain com.microsoft against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from bessemer.ir.verify import verify
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(15)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def check(
    op: str, inputs: Sequence[np.ndarray | None], attrs: dict[str, Any] | None = None, outputs: int = 1,
    atol: float = 1e-5, names: Sequence[int] = (),
) -> None:  # fmt: skip
    """Hold one node to onnxruntime, weights fed and constant; `names` are the outputs that are asked for."""
    ort = pytest.importorskip("onnxruntime")
    arrays = {f"x{k}": a for k, a in enumerate(inputs) if a is not None}
    kept = [f"y{k}" for k in (names or range(outputs))]
    expected = None
    for constants in (False, True):
        model = contrib_model(op, inputs, attrs or {}, outputs, constants, kept)
        if expected is None:
            session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            expected = session.run(kept, arrays)
        graph = import_model(model)
        verify(graph)
        got = run(graph, {n: arrays[n] for n in graph.inputs})
        for name, want in zip(kept, expected):
            assert got[name].dtype == want.dtype, name
            np.testing.assert_allclose(got[name], want, 1e-4, atol, err_msg=f"{op} {name}, constants {constants}")


def contrib_model(
    op: str, inputs: Sequence[np.ndarray | None], attrs: dict[str, Any], outputs: int, constants: bool, kept: list[str]
) -> onnx.ModelProto:
    model = node_model(op, inputs, 17, attrs, outputs, constants)
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for k in range(outputs):
        if f"y{k}" not in kept:
            model.graph.node[0].output[k] = ""
    infos = [o for o in model.graph.output if o.name in kept]
    del model.graph.output[:]
    model.graph.output.extend(infos)
    return model


X, SKIP, BIAS = real(2, 5, 16), real(2, 5, 16), real(16)
GAMMA, BETA = real(16), real(16)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        ("FusedMatMul", (real(2, 3, 4), real(2, 5, 4)), {"transB": 1, "alpha": 0.5}),
        ("FusedMatMul", (real(2, 4, 3), real(4, 5)), {"transA": 1}),
        ("TransposeMatMul", (real(4, 3), real(4, 5)), {"transA": 1}),
        ("FusedGemm", (real(3, 4), real(4, 5), real(5)), {"activation": "LeakyRelu", "activation_alpha": 0.3}),
        ("FusedConv", (real(1, 2, 5, 5), real(3, 2, 3, 3), real(3)), {"activation": "Relu", "pads": [1, 1, 1, 1]}),
        ("FusedConv", (real(1, 2, 5, 5), real(3, 2, 3, 3), real(3), real(1, 3, 3, 3)), {"activation": "Relu"}),
        ("FusedConv", (real(1, 2, 5, 5), real(3, 2, 3, 3)),
         {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}),
        ("FusedConv", (real(1, 2, 5, 5), real(3, 2, 3, 3)), {"activation": "Clip", "activation_params": [0.0, 6.0]}),
        ("Gelu", (X,), {}), ("BiasGelu", (X, BIAS), {}), ("FastGelu", (X, BIAS), {}), ("FastGelu", (X,), {}),
        ("QuickGelu", (X,), {"alpha": 1.5}),
    ],
)  # fmt: skip
def test_fused(op: str, inputs: tuple[np.ndarray, ...], attrs: dict[str, Any]) -> None:
    check(op, inputs, attrs, atol=2e-5)


@pytest.mark.parametrize("bias", [None, BIAS])
def test_skip_normalizations(bias: np.ndarray | None) -> None:
    check("SkipLayerNormalization", (X, SKIP, GAMMA, BETA, bias), {"epsilon": 1e-4}, 4, names=(0, 3))
    check("SkipSimplifiedLayerNormalization", (X, SKIP, GAMMA, bias), {"epsilon": 1e-4}, 4, names=(0, 3))


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_embedding(segments: bool, masked: bool) -> None:
    ids = RNG.integers(0, 20, (2, 5)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32) if masked else None
    segment = (RNG.integers(0, 2, (2, 5)).astype(np.int32), real(2, 16)) if segments else (None, None)
    inputs = (ids, segment[0], real(20, 16), real(9, 16), segment[1], GAMMA, BETA, mask)
    check("EmbedLayerNormalization", inputs, {"epsilon": 1e-5}, 2)


LENGTHS, ENDS = np.array([3, 5], np.int32), np.array([4, 5, 1, 0], np.int32)
FLAGS = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], np.int32)


@pytest.mark.parametrize("mask", [None, LENGTHS, ENDS, FLAGS], ids=["none", "lengths", "ends and starts", "flags"])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(mask: np.ndarray | None, causal: int) -> None:
    inputs = (X, real(16, 48), real(48), mask)
    check("Attention", inputs, {"num_heads": 4, "unidirectional": causal}, atol=1e-4)


def test_attention_with_past() -> None:
    inputs = (X, real(16, 48), real(48), None, real(2, 2, 4, 3, 4))
    check("Attention", inputs, {"num_heads": 4, "unidirectional": 1}, 2, atol=1e-4)


def test_attention_with_bias_and_odd_sizes() -> None:
    inputs = (X, real(16, 56), real(56), None, None, real(1, 4, 5, 5))
    check("Attention", inputs, {"num_heads": 4, "qkv_hidden_sizes": [16, 16, 24]}, atol=1e-4)


def test_ops_that_onnxruntime_adds_to_onnx() -> None:
    ort = pytest.importorskip("onnxruntime")
    for op, inputs in (("LayerNormalization", (X, GAMMA, BETA)), ("SimplifiedLayerNormalization", (X, GAMMA))):
        model = node_model(op, inputs, 13, {"axis": -1, "epsilon": 1e-3}, 1, False)
        feeds = {f"x{k}": a for k, a in enumerate(inputs)}
        want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        np.testing.assert_allclose(run(import_model(model), feeds)["y0"], want, 1e-4, 1e-5)


@pytest.mark.parametrize("mask", [None, FLAGS], ids=["none", "flags"])
@pytest.mark.parametrize("bias", [None, real(48)], ids=["none", "bias"])
def test_multi_head_attention(bias: np.ndarray | None, mask: np.ndarray | None) -> None:
    inputs = (X, real(2, 5, 16), real(2, 5, 16), bias, mask, real(1, 4, 5, 5))
    check("MultiHeadAttention", inputs, {"num_heads": 4, "scale": 0.3}, atol=1e-4)


def test_multi_head_attention_caches_and_packs() -> None:
    cached = (X, real(2, 5, 16), real(2, 5, 16), None, None, None, real(2, 4, 3, 4), real(2, 4, 3, 4))
    check("MultiHeadAttention", cached, {"num_heads": 4, "unidirectional": 1}, 3, atol=1e-4)
    check("MultiHeadAttention", (X, real(2, 4, 7, 4), real(2, 4, 7, 4)), {"num_heads": 4}, atol=1e-4)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [np.array([2]), np.array([range(5), [4, 5, 6, 0, 1]])], ids=["first", "all"])
def test_rotary(positions: np.ndarray, interleaved: int) -> None:
    tables = (real(12, 4), real(12, 4))
    check("RotaryEmbedding", (real(2, 5, 16), positions, *tables), {"interleaved": interleaved})
    check("RotaryEmbedding", (real(2, 3, 5, 8), positions, *tables), {"interleaved": interleaved})
    partial = {"interleaved": interleaved, "rotary_embedding_dim": 8, "num_heads": 2}
    check("RotaryEmbedding", (real(2, 5, 24), positions, *tables), partial)
