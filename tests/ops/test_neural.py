"""Products, convolutions, pools, softmax and normalisations against onnxruntime, at the opsets that differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core.dim import sym
from bessemer.core.dtype import f32
from bessemer.core.errors import BessemerError
from bessemer.core.interval import Range
from bessemer.frontend.onnx import import_model
from bessemer.ir.graph import TensorType
from bessemer.ir.interp import run
from bessemer.ir.opdef import OPS, InferContext
from tests.ops.onnx_nodes import check_node, node_model

RNG = np.random.default_rng(31)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "shapes",
    [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4,)), ((2, 1, 3, 4), (5, 4, 2)),
     ((4,), (2, 4, 3))],
    ids=str,
)  # fmt: skip
def test_matmul(shapes: Any) -> None:
    check_node("MatMul", tuple(real(*s) for s in shapes), 13, {}, rtol=1e-4, dynamic=(False,))


@pytest.mark.parametrize("attrs", [{}, {"transA": 1}, {"transB": 1, "alpha": 0.5, "beta": 2.0}, {"beta": 0.0}])
@pytest.mark.parametrize("bias", [(3, 5), (5,), (3, 1), ()], ids=str)
def test_gemm(bias: tuple[int, ...], attrs: dict[str, Any]) -> None:
    a = real(*((4, 3) if attrs.get("transA") else (3, 4)))
    b = real(*((5, 4) if attrs.get("transB") else (4, 5)))
    check_node("Gemm", (a, b, np.asarray(real(*bias))), 11, attrs, rtol=1e-4, dynamic=(False,))


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize(
    "attrs",
    [{}, {"pads": [1, 0, 2, 1]}, {"strides": [2, 1], "dilations": [1, 2]},
     {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
     {"auto_pad": "VALID"}],
    ids=str,
)  # fmt: skip
def test_conv(attrs: dict[str, Any], opset: int) -> None:
    close = {"rtol": 1e-4, "atol": 4e-6}  # sums of 36 terms of up to 10 in f32, of which little may be left
    check_node("Conv", (real(2, 4, 9, 10), real(6, 4, 3, 3), real(6)), opset, attrs, **close)
    check_node("Conv", (real(1, 4, 9, 10), real(6, 2, 3, 3)), opset, {**attrs, "group": 2}, **close)


def test_conv_of_other_ranks() -> None:
    check_node("Conv", (real(2, 3, 11), real(4, 3, 3)), 11, {"strides": [2]}, rtol=1e-4)
    check_node("Conv", (real(1, 2, 5, 6, 4), real(3, 2, 2, 3, 2)), 11, {"pads": [1] * 6}, rtol=1e-4)


@pytest.mark.parametrize(
    "attrs",
    [{}, {"strides": [2, 3], "pads": [1, 0, 0, 1]}, {"strides": [2, 2], "output_padding": [1, 1]},
     {"strides": [2, 2], "output_shape": [12, 13]}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
     {"dilations": [2, 1], "group": 2}],
    ids=str,
)  # fmt: skip
def test_conv_transpose(attrs: dict[str, Any]) -> None:
    check_node("ConvTranspose", (real(1, 4, 5, 6), real(4, 3, 3, 3)), 11, attrs, rtol=1e-4, dynamic=(False,))


WINDOW = {"kernel_shape": [3, 3]}


@pytest.mark.parametrize(
    "attrs",
    [{}, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"strides": [2, 2], "ceil_mode": 1},
     {"strides": [3, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}],
    ids=str,
)  # fmt: skip
def test_pools(attrs: dict[str, Any]) -> None:
    x = real(2, 3, 8, 9)
    given = {**WINDOW, **attrs}
    check_node("MaxPool", (x,), 12, given, outputs=2)
    check_node("MaxPool", (x,), 12, {**given, "storage_order": 1}, outputs=2, dynamic=(False,))
    for padded in (0, 1):
        check_node("AveragePool", (x,), 11, {**given, "count_include_pad": padded})
    if "ceil_mode" not in attrs:
        check_node("LpPool", (x,), 11, {**given, "p": 3}, rtol=1e-4)


def test_dilated_and_integer_pools() -> None:
    check_node("MaxPool", (real(1, 2, 9, 9),), 10, {**WINDOW, "dilations": [2, 3]})
    check_node("MaxPool", (RNG.integers(-128, 127, (1, 2, 7, 7)).astype(np.int8),), 12, {**WINDOW, "pads": [1] * 4})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global_pools(op: str) -> None:
    check_node(op, (real(2, 3, 4, 5),), 9, {"p": 3} if op == "GlobalLpPool" else {}, rtol=1e-4)


@pytest.mark.parametrize("opset", [9, 11, 13])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax(op: str, opset: int) -> None:
    for axis in (0, 1, 2):
        check_node(op, (3 * real(2, 3, 4),), opset, {"axis": axis}, rtol=1e-4)
    check_node(op, (3 * real(2, 3, 4),), opset, rtol=1e-4)


@pytest.mark.parametrize(("op", "opset", "inputs", "attrs"), [
    ("BatchNormalization", 9, ((2, 3, 4, 5), (3,), (3,), (3,), (3,)), {"epsilon": 1e-3}),
    ("BatchNormalization", 15, ((2, 3), (3,), (3,), (3,), (3,)), {}),
    ("InstanceNormalization", 9, ((2, 3, 4, 5), (3,), (3,)), {"epsilon": 1e-3}),
    ("LRN", 9, ((2, 7, 4, 5),), {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}),
    ("LRN", 13, ((1, 3, 2, 2),), {"size": 5}),
    ("LpNormalization", 9, ((2, 3, 4),), {"p": 1, "axis": 1}),
    ("MeanVarianceNormalization", 9, ((2, 3, 4, 5),), {}),
    ("LayerNormalization", 17, ((2, 3, 4, 5), (4, 5), (4, 5)), {"axis": 2}),
    ("LayerNormalization", 17, ((2, 3, 5), (5,)), {}),
], ids=lambda v: v if isinstance(v, str) else None)  # fmt: skip
def test_normalisations(op: str, opset: int, inputs: Any, attrs: dict[str, Any]) -> None:
    arrays = [real(*s) for s in inputs]
    if op == "BatchNormalization":
        arrays[4] = np.abs(arrays[4])
    fixed = (False,) if op in ("InstanceNormalization", "LayerNormalization") else (False, True)
    check_node(op, arrays, opset, attrs, rtol=1e-3, dynamic=fixed)


def test_layer_norm_statistics() -> None:
    check_node("LayerNormalization", (real(2, 3, 5), real(5), real(5)), 17, {}, outputs=3, rtol=1e-4, dynamic=(False,))


def test_same_padding_keeps_sizes_simple() -> None:
    n = sym("n")
    attrs: dict[str, Any] = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    graph = import_model(node_model("Conv", (real(1, 3, 8, 8), real(4, 3, 3, 3)), 11, attrs, 1, True, True))
    assert str(graph.types["y0"].shape[2]) == "floordiv(n2+1,2)"
    x = TensorType(f32, (1, 8, n, n))
    window = {"kernel": (3, 3), "strides": (2, 2), "dilations": (1, 1), "pads": (1,) * 4, "layout": "NCHW"}
    rest = {"kind": "max", "out": (n, n), "count_include_pad": False, "p": 0}
    context = InferContext((x,), {**window, **rest}, {"n": Range(1, 64)})
    assert OPS.get("pool").infer(context)[0].shape == (1, 8, n, n)


@pytest.mark.parametrize(("attrs", "reason"), [
    ({"auto_pad": "SAME"}, "auto_pad"), ({"pads": [0, -1, 0, 0]}, "pads"), ({"pads": [1, 1]}, "pads"),
])  # fmt: skip
def test_impossible_padding_is_refused(attrs: dict[str, Any], reason: str) -> None:
    with pytest.raises(BessemerError, match=reason):
        import_model(node_model("Conv", (real(1, 3, 8, 8), real(4, 3, 3, 3)), 11, attrs, 1, True))


def test_half_precision_accumulates_in_single() -> None:
    a, b = (np.abs(real(4, 3000)).astype(np.float16) for _ in range(2))
    got = run(import_model(node_model("Gemm", (a, b), 13, {"transB": 1}, 1, False)), {"x0": a, "x1": b})["y0"]
    np.testing.assert_allclose(got, (a.astype(np.float64) @ b.astype(np.float64).T), 1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_layer_norm_keeps_its_statistics_in_the_stash_type(dtype: type[np.floating]) -> None:
    """Mean and 1 / deviation are f32 for half precision too."""
    rng = np.random.default_rng()
    x, scale = rng.normal(5, 3, (3, 40)).astype(dtype), rng.standard_normal(40).astype(dtype)
    made = node_model("LayerNormalization", (x, scale), 17, {}, 3, True)
    graph = import_model(made)
    found = run(graph, {graph.inputs[0]: x})
    _, mean, inverse = (found[name] for name in graph.outputs)
    wide = x.astype(np.float64)
    assert mean.dtype == inverse.dtype == np.float32
    np.testing.assert_allclose(mean, wide.mean(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(wide.var(-1, keepdims=True) + 1e-5), rtol=1e-5)
