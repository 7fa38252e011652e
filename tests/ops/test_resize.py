"""Resize and Upsample against onnxruntime: sizes and scales constant and fed, data of fixed and dynamic size."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate, substitute, sym
from bessemer.core.interval import Range
from bessemer.frontend.onnx import import_model
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, InferContext
from bessemer.ops.interpolation import Line, floor_line, held_index, ratio, scaled_size, source_line
from bessemer.ops.resize import resize_attrs
from bessemer.ops.resize_onnx import quotient
from tests.frontend.models import model, node, tensor, value
from tests.ops.onnx_nodes import check_node, node_model

RNG = np.random.default_rng(3)
X = RNG.standard_normal((1, 2, 6, 5)).astype(np.float32)
UP = np.array([1, 1, 2, 3], np.float32)
ODD = np.array([1, 1, 1.5, 0.6], np.float32)
SIZES = np.array([1, 2, 9, 4])
EMPTY = np.zeros(0, np.float32)


@pytest.mark.parametrize("scales", [UP, ODD], ids=["whole", "odd"])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "pytorch_half_pixel"])
def test_nearest(coordinates: str, rounding: str, scales: np.ndarray) -> None:
    attrs = {"mode": "nearest", "nearest_mode": rounding, "coordinate_transformation_mode": coordinates}
    check_node("Resize", (X, EMPTY, scales), 13, attrs)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"])
def test_interpolated_sizes(mode: str, coordinates: str) -> None:
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    check_node("Resize", (X, None, None, SIZES), 19, attrs, rtol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolated_scales(mode: str) -> None:
    check_node("Resize", (X, None, UP), 18, {"mode": mode}, rtol=1e-4)


def test_cubic_without_outside() -> None:
    attrs = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
    check_node("Resize", (X, None, None, SIZES), 19, attrs, rtol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialias(mode: str) -> None:
    sizes = np.array([1, 2, 3, 3])
    attrs = {"mode": mode, "antialias": 1, "exclude_outside": 1}
    check_node("Resize", (X, None, None, sizes), 19, attrs, rtol=1e-4, constants=(True,))


def test_crop() -> None:
    roi = np.array([0, 0, 0.25, -0.3, 1, 1, 0.9, 1.2], np.float32)
    attrs = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0}
    check_node("Resize", (X, roi, None, SIZES), 13, attrs, rtol=1e-4, dynamic=(False,))


def test_axes_and_aspect_ratio() -> None:
    attrs = {"mode": "nearest", "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}
    check_node("Resize", (X, None, None, np.array([9, 9])), 18, attrs, dynamic=(False,))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_older_versions(mode: str) -> None:
    check_node("Upsample", (X, UP), 9, {"mode": mode}, rtol=1e-4)
    check_node("Resize", (X, UP), 10, {"mode": mode}, rtol=1e-4)


def test_sizes_of_dynamic_data_are_exact() -> None:
    graph = import_model(node_model("Resize", (X, None, np.array([1, 1, 2, 0.5], np.float32)), 13, {}, 1, True, True))
    assert [str(d) for d in graph.types["y0"].shape] == ["n0", "n1", "2*n2", "floordiv(n3,2)"]
    assert "resize_dynamic" not in {n.op for n in graph.nodes}


@pytest.mark.parametrize("scale", ["7/10", "1/3", "2", "3/2", "4/3"])
def test_scales_stand_for_simple_fractions(scale: str) -> None:
    assert ratio(float(np.float32(float(Fraction(scale))))) == Fraction(scale)
    n = sym("n")
    assert substitute(scaled_size(n, Fraction(scale)), {"n": 30}) == 30 * Fraction(scale)


def test_half_pixel_line() -> None:
    a, b, q = source_line("half_pixel", 2, 1, 5, 10).known()
    assert [(a * i + b) / q for i in range(3)] == [-0.25, 0.25, 0.75]


@pytest.mark.parametrize("n", [5, sym("n")], ids=str)
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize(
    ("coordinates", "rounding"),
    [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")],
)
def test_nearest_by_a_whole_factor_is_a_quotient(n: Dim, factor: int, coordinates: str, rounding: str) -> None:
    attrs = resize_attrs((1, factor * n), (1, factor), (1, 1), mode="nearest", coordinates=coordinates)
    types, ranges = (TensorType(dt.f32, (1, n)),), {"n": Range(1, 100)}
    compute = OPS.get("resize").compute
    assert compute is not None
    expr = compute(InferContext(types, {**attrs, "rounding": rounding}, ranges)).expr
    assert exprtree.text(expr) == f"%0[i0,floordiv(i1,{factor})]:f32"


def test_sizes_that_are_multiples_become_factors() -> None:
    n = sym("n")
    for size, length, scale in ((2 * n, n, (2, 1)), (n, 3 * n, (1, 3)), (12, 4, (3, 1)), (7, 4, (7, 4))):
        assert quotient(size, length) == scale


def _values(e: ex.Expr, i: int) -> int:
    """An integer expression over i0 at i0 = i."""
    match e:
        case ex.Lit():
            return int(e.value)
        case ex.Axis():
            return i
        case ex.Size():
            return evaluate(e.dim, {})
        case ex.Call():
            a, b = (_values(arg, i) for arg in e.args)
            return {"add": a + b, "mul": a * b, "min": min(a, b), "max": max(a, b), "floordiv": a // (b or 1)}[e.fn]
    raise AssertionError(exprtree.text(e))


def test_indices_are_held_inside_where_they_could_leave() -> None:
    for _ in range(300):
        a, b, q, offset = (int(RNG.integers(low, high)) for low, high in ((-3, 9), (-20, 20), (1, 12), (-1, 3)))
        size, out = (int(v) for v in RNG.integers(1, 12, 2))
        line = Line(a, b, q)
        index = held_index(line, ex.Axis("i0"), offset, size, out, {})
        simple = floor_line(line).known()
        for i in range(out):
            assert (simple[0] * i + simple[1]) // simple[2] == (a * i + b) // q
            assert _values(index, i) == min(max((a * i + b) // q + offset, 0), size - 1)


@pytest.mark.parametrize(("size", "told"), [(6, False), (7, True), ("h", True)])
def test_corners_aligned_to_part_of_a_size(size: int | str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """ONNX's definition is followed, which is not what PyTorch computes."""
    attrs = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    scales = np.array([1, 1, 1.5, 1], np.float32)
    made = node("Resize", ["x", "", "scales"], ["y"], **attrs)
    import_model(model([made], [value("x", [1, 2, size, 5])], ["y"], [tensor("scales", scales)]))
    assert ("gives no whole size" in caplog.text) == told
