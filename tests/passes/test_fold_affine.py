"""Scales go into the constant weights of the product before them, where nothing else reads it."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import interp
from bessemer.passes import fold_affine
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.rewriting import Spelling, rewritten

CONVS: dict[str, tuple[Spelling, dict[str, int]]] = {
    "scale per channel": (lambda g, x: g.mul(g.conv(x, g.weight(6, 4, 3, 3)), g.weight(6, 1, 1)), {"conv": 1}),
    "batch norm": (
        lambda g, x: g.add(g.mul(g.conv(x, g.weight(6, 4, 1, 1)), g.weight(1, 6, 1, 1)), g.weight(6, 1, 1, seed=2)),
        {"conv": 1, "add": 1}),
    "bias then batch norm": (
        lambda g, x: g.add(g.mul(g.add(g.conv(x, g.weight(6, 4, 1, 1)), g.weight(6, 1, 1, seed=4)), g.weight(6, 1, 1)),
                           g.weight(6, 1, 1, seed=2)), {"conv": 1, "add": 2}),
    "one number": (lambda g, x: g.mul(g.conv(x, g.weight(6, 4, 1, 1)), 0.3), {"conv": 1}),
    "twice": (
        lambda g, x: g.mul(g.mul(g.conv(x, g.weight(6, 2, 1, 1), groups=2), 0.3), g.weight(6, 1, 1)), {"conv": 1}),
    "scale per column": (lambda g, x: g.mul(g.conv(x, g.weight(6, 4, 1, 1)), g.weight(5)), {"conv": 1, "mul": 1}),
    "matmul": (lambda g, x: g.mul(g.matmul(x, g.weight(5, 7)), g.weight(7)), {"matmul": 1}),
    "matmul, transposed": (lambda g, x: g.mul(g.matmul(x, g.weight(7, 5), tb=True), g.weight(1, 7)), {"matmul": 1}),
    "matmul, per row": (lambda g, x: g.mul(g.matmul(x, g.weight(5, 7)), g.weight(3, 1)), {"matmul": 1, "mul": 1}),
}  # fmt: skip


@pytest.mark.parametrize("spelling,left", CONVS.values(), ids=CONVS)
def test_scales_go_into_weights(spelling: Spelling, left: dict[str, int]) -> None:
    assert ops(rewritten(spelling, fold_affine.PASS, shape=(2, 4, 3, 5))) == left


def test_a_scaled_product_that_others_read_is_kept() -> None:
    g = G()
    y = g.conv(g.input(2, 4, 3, 5), g.weight(6, 4, 1, 1))
    before = g.done(g.mul(y, g.weight(6, 1, 1)), y)
    after = apply(fold_affine.PASS, before, PassOptions())
    assert ops(after) == {"conv": 1, "mul": 1}
    assert_same_numbers(before, after)


# A weight, a scale, a bias, an input, and whether the scale goes into the weights.
SIXTEEN_BITS: dict[str, tuple[DType, float, float, float | None, float, bool]] = {
    "f16": (dt.f16, 0.5, 1.3, None, 1.0, True),
    "f16, with a bias": (dt.f16, 0.5, 1.3, 0.25, 1.0, True),
    "f16, with a bias that becomes small": (dt.f16, 100.0, 1e-3, 1e-3, 1.0, True),
    "f16, no scale at all": (dt.f16, 0.5, 0.0, None, 1.0, True),
    "f16, too large": (dt.f16, 100.0, 1000.0, None, 1e-4, False),
    "f16, a bias that becomes too large": (dt.f16, 0.5, 1000.0, 100.0, -3.0, False),
    "f16, too small": (dt.f16, 1e-3, 1e-4, None, 300.0, False),
    "f16, nothing left": (dt.f16, 1e-4, 1e-5, None, 60000.0, False),
    "bf16": (dt.bf16, 100.0, 1000.0, None, 1e-4, True),
    "bf16, too large": (dt.bf16, 1e20, 1e20, None, 1e-20, False),
    "bf16, too small": (dt.bf16, 1e-20, 1e-20, None, 1e20, False),
}


@pytest.mark.parametrize("dtype,weight,scale,bias,x,folds", SIXTEEN_BITS.values(), ids=SIXTEEN_BITS)
def test_scales_stay_where_weights_of_16_bits_cannot_hold_them(
    dtype: DType, weight: float, scale: float, bias: float | None, x: float, folds: bool
) -> None:
    g = G()
    given, narrow = g.input(3, 64, name="x"), {"to": dtype}
    rng = np.random.default_rng(0)
    w = weight * rng.uniform(0.5, 1.0, (64, 2)).astype(np.float32)
    w[0] = 0.0  # an exact zero is no number that became too small
    y = g.matmul(g.cast(given, **narrow), g.cast(g.const(w), **narrow))
    if bias is not None:
        y = g.add(y, g.cast(g.const(bias), **narrow))
    before = g.done(g.cast(g.mul(y, g.cast(g.const(scale), **narrow)), to=dt.f32))
    after = apply(fold_affine.PASS, before, PassOptions())
    assert ("mul" not in ops(after)) == folds
    feed = {"x": np.full((3, 64), x, np.float32)}
    (want,), (got,) = interp.run(before, feed).values(), interp.run(after, feed).values()
    assert np.isfinite(got).all() and np.allclose(got, want, rtol={dt.f16: 2e-3, dt.bf16: 1.6e-2}[dtype], atol=1e-30)
