"""Resize and Upsample against onnxruntime: sizes and scales constant and fed, data of fixed and dynamic size."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bessemer.core.dim import substitute, sym
from bessemer.frontend.onnx import import_model
from bessemer.ops.interpolation import ratio, scaled_size, source_line
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
    line = source_line("half_pixel", 2, 1, 5, 10)
    assert [(line.a * i + line.b) / line.q for i in range(3)] == [-0.25, 0.25, 0.75]
