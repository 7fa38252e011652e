"""Versions of ops that the node suite does not run any more, held to onnxruntime at the opsets that mean them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.onnx_nodes import check_node

RNG = np.random.default_rng(9)
X = RNG.standard_normal((3, 4, 5)).astype(np.float32)
ONES = RNG.standard_normal((1, 3, 1)).astype(np.float32)
I64 = np.int64

CASES = [
    ("Slice", (X,), 9, {"starts": [1, -3], "ends": [9, -1], "axes": [0, 2]}),
    ("Slice", (X, np.array([1, -3]), np.array([9, -1]), np.array([0, 2])), 10, {}),
    ("Slice", (X, np.array([-1]), np.array([-100]), np.array([-1]), np.array([-2])), 13, {}),
    ("Pad", (X,), 9, {"pads": [0, 1, 2, 0, 3, 1], "mode": "reflect"}),
    ("Pad", (X,), 9, {"pads": [0, 1, 2, 0, 3, 1], "value": 0.5}),
    ("Pad", (X, np.array([0, -1, 2, 0, 3, -1]), np.array(1.5, np.float32)), 11, {}),
    ("Pad", (X, np.array([2, 1]), None, np.array([-2])), 18, {"mode": "edge"}),
    ("Pad", (X, np.array([2, 1]), None, np.array([1])), 19, {"mode": "wrap"}),
    ("Squeeze", (ONES,), 9, {"axes": [0]}),
    ("Squeeze", (ONES,), 11, {"axes": [-1]}),
    ("Unsqueeze", (X,), 9, {"axes": [0, 4]}),
    ("Unsqueeze", (X, np.array([-1, 1])), 13, {}),
    ("Clip", (X,), 9, {"min": -0.5, "max": 0.75}),
    ("Clip", (X, None, np.array(0.2, np.float32)), 11, {}),
    ("ReduceSum", (X,), 9, {"axes": [1], "keepdims": 0}),
    ("ReduceSum", (X, np.array([0, -1])), 13, {"keepdims": 0}),
    ("ReduceMean", (X,), 11, {"axes": [-1]}),
    ("ReduceLogSumExp", (X * 50,), 13, {"axes": [0, 2], "keepdims": 0}),
    ("ReduceL2", (X, np.array([1])), 18, {}),
    ("ReduceMax", (X,), 9, {}),
    ("ArgMax", (np.round(X),), 12, {"axis": 1, "select_last_index": 1}),
    ("ArgMin", (X,), 9, {"axis": 2, "keepdims": 0}),
    ("Hardmax", (X,), 11, {"axis": 1}),
    ("Hardmax", (X,), 13, {"axis": 1}),
    ("Gather", (X, np.array([[0, 2], [1, -1]])), 11, {"axis": 1}),
    ("Gather", (X, np.array(1)), 9, {"axis": 2}),
    ("Scatter", (X, np.array([[[2, 0, 1]]]), X[:1, :1, :3]), 9, {"axis": 2}),
    ("ScatterND", (X, np.array([[0, 1], [2, -1]]), X[1, :2]), 11, {}),
    ("Dropout", (X,), 9, {}),
    ("Dropout", (X,), 10, {"ratio": 0.9}),
    ("OneHot", (np.array([[0, -1], [7, 2]]), np.array(5), np.array([2, 3], np.float32)), 9, {"axis": 1}),
    ("Expand", (ONES, np.array([2, 1, 4])), 9, {}),
    ("Tile", (X, np.array([1, 2, 3])), 9, {}),
    ("DepthToSpace", (RNG.standard_normal((2, 12, 3, 2)).astype(np.float32),), 9, {"blocksize": 2}),
    ("DepthToSpace", (RNG.standard_normal((2, 12, 3, 2)).astype(np.float32),), 11, {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (RNG.standard_normal((2, 3, 4, 6)).astype(np.float32),), 9, {"blocksize": 2}),
    ("Compress", (X, np.array([True, False, True])), 9, {"axis": 0}),
    ("NonZero", (np.round(X),), 9, {}),
    ("EyeLike", (X[0],), 9, {"k": 1}),
    ("Shrink", (X,), 9, {"lambd": 0.3, "bias": 0.1}),
    ("PRelu", (X, X[0, :, :1].copy()), 9, {}),
    ("Selu", (X,), 9, {}),
    ("ThresholdedRelu", (X,), 10, {"alpha": 0.4}),
    ("Softplus", (X * 40,), 9, {}),
    ("Mod", (np.array([-7, 7, 5]), np.array([3, -3, 2])), 10, {}),
    ("Mod", (X, X[0] + 3), 10, {"fmod": 1}),
    ("IsInf", (np.array([1, np.inf, -np.inf], np.float32),), 10, {"detect_negative": 0}),
    ("Div", (np.array([-7, 7, -8]), np.array([2, -2, 3])), 9, {}),
    ("Pow", (np.abs(X), np.array(2, I64)), 12, {}),
    ("Where", (X > 0, X, X[:1] * 2), 9, {}),
    ("Range", (np.array(2), np.array(11), np.array(3)), 11, {}),
    ("ConstantOfShape", (np.array([2, 3]),), 9, {}),
    ("CumSum", (X, np.array(1)), 11, {"exclusive": 1, "reverse": 1}),
    ("ReverseSequence", (X, np.array([2, 3, 1, 0])), 10, {"time_axis": 0, "batch_axis": 1}),
    ("GatherND", (X, np.array([[0, 1], [2, -1]])), 11, {}),
    ("GatherElements", (X, np.array([[[0, -1]], [[1, 2]]])), 11, {"axis": 2}),
    ("Trilu", (X, np.array(-1)), 14, {"upper": 0}),
    ("BitShift", (np.array([16, 4, 255], np.uint8), np.array([1, 2, 3], np.uint8)), 11, {"direction": "RIGHT"}),
    ("QuantizeLinear", (X, np.array(0.02, np.float32), np.array(7, np.uint8)), 10, {}),
    ("QuantizeLinear", (X, np.float32([0.02, 0.03, 0.01, 0.05]), np.int8([1, 0, -4, 9])), 13, {"axis": 1}),
    ("DequantizeLinear", (np.int8([[1, -128], [127, 3]]), np.float32([0.1, 0.3]), np.int8([2, -1])), 13, {"axis": 0}),
    ("DynamicQuantizeLinear", (X,), 11, {}),
    ("Det", (X[:, :3, :3].copy(),), 11, {}),
    ("HannWindow", (np.array(9),), 17, {}),
    ("Transpose", (X,), 9, {}),
    ("Celu", (X,), 12, {"alpha": 0.7}),
    ("HardSigmoid", (X,), 9, {"alpha": 0.3}),
    ("Sum", (X, X[0], X[:1, :1]), 9, {}),
    ("Mean", (X, X[0], X[:1, :1]), 9, {}),
    ("Max", (X, X[0] * 0), 9, {}),
]  # fmt: skip
OUTPUTS = {"DynamicQuantizeLinear": 3}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[2]}")
def test_version(case: tuple[str, tuple[np.ndarray | None, ...], int, dict[str, object]]) -> None:
    op, inputs, opset, attrs = case
    dynamic = (False,) if op == "ConstantOfShape" else (False, True)
    check_node(op, inputs, opset, attrs, outputs=OUTPUTS.get(op, 1), dynamic=dynamic)


@pytest.mark.parametrize("opset", [9, 11])
def test_split_by_attribute(opset: int) -> None:
    check_node("Split", (X,), opset, {"axis": -1, "split": [2, 3]}, outputs=2)
    check_node("Split", (X,), opset, {"axis": 1}, outputs=2, dynamic=(False,))


def test_split_by_input_and_by_count() -> None:
    check_node("Split", (X, np.array([4, 1])), 13, {"axis": 2}, outputs=2)
    check_node("Split", (X,), 18, {"axis": 2, "num_outputs": 2}, outputs=2)


def test_top_k() -> None:
    x = RNG.standard_normal((3, 9)).astype(np.float32)
    check_node("TopK", (x,), 9, {"axis": 1, "k": 4}, outputs=2)
    check_node("TopK", (x, np.array([4])), 10, {}, outputs=2)
    check_node("TopK", (x, np.array([2])), 11, {"largest": 0, "axis": 0}, outputs=2)
