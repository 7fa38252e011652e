"""Softmax, layer, RMS and group normalisation against float64; whole lines and lines in steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.triton.group_norm import GroupNorm
from bessemer.kernels.triton.layer_norm import LayerNorm
from bessemer.kernels.triton.softmax import Softmax
from tests.kernels.triton.problems import (
    Array,
    Case,
    case,
    check,
    compiles,
    first,
    normal,
    reason,
    symbolic,
    with_bias_relu,
)

pytestmark = [pytest.mark.triton, pytest.mark.torch]

STEPS = {"br": 2, "bn": 16, "warps": 4, "whole": 0}
ALL = [dt.f32, dt.f16, dt.bf16]


def softmax(shape: tuple[int, ...], axis: int, log: bool = False, dtype: DType = dt.f32) -> Case:
    x = normal(shape, dtype)
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    p = e / e.sum(axis, keepdims=True)
    return case("softmax", [x], [np.log(p) if log else p], dtype, {"axis": axis, "log": log})


def layer_norm(
    shape: tuple[int, ...], axis: int, mode: str, dtype: DType, has_scale: bool = True, has_bias: bool = True
) -> Case:
    x = normal(shape, dtype)
    axes = tuple(range(axis % len(shape), len(shape)))
    wide = x.astype(np.float64) - (x.astype(np.float64).mean(axes, keepdims=True) if mode == "layer" else 0)
    want = wide / np.sqrt((wide**2).mean(axes, keepdims=True) + 1e-5)
    arrays: list[Array] = [x]
    for present, combine in ((has_scale, np.multiply), (has_bias, np.add)):
        if present:
            arrays.append(normal(shape[axes[0] :], dtype))
            want = combine(want, arrays[-1].astype(np.float64))
    attrs: dict[str, Any] = {"axis": axis, "epsilon": 1e-5, "mode": mode, "has_scale": has_scale, "has_bias": has_bias}
    return case("layer_norm", arrays, [want], dtype, attrs, range(1, len(arrays)))


def group_norm(shape: tuple[int, ...], groups: int, layout: str, dtype: DType, mean: float = 0.0) -> Case:
    """Shape channel first; the case's tensors are in `layout`."""
    x, scale, bias = normal(shape, dtype), normal((shape[1],), dtype), normal((shape[1],), dtype)
    x = (x + np.float32(mean)).astype(np.float16 if dtype == dt.f16 else np.float32).astype(np.float32)
    wide = x.astype(np.float64).reshape(shape[0], groups, -1)
    wide = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    column = (shape[1], *(1 for _ in shape[2:]))
    want = wide.reshape(shape) * scale.reshape(column) + bias.reshape(column)
    if layout == "NHWC":
        x, want = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, want))
    attrs: dict[str, Any] = {"groups": groups, "epsilon": 1e-5, "layout": layout}
    return case("group_norm", [x, scale, bias], [want], dtype, attrs, (1, 2))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("shape,axis", [((5, 37), 1), ((3, 20, 7), 1), ((6, 5), 0), ((2, 3, 40), 2), ((4, 1), 1)])
def test_softmax(dtype: DType, shape: tuple[int, ...], axis: int) -> None:
    check(Softmax(), softmax(shape, axis, dtype=dtype))
    check(Softmax(), softmax(shape, axis, log=True, dtype=dtype), STEPS)


def test_softmax_of_symbolic_lines_with_an_epilogue() -> None:
    check(Softmax(), with_bias_relu(softmax((5, 37), 1), 1))
    n = sym("n")
    check(Softmax(), symbolic(softmax((5, 37), 1), {0: (5, n)}, (5, n), {"n": Range(1, 64, 40)}), None, {"n": 37})


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("mode", ["layer", "rms"])
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, False)])
def test_layer_norm(dtype: DType, mode: str, given: tuple[bool, bool]) -> None:
    check(LayerNorm(), layer_norm((5, 37), -1, mode, dtype, *given))
    check(LayerNorm(), layer_norm((2, 3, 5, 7), 2, mode, dtype, *given), STEPS)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("chunks", [1, 4])
def test_group_norm(dtype: DType, layout: str, chunks: int) -> None:
    c = with_bias_relu(group_norm((2, 12, 5, 7), 3, layout, dtype), -1 if layout == "NHWC" else 1)
    check(GroupNorm(), c, {"chunks": chunks, "tile": 16, "warps": 4})


def test_group_norm_far_from_zero() -> None:
    c = group_norm((1, 6, 40), 2, "NCHW", dt.f32, mean=100.0)
    check(GroupNorm(), c, {"chunks": 2, "tile": 16, "warps": 4})


def test_reasons() -> None:
    odd = case("layer_norm", [normal((4, 8)), normal((4,))], [np.zeros((4, 8))], dt.f32, {
        "axis": -1, "epsilon": 1e-5, "mode": "layer", "has_scale": True, "has_bias": False})  # fmt: skip
    assert "one element for each" in reason(LayerNorm(), odd.problem)
    assert "not group_norm" in reason(Softmax(), group_norm((1, 4, 3), 2, "NCHW", dt.f32).problem)


def test_compiles_for_every_architecture() -> None:
    compiles(Softmax(), [softmax((64, 128), 1, dtype=dt.f16).problem, softmax((4, 64, 9), 1).problem], first)
    compiles(LayerNorm(), [layer_norm((64, 256), -1, "layer", dt.f16).problem], first)
    norms = [group_norm((1, 64, 8, 8), 8, layout, dt.f16).problem for layout in ("NHWC", "NCHW")]
    compiles(GroupNorm(), norms, first)
