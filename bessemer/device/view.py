"""Where an array of any library is: device, address, shape, strides and dtype."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bessemer.core.dtype import DType


@dataclass(frozen=True, slots=True)
class View:
    """Where an array is. `strides` are in elements; `owner` is whatever keeps the memory.

    `producer` is the stream whose work must end before the array is used, where its library names one."""

    device: str  # "cpu" or "cuda"
    ordinal: int
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType
    writable: bool = True
    producer: int | None = None
    owner: Any = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, laid out densely."""
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count

    @property
    def contiguous(self) -> bool:
        """Whether the elements are dense and row-major."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1 and stride != expected and self.nbytes:
                return False
            expected *= size
        return True


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
