"""Element types, and bfloat16 rounding against a definition of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import dtype as dt


def nearest_even_bf16(value: np.float32) -> float:
    """By definition: the nearer of the two neighbours with 8 significant bits, the even one on a tie."""
    if np.isnan(value) or np.isinf(value) or value == 0:
        return float(value)
    low_bits = np.float32(abs(value)).view(np.uint32) & np.uint32(0xFFFF0000)
    low = float(low_bits.view(np.float32))
    up_bits = np.uint32(int(low_bits) + 0x10000)
    # the neighbour above the largest finite bfloat16 is 2^128, which float64 holds
    high = 2.0**128 if up_bits == 0x7F800000 else float(up_bits.view(np.float32))
    x = abs(float(value))
    up = high - x < x - low or (high - x == x - low and int(up_bits >> np.uint32(16)) % 2 == 0)
    rounded = high if up else low
    return float(np.copysign(np.inf if rounded == 2.0**128 else rounded, value))


@given(st.floats(width=32))
def test_bf16_rounds_to_nearest_even(x: float) -> None:
    value = np.float32(x)
    got = float(dt.from_bf16(dt.to_bf16(np.array([value], np.float32)))[0])
    want = nearest_even_bf16(value)
    assert (np.isnan(got) and np.isnan(want)) or (got == want and np.signbit(got) == np.signbit(want))


def test_bf16_edges() -> None:
    largest = np.array([0x7F7FFFFF], np.uint32).view(np.float32)
    assert dt.to_bf16(largest)[0] == 0x7F80, "beyond the largest bfloat16 is infinity"
    quiet = np.array([0x7F800001, 0xFFBFFFFF], np.uint32).view(np.float32)
    assert np.isnan(dt.from_bf16(dt.to_bf16(quiet))).all(), "a NaN whose high bits are an infinity's stays NaN"
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    assert list(dt.to_bf16(ties)) == [0x3F80, 0x3F82, 0x3F81]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_bf16_keeps_shapes_and_every_bit_pattern_survives(shape: tuple[int, ...]) -> None:
    assert dt.to_bf16(np.zeros(shape, np.float32)).shape == shape
    assert dt.from_bf16(np.zeros(shape, np.uint16)).shape == shape
    bits = np.arange(65536, dtype=np.uint16)
    values = dt.from_bf16(bits)
    again = dt.to_bf16(values)
    assert np.array_equal(again[~np.isnan(values)], bits[~np.isnan(values)])
    assert np.isnan(dt.from_bf16(again[np.isnan(values)])).all()


def test_bf16_from_a_strided_array() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert np.array_equal(dt.from_bf16(dt.to_bf16(values)), values)


@pytest.mark.parametrize("dtype", dt.ALL.values(), ids=str)
def test_names_sizes_and_numpy_types_agree(dtype: dt.DType) -> None:
    assert dt.parse(dtype.name) is dtype
    if dtype.kind == "n":
        assert dtype.numpy.itemsize == dtype.itemsize == 1
    elif dtype.kind != "s":
        assert dtype.numpy.itemsize == dtype.itemsize == dtype.bits // 8
    if dtype is not dt.bf16 and dtype.kind != "n":
        assert dt.from_numpy(dtype.numpy) is dtype
    assert dtype.is_float == (dtype.kind == "f")
    assert dtype.is_int == (dtype.kind in "iu")


def test_foreign_types_are_refused_by_name() -> None:
    assert dt.from_numpy(np.uint16) is dt.u16, "bf16 is never guessed"
    assert dt.from_numpy(np.dtype("<U5")) is dt.string
    with pytest.raises(KeyError, match="unknown dtype 'f8'; known: f64"):
        dt.parse("f8")
    with pytest.raises(TypeError, match="datetime64"):
        dt.from_numpy(np.dtype("datetime64[s]"))


def test_sums_over_half_precision_are_kept_in_f32() -> None:
    assert dt.accumulator(dt.f16) is dt.accumulator(dt.bf16) is dt.f32
    assert dt.accumulator(dt.f64) is dt.f64
    assert dt.accumulator(dt.i32) is dt.i32
