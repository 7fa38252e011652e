"""Convolutions against float64: layouts, ranks, strides, dilations, pads, groups; split, depthwise, transposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.triton.conv_depthwise import ConvDepthwise
from bessemer.kernels.triton.conv_igemm import ConvIgemm
from bessemer.kernels.triton.conv_splitk import ConvSplitK
from bessemer.kernels.triton.conv_transpose import ConvTranspose
from bessemer.kernels.triton.gemm import Gemm
from bessemer.ops.window_shape import patches, windows
from tests.kernels.triton.problems import (
    Array,
    Case,
    case,
    check,
    compiles,
    first,
    matmul,
    normal,
    reason,
    symbolic,
    with_bias_relu,
)

pytestmark = [pytest.mark.triton, pytest.mark.torch]

TILE = {"bm": 32, "bn": 16, "bk": 16, "stages": 2, "warps": 4, "swap": 0, "split": 1}
CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 16, 7, 9), (20, 16, 3, 3), {"pads": (1, 1, 1, 1)}),
    ((1, 3, 13, 15), (20, 3, 5, 3), {"strides": (2, 2), "pads": (2, 1, 0, 1)}),
    ((1, 24, 8, 8), (40, 24, 3, 3), {"strides": (2, 1), "dilations": (2, 1), "pads": (2, 1, 2, 1)}),
    ((1, 20, 7, 5), (12, 10, 3, 3), {"groups": 2, "pads": (1, 1, 1, 1)}),
    ((2, 12, 30), (10, 12, 5), {"pads": (2, 2), "strides": (2,)}),
    ((1, 8, 5, 6, 7), (9, 8, 3, 2, 3), {"pads": (1, 0, 1, 1, 1, 1)}),
    ((1, 32, 7, 7), (24, 32, 1, 1), {"strides": (2, 2)}),
]


def attributes(rank: int, layout: str, **given: Any) -> dict[str, Any]:
    """All attributes of a convolution, those given and the defaults."""
    plain: dict[str, Any] = {"strides": (1,) * rank, "dilations": (1,) * rank, "pads": (0,) * 2 * rank, "groups": 1}
    return {**plain, **given, "layout": layout}


def in_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """A channel-first array in `layout`."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1) if layout == "NHWC" else array)


def conv(
    x_shape: Sequence[int], w_shape: Sequence[int], dtype: DType = dt.f32, layout: str = "NHWC", constant: bool = True,
    **given: Any,
) -> Case:  # fmt: skip
    """Shapes channel first; the case's tensors are in `layout`."""
    rank = len(w_shape) - 2
    attrs = attributes(rank, layout, **given)
    x, w = normal(x_shape, dtype), normal(w_shape, dtype)
    steps, gaps, pads = attrs["strides"], attrs["dilations"], attrs["pads"]
    out = [
        evaluate(windows(x_shape[2 + k], w_shape[2 + k], steps[k], gaps[k], pads[k], pads[rank + k]), {})
        for k in range(rank)
    ]
    taken = patches(x.astype(np.float64), w_shape[2:], steps, gaps, pads, out, 0)
    groups = attrs["groups"]
    split = taken.reshape(x_shape[0], groups, -1, *taken.shape[2:])
    filters = w.astype(np.float64).reshape(groups, -1, *w_shape[1:])
    taps, pixels = "abc"[:rank], "xyz"[:rank]
    want = np.einsum(f"ngi{pixels}{taps},goi{taps}->ngo{pixels}", split, filters).reshape(x_shape[0], w_shape[0], *out)
    arrays = [in_layout(x, layout), w]
    result = in_layout(want, layout)
    return case("conv", arrays, [result], dtype, attrs, (1,) if constant else ())


