"""What is folded ahead of time: quantised weights, and padding into convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir.graph import Graph
from bessemer.passes import fold_constants, fold_pad, pipeline
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops


def quantized_product() -> Graph:
    """A product by the transpose of an int8 matrix with a scale per row, and a quantised bias."""
    g, rng = G(), np.random.default_rng(4)
    weight = g.const(rng.integers(-128, 128, (96, 64)), dt.i8)
    real = g.dequantize(weight, g.const(rng.uniform(0.01, 0.02, (96, 1)).astype(np.float32)), to=dt.f32)
    bias = g.dequantize(g.const(np.arange(96), dt.i32), g.const(np.float32(1e-3)), to=dt.f32)
    return g.done(g.add(g.matmul(g.input(2, 64), g.transpose(real, perm=(1, 0))), bias))


def test_a_quantised_weight_is_visible_until_it_is_folded() -> None:
    before = quantized_product()
    assert ops(before) == {"dequantize": 1, "transpose": 1, "matmul": 1, "add": 1}  # the bias, a vector, is folded
    assert dt.i8 in {c.type.dtype for c in before.constants.values()}
    folded = apply(fold_constants.PASS, before, PassOptions())
    assert ops(folded) == {"matmul": 1, "add": 1}
    assert {c.type.dtype for c in folded.constants.values()} == {dt.f32}
    assert_same_numbers(before, folded, 1e-6)
    assert "dequantize" not in ops(pipeline.run(before, PassOptions()))


@pytest.mark.parametrize(("low", "left"), [(1, {"pad": 1, "conv": 1}), (8, {"conv": 1})])
def test_padding_that_may_crop_stays_before_the_convolution(low: int, left: dict[str, int]) -> None:
    """Rows are filled up to 16, or cut down to 16."""
    g, w = G(w=Range(low, 16 if low == 8 else 64, 16)), sym("w")
    x = g.pad(g.input(1, 2, 5, w), 0.0, pads=(0, 0, 0, 0, 0, 0, 0, 16 - w), mode="constant")
    before = g.done(g.conv(x, g.weight(3, 2, 3, 3)))
    after_ = apply(fold_pad.PASS, before, PassOptions())
    assert ops(after_) == left
    for size in (low, 16) if low == 8 else (low, 16, 64):
        assert_same_numbers(before, after_, 1e-5, {"w": size})
