"""Element types. A dtype is named by a short string ("f32") and knows its size, its numpy type and its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class DType:
    """One element type.

    `name` is the IR's spelling, `bits` the storage width, `kind` one of "f" (float), "i" (signed), "u" (unsigned),
    "b" (bool), "c" (complex), "s" (string, host only) and "n" (narrow: floats of 8 and 4 bits, integers of 4 and 2:
    stored one value per byte, converted by casts and never computed with).
    """

    name: str
    bits: int
    kind: str

    @property
    def itemsize(self) -> int:
        """Bytes per element (sub-byte types are stored one per byte until packing says otherwise)."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        return self.kind in "iu"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype. bf16 and the 8-bit floats have none of their own: they are carried as raw bits."""
        return np.dtype(_NUMPY[self.name])

    def __str__(self) -> str:
        return self.name


f64, f32, f16, bf16 = DType("f64", 64, "f"), DType("f32", 32, "f"), DType("f16", 16, "f"), DType("bf16", 16, "f")
i64, i32, i16, i8 = DType("i64", 64, "i"), DType("i32", 32, "i"), DType("i16", 16, "i"), DType("i8", 8, "i")
u64, u32, u16, u8 = DType("u64", 64, "u"), DType("u32", 32, "u"), DType("u16", 16, "u"), DType("u8", 8, "u")
bool_ = DType("bool", 8, "b")
c64, c128 = DType("c64", 64, "c"), DType("c128", 128, "c")
string = DType("string", 64, "s")
i4, u4, i2, u2 = DType("i4", 4, "n"), DType("u4", 4, "n"), DType("i2", 2, "n"), DType("u2", 2, "n")
f8e4m3fn, f8e4m3fnuz = DType("f8e4m3fn", 8, "n"), DType("f8e4m3fnuz", 8, "n")
f8e5m2, f8e5m2fnuz = DType("f8e5m2", 8, "n"), DType("f8e5m2fnuz", 8, "n")
f8e8m0, f4e2m1 = DType("f8e8m0", 8, "n"), DType("f4e2m1", 4, "n")
NARROW = (i4, u4, i2, u2, f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz, f8e8m0, f4e2m1)

ALL: dict[str, DType] = {
    t.name: t
    for t in (f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, bool_, c64, c128, string, *NARROW)
}

_NUMPY = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "uint16",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
    "bool": "bool", "c64": "complex64", "c128": "complex128", "string": "object",
    **{t.name: "int8" if t in (i4, i2) else "uint8" for t in NARROW},
}  # fmt: skip
_FROM_NUMPY = {np.dtype(v): ALL[k] for k, v in _NUMPY.items() if k != "bf16" and ALL[k] not in NARROW}


def parse(name: str) -> DType:
    """The dtype called `name`; raises KeyError naming the known ones."""
    try:
        return ALL[name]
    except KeyError:
        raise KeyError(f"unknown dtype {name!r}; known: {', '.join(ALL)}") from None


def from_numpy(dtype: np.dtype[Any] | type) -> DType:
    """The DType of a numpy dtype (uint16 is u16: bf16 is never guessed); raises TypeError for types with none."""
    found = _FROM_NUMPY.get(np.dtype(dtype))
    if found is None:
        if np.dtype(dtype).kind in "US":
            return string
        raise TypeError(f"numpy dtype {dtype} has no Bessemer dtype; known: {', '.join(ALL)}")
    return found


def accumulator(dtype: DType) -> DType:
    """The type that sums over `dtype` are kept in: f32 for the 16-bit floats, else `dtype` itself."""
    return f32 if dtype in (f16, bf16) else dtype


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Round float values to bfloat16 (nearest even), as uint16 bits. NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16).reshape(np.shape(values))


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits (uint16) as float32; exact."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(bits.shape)