def transposed(
    x_shape: Sequence[int], w_shape: Sequence[int], extra: Sequence[int], dtype: DType, layout: str, **given: Any
) -> Case:
    """conv_transpose; w [IC, OC / groups, *kernel], `extra` the output padding."""
    rank = len(w_shape) - 2
    attrs = {**attributes(rank, layout, **given), "output_padding": tuple(extra)}
    strides, dilations, pads, groups = (attrs[k] for k in ("strides", "dilations", "pads", "groups"))
    x, w = normal(x_shape, dtype), normal(w_shape, dtype)
    sizes = [(i - 1) * s + (k - 1) * d + 1 for i, s, k, d in zip(x_shape[2:], strides, w_shape[2:], dilations)]
    whole = np.zeros((x_shape[0], w_shape[1] * groups, *(s + e for s, e in zip(sizes, extra))))
    parts = zip(np.split(x.astype(np.float64), groups, 1), np.split(w.astype(np.float64), groups, 0))
    for g, (xs, ws) in enumerate(parts):
        channels = slice(g * w_shape[1], (g + 1) * w_shape[1])
        for tap in np.ndindex(*w_shape[2:]):
            at = tuple(
                slice(t * d, t * d + (i - 1) * s + 1, s) for t, d, i, s in zip(tap, dilations, x_shape[2:], strides)
            )
            whole[(slice(None), channels, *at)] += np.einsum("ni...,io->no...", xs, ws[(..., *tap)])
    inner = tuple(slice(pads[k], whole.shape[2 + k] - pads[rank + k]) for k in range(rank))
    want = in_layout(whole[(slice(None), slice(None), *inner)], layout)
    arrays = [in_layout(x, layout), w]
    return case("conv_transpose", arrays, [want], dtype, attrs, (1,))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_implicit_product(number: int, layout: str) -> None:
    x, w, attrs = CASES[number]
    check(ConvIgemm(), conv(x, w, dt.f32, layout, **attrs), TILE)
    check(ConvIgemm(), conv(x, w, dt.f16, layout, constant=False, **attrs), TILE)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_swapped_tiles_and_an_epilogue(layout: str) -> None:
    c = conv((1, 24, 6, 5), (20, 24, 3, 3), dt.f16, layout, pads=(1, 1, 1, 1))
    c = with_bias_relu(c, -1 if layout == "NHWC" else 1)
    check(ConvIgemm(), c, {**TILE, "swap": 1})
    check(ConvIgemm(), c)


def test_symbolic_batch_and_size() -> None:
    n, h = sym("n"), sym("h")
    c = conv((2, 8, 6, 5), (12, 8, 3, 3), pads=(1, 1, 1, 1))
    c = symbolic(c, {0: (n, h, 5, 8)}, (n, h, 5, 12), {"n": Range(1, 4, 2), "h": Range(3, 9, 6)})
    check(ConvIgemm(), c, TILE, {"n": 2, "h": 6})


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_offsets_of_64_bits(layout: str) -> None:
    n = sym("n")
    same: dict[str, Any] = {"pads": (1, 1, 1, 1)}
    x, y = ((n, 6, 5, 8), (n, 6, 5, 12)) if layout == "NHWC" else ((n, 8, 6, 5), (n, 12, 6, 5))
    c = symbolic(conv((2, 8, 6, 5), (12, 8, 3, 3), dt.f16, layout, **same), {0: x}, y, {"n": Range(1, 2**31, 2)})
    check(ConvIgemm(), c, TILE, {"n": 2})
    compiles(ConvIgemm(), [c.problem], first)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f16])
def test_split_sums(dtype: DType) -> None:
    c = with_bias_relu(conv((1, 32, 7, 7), (24, 32, 3, 3), dtype, pads=(1, 1, 1, 1)), -1)
    check(ConvSplitK(), c, {**TILE, "split": 4})
    check(ConvSplitK(), c)
    planes = with_bias_relu(conv((2, 64, 5, 6), (24, 32, 3, 3), dtype, "NCHW", pads=(1, 1, 1, 1), groups=2), 1)
    check(ConvSplitK(), planes, {**TILE, "split": 3})


def test_pointwise_is_a_plain_product() -> None:
    c = with_bias_relu(conv((2, 24, 5, 6), (20, 24, 1, 1), dt.f16), -1)
    for order in ("kn", "nk"):
        check(Gemm(), c, {**TILE, "b": order})


