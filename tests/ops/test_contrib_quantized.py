"""Quantised ops of the domain com.microsoft against onnxruntime, to one step of the result's scale."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.test_contrib import check, contrib_model, real

RNG = np.random.default_rng(19)
SCALE, OUT = np.array(0.02, np.float32), np.array(0.03, np.float32)
U8, I8 = np.uint8, np.int8


def codes(dtype: type, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [U8, I8])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_binary(op: str, dtype: type) -> None:
    zero = np.array(3, dtype)
    inputs = (codes(dtype, 2, 3, 4), SCALE, zero, codes(dtype, 3, 4), OUT, zero, np.array(0.05, np.float32), zero)
    check(op, inputs, atol=1)


@pytest.mark.parametrize("dtype", [U8, I8])
def test_unary(dtype: type) -> None:
    zero = np.array(3, dtype)
    image = codes(dtype, 1, 3, 6, 6)
    check("QLinearSigmoid", (image, SCALE, zero, np.array(0.004, np.float32), np.array(0, dtype)), atol=1)
    check("QLinearLeakyRelu", (image, SCALE, None, OUT, zero), {"alpha": 0.2}, atol=1)
    for last in (0, 1):
        check("QLinearGlobalAveragePool", (image, SCALE, zero, OUT, zero), {"channels_last": last}, atol=1)
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    check("QLinearAveragePool", (image, SCALE, zero, OUT, zero), window, atol=1)
    probability = (np.array(1 / 256, np.float32), np.array(np.iinfo(dtype).min, dtype))
    check("QLinearSoftmax", (codes(dtype, 4, 9), SCALE, zero, *probability), {"axis": -1, "opset": 13}, atol=1)


def test_concat() -> None:
    parts = (codes(U8, 2, 3), SCALE, np.array(7, U8), codes(U8, 2, 4), OUT, np.array(0, U8))
    check("QLinearConcat", (OUT, np.array(5, U8), *parts), {"axis": 1}, atol=1)


@pytest.mark.parametrize("per_column", [False, True])
def test_integer_products(per_column: bool) -> None:
    n = (5,) if per_column else ()
    scales, zeros = np.float32(RNG.uniform(0.01, 0.02, n)), codes(I8, *n) // I8(16)
    scales, zeros = np.asarray(scales), np.asarray(zeros, I8)
    b = codes(I8, 7, 5)
    check("DynamicQuantizeMatMul", (real(3, 7), b, scales, zeros, real(5)), atol=1e-3)
    check("MatMulIntegerToFloat", (codes(U8, 3, 7), b, SCALE, scales, np.array(128, U8), zeros, real(5)), atol=1e-3)


@pytest.mark.parametrize("quantized", [True, False])
def test_gemm(quantized: bool) -> None:
    bias = RNG.integers(-500, 500, 5).astype(np.int32)
    inputs = (codes(U8, 3, 7), SCALE, np.array(120, U8), codes(I8, 5, 7), SCALE, np.array(0, I8), bias)
    out = (np.array(0.2, np.float32), np.array(9, U8)) if quantized else (None, None)
    check("QGemm", (*inputs, *out), {"transB": 1, "alpha": 0.5}, atol=1 if quantized else 1e-4)


@pytest.mark.parametrize(("bits", "zeros"), [(4, "none"), (4, "packed"), (4, "real"), (8, "none"), (8, "packed")])
def test_few_bits(bits: int, zeros: str) -> None:
    n, k, block = 6, 80, 32
    blocks = -(-k // block)
    packed = codes(U8, n, blocks, block * bits // 8)
    width = -(-blocks * bits // 8)
    zero = {"none": None, "packed": codes(U8, n * width), "real": np.float32(RNG.uniform(0, 9, n * blocks))}[zeros]
    scales = np.float32(RNG.uniform(0.01, 0.1, n * blocks))
    attrs = {"N": n, "K": k, "bits": bits, "block_size": block}
    check("MatMulNBits", (real(2, 3, k), packed, scales, zero), attrs, atol=1e-3)


def test_lstm_is_near() -> None:
    ort = pytest.importorskip("onnxruntime")
    t, b, i, h = 4, 2, 6, 8
    x, bias = real(t, b, i), real(1, 8 * h)
    w, r = codes(I8, 1, i, 4 * h), codes(I8, 1, h, 4 * h)
    scale = (np.array([0.004], np.float32), np.array([0], I8))
    inputs = (x, w, r, bias, None, None, None, None, *scale, *scale)
    model = contrib_model("DynamicQuantizeLSTM", inputs, {"hidden_size": h}, 3, True, ["y0", "y1", "y2"])
    want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x0": x})
    graph = import_model(model)
    assert [n.op for n in graph.nodes] == ["lstm"]
    got = run(graph, {"x0": x})
    for k, expected in enumerate(want):
        assert np.abs(got[f"y{k}"] - expected).max() < 0.05
