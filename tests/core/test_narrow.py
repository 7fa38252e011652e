"""Narrow floats against the ml_dtypes package, whose types onnx uses."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core import narrow

ml_dtypes = pytest.importorskip("ml_dtypes")
PEERS = {
    dt.f8e4m3fn: "float8_e4m3fn", dt.f8e4m3fnuz: "float8_e4m3fnuz", dt.f8e5m2: "float8_e5m2",
    dt.f8e5m2fnuz: "float8_e5m2fnuz", dt.f4e2m1: "float4_e2m1fn", dt.f8e8m0: "float8_e8m0fnu",
}  # fmt: skip
FLOATS = [d for d in PEERS if d != dt.f8e8m0]


def _drawn(dtype: dt.DType) -> np.ndarray:
    """Values of every magnitude, all values of the type, and the ties between them."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal(20_000) * 10.0 ** rng.integers(-9, 9, 20_000)
    table = narrow.values(dtype).astype(np.float64)
    with np.errstate(invalid="ignore"):
        ties = (table[:-1] + table[1:]) / 2
    return np.concatenate([wide, table, ties, [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)


@pytest.mark.parametrize("dtype", PEERS, ids=str)
def test_values(dtype: dt.DType):
    table = narrow.values(dtype)
    peer = np.arange(table.size, dtype=np.uint8).view(getattr(ml_dtypes, PEERS[dtype])).astype(np.float32)
    assert np.array_equal(table, peer, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rounding(dtype: dt.DType):
    x = _drawn(dtype)
    got, expected = narrow.encode(x, dtype, saturate=False), x.astype(getattr(ml_dtypes, PEERS[dtype])).view(np.uint8)
    table = narrow.values(dtype)
    assert np.array_equal(got[~np.isnan(table[got])], expected[~np.isnan(table[expected])])
    assert np.array_equal(np.isnan(table[got]), np.isnan(table[expected]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_saturation_keeps_nan_and_clamps_the_rest(dtype: dt.DType):
    table = narrow.values(dtype)
    x = _drawn(dtype)
    got = table[narrow.encode(x, dtype)]
    greatest = np.nanmax(np.where(np.isfinite(table), table, np.nan))
    assert np.isfinite(got[~np.isnan(x)]).all()
    assert (np.abs(got[np.isinf(x)]) == greatest).all()


@pytest.mark.parametrize(("rounding", "expected"), [("up", 8.0), ("down", 4.0), ("nearest", 8.0)])
def test_powers_of_two(rounding: str, expected: float):
    assert narrow.values(dt.f8e8m0)[narrow.encode(np.array(6.5), dt.f8e8m0, rounding=rounding)] == expected
    assert narrow.values(dt.f8e8m0)[narrow.encode(np.array(-4.0), dt.f8e8m0, rounding=rounding)] == 4