@pytest.mark.parametrize("dtype", [dt.f32, dt.f16, dt.bf16])
def test_depthwise(dtype: DType) -> None:
    tile = {"bm": 8, "bn": 32, "warps": 4}
    square = conv((2, 24, 9, 10), (24, 1, 3, 3), dtype, groups=24, pads=(1, 1, 1, 1), strides=(2, 1))
    check(ConvDepthwise(), with_bias_relu(square, -1), tile)
    check(ConvDepthwise(), conv((1, 17, 30), (17, 1, 3), dtype, groups=17, dilations=(2,)))


TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 20, 5, 6), (20, 12, 3, 3), (1, 1), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
    ((1, 16, 4, 5), (16, 10, 2, 2), (0, 0), {"strides": (2, 2)}),
    ((1, 12, 7, 6), (12, 5, 3, 4), (1, 0), {"strides": (2, 3), "dilations": (2, 1), "pads": (1, 0, 2, 1), "groups": 2}),
    ((1, 8, 9), (8, 6, 5), (0,), {"strides": (3,), "pads": (2, 1)}),
    ((1, 8, 3, 3, 3), (8, 4, 2, 3, 2), (0, 0, 0), {"strides": (2, 1, 2)}),
]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("number", range(len(TRANSPOSED)))
def test_transposed(number: int, layout: str) -> None:
    x, w, extra, attrs = TRANSPOSED[number]
    tile = {"bm": 32, "bn": 16, "bk": 16, "stages": 2, "warps": 4}
    check(ConvTranspose(), transposed(x, w, extra, dt.f32, layout, **attrs), tile)
    check(ConvTranspose(), transposed(x, w, extra, dt.f16, layout, **attrs))


def test_reasons() -> None:
    assert "channels-last" in reason(Gemm(), conv((1, 8, 4, 4), (8, 8, 1, 1), layout="NCHW").problem)
    assert "1x1" in reason(Gemm(), conv((1, 8, 4, 4), (8, 8, 3, 3)).problem)
    n = sym("n")
    endless = symbolic(conv((1, 64, 4, 4), (8, 64, 3, 3)), {0: (n, 4, 4, 64)}, (n, 2, 2, 8), {"n": Range(1, 2**31, 1)})
    assert "counters" in reason(ConvSplitK(), endless.problem)
    assert "one input and one output" in reason(ConvDepthwise(), conv((1, 8, 4, 4), (8, 8, 3, 3)).problem)
    assert "not matmul" in reason(ConvIgemm(), matmul((2, 2), (2, 2)).problem)


def test_compiles_for_every_architecture() -> None:
    same: dict[str, Any] = {"pads": (1, 1, 1, 1)}
    wide = conv((1, 64, 14, 14), (64, 64, 3, 3), dt.f16, **same).problem
    image = conv((1, 3, 32, 32), (32, 3, 7, 7), dt.f16, strides=(2, 2), pads=(3, 3, 3, 3)).problem
    planes = conv((1, 64, 14, 14), (64, 64, 3, 3), dt.bf16, "NCHW", **same).problem
    exact = conv((1, 64, 14, 14), (64, 64, 3, 3), dt.f32, **same).problem
    compiles(ConvIgemm(), [wide, image, planes, exact], first)
    compiles(ConvSplitK(), [wide, planes], first)
    compiles(ConvDepthwise(), [conv((1, 64, 14, 14), (64, 1, 3, 3), dt.f16, groups=64, **same).problem], first)
    up: Array = np.zeros((1, 28, 28, 32))
    filters = [normal((1, 14, 14, 64), dt.f16), normal((64, 32, 2, 2), dt.f16)]
    attrs = {**attributes(2, "NHWC", strides=(2, 2)), "output_padding": (0, 0)}
    compiles(ConvTranspose(), [case("conv_transpose", filters, [up], dt.f16, attrs, (1,)).problem], first)
