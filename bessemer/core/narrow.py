"""Floats of 8 and 4 bits: their values, and rounding to them. A value is carried as its bits in a uint8.

Formats are sign, exponent, mantissa: e4m3fn (no infinity, one NaN), e5m2 (like IEEE), the fnuz kinds (no infinity, no
negative zero, which is NaN), e8m0 (powers of two, no sign), e2m1 (no infinity, no NaN).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from bessemer.core.dtype import DType

ROUNDINGS = ("nearest", "up", "down")  # how e8m0 rounds between powers of two; the others round to nearest even


@cache
def values(dtype: DType) -> np.ndarray:
    """What each bit pattern stands for, as float32."""
    if dtype.name == "f8e8m0":
        powers = np.ldexp(np.float32(1), np.arange(255) - 127)
        return np.append(powers, np.nan).astype(np.float32)
    exponent_bits, mantissa_bits, bias = _FORMATS[dtype.name]
    bits = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    normal = np.ldexp(1 + mantissa / (1 << mantissa_bits), exponent - bias)
    table = np.where(exponent == 0, np.ldexp(mantissa / (1 << mantissa_bits), 1 - bias), normal).astype(np.float32)
    negative = bits >> (exponent_bits + mantissa_bits) == 1
    table = np.where(negative, -table, table)
    if dtype.name == "f8e4m3fn":
        table[[0x7F, 0xFF]] = np.nan
    elif dtype.name == "f8e5m2":
        table[[0x7C, 0xFC]] = np.inf, -np.inf
        table[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    elif dtype.name.endswith("fnuz"):
        table[0x80] = np.nan
    return table


def encode(x: np.ndarray, dtype: DType, saturate: bool = True, rounding: str = "up") -> np.ndarray:
    """Round float values to `dtype`, as uint8 bits of the same shape.

    Out of range: the greatest value if `saturate`, else infinity or NaN as the format has it. `rounding` is e8m0's.
    """
    x = np.asarray(x, np.float32)
    if dtype.name == "f8e8m0":
        return _encode_power(x, saturate, rounding)
    table = values(dtype)
    half = table.size // 2
    magnitudes = table[:half][np.isfinite(table[:half])].astype(np.float64)
    size = np.abs(x.astype(np.float64))
    step = magnitudes[-1] - magnitudes[-2]
    low = np.clip(np.searchsorted(magnitudes, size, "right") - 1, 0, magnitudes.size - 2)
    distance = (size - magnitudes[low]) - (magnitudes[low + 1] - size)
    code = np.where((distance > 0) | ((distance == 0) & (low % 2 == 1)), low + 1, low)
    beyond = size >= magnitudes[-1] + step / 2
    beyond &= (size > magnitudes[-1] + step / 2) | ((magnitudes.size - 1) % 2 == 1)
    code = np.where(beyond, magnitudes.size - 1 if saturate or dtype.name == "f4e2m1" else _OVERFLOW[dtype.name], code)
    code = np.where(np.isnan(x), _NAN[dtype.name], code)
    negative = np.signbit(x) & ~np.isnan(x)
    if dtype.name.endswith("fnuz"):
        negative &= (code != 0) & (code != 0x80)
    return np.where(negative, code | half, code).astype(np.uint8)


def _encode_power(x: np.ndarray, saturate: bool, rounding: str) -> np.ndarray:
    """The exponent of |x|, rounded up, down or to the nearest power of two (ties up); NaN is 255."""
    mantissa, exponent = np.frexp(np.abs(x.astype(np.float64)))  # 0.5 <= mantissa < 1
    up = {"up": mantissa > 0.5, "down": np.zeros(x.shape, bool), "nearest": mantissa >= 0.75}[rounding]
    code = exponent - 1 + 127 + up
    code = np.where((x == 0) | (code < 0), 0, code)
    code = np.where((code > 254) | np.isinf(x), 254 if saturate else 255, code)
    return np.where(np.isnan(x), 255, code).astype(np.uint8)


_FORMATS = {"f8e4m3fn": (4, 3, 7), "f8e4m3fnuz": (4, 3, 8), "f8e5m2": (5, 2, 15), "f8e5m2fnuz": (5, 2, 16),
            "f4e2m1": (2, 1, 1)}  # fmt: skip
_OVERFLOW = {"f8e4m3fn": 0x7F, "f8e4m3fnuz": 0x80, "f8e5m2": 0x7C, "f8e5m2fnuz": 0x80}
_NAN = {"f8e4m3fn": 0x7F, "f8e4m3fnuz": 0x80, "f8e5m2": 0x7E, "f8e5m2fnuz": 0x80, "f4e2m1": 0x08}
