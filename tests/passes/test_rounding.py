"""Convolution weights are rounded so that every filter keeps its sum."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import interp
from bessemer.ir.fold import constant_from
from bessemer.ir.graph import TensorType
from bessemer.passes import pipeline, rounding
from bessemer.passes.base import PassOptions
from tests.graphs import G

STEP = {dt.f16: 2.0**-11, dt.bf16: 2.0**-8}  # relative error of rounding to the nearest, at most


def stored(array: np.ndarray, low: DType) -> np.ndarray:
    loaded = rounding.rounded(constant_from(array), low).load()
    return dt.from_bf16(loaded) if low == dt.bf16 else loaded.astype(np.float32)


@pytest.mark.parametrize("low", [dt.f16, dt.bf16])
def test_sums_are_kept_and_no_weight_moves_far(low: DType) -> None:
    weights = np.random.default_rng(4).standard_normal((40, 3, 3, 3)).astype(np.float32)
    got = stored(weights, low)
    wrong = (got.astype(np.float64) - weights).sum((2, 3))
    plain = dt.from_bf16(dt.to_bf16(weights)) if low == dt.bf16 else weights.astype(np.float16).astype(np.float32)
    assert np.linalg.norm(wrong) < 0.2 * np.linalg.norm((plain.astype(np.float64) - weights).sum((2, 3)))
    largest = np.abs(weights).max((2, 3), keepdims=True)
    assert (np.abs(got - weights) <= 2 * STEP[low] * largest).all()


def test_what_16_bits_hold_is_left_as_it_is() -> None:
    weights = np.random.default_rng(5).integers(-9, 9, (4, 2, 5)).astype(np.float32) / 8
    assert np.array_equal(stored(weights, dt.f16), weights)


def test_infinite_weights_spoil_no_other() -> None:
    weights = np.full((1, 1, 3), 0.1, np.float32)
    weights[0, 0, 1] = np.inf
    got = stored(weights, dt.f16)
    assert np.isinf(got[0, 0, 1]) and np.isfinite(got[0, 0, [0, 2]]).all()


def test_only_windows_of_some_taps_are_filters() -> None:
    def weight(*shape: int) -> TensorType:
        return TensorType(dt.f32, shape)

    assert rounding.has_filters(weight(8, 4, 3, 3)) and rounding.has_filters(weight(8, 1, 3))
    assert not rounding.has_filters(weight(8, 4, 1, 1)) and not rounding.has_filters(weight(8, 4))
    assert not rounding.has_filters(weight(258, 1, 1, 256))


def test_a_depthwise_convolution_of_a_smooth_picture_gains() -> None:
    """Weights that cancel on positive inputs: an edge detector behind a ReLU."""
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((8, 1, 3, 3)).astype(np.float32)
    weights -= weights.mean((2, 3), keepdims=True)
    g = G()
    graph = g.done(g.conv(g.input(1, 8, 32, 32), g.const(weights), pad=0, groups=8))
    lowered = pipeline.run(graph, PassOptions("cuda", "fp16"))
    ramp = np.linspace(0, 1, 32, dtype=np.float32)
    picture = {"x": np.broadcast_to(1 + 0.05 * ramp[:, None] * ramp, (1, 8, 32, 32)).astype(np.float16).astype("f4")}
    (want,), (got,) = (list(interp.run(x, picture).values()) for x in (graph, lowered))
    exact = np.linalg.norm(got - want) / np.linalg.norm(want)
    plain = nearest_error(weights, picture, want)
    assert exact < 0.5 * plain


def nearest_error(weights: np.ndarray, picture: dict[str, np.ndarray], want: np.ndarray) -> float:
    """The error with weights rounded one by one."""
    g = G()
    rounded = weights.astype(np.float16).astype(np.float32)
    other = g.done(g.conv(g.input(1, 8, 32, 32), g.const(rounded), pad=0, groups=8))
    (got,) = interp.run(other, picture).values()
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
