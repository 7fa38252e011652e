"""A CUDA driver that counts calls, and another library's arrays on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from bessemer.device.cuda import Device
from bessemer.device.cuda_api import Api


class Counting:
    """A driver that writes down the calls which pass."""

    def __init__(self, inner: Api) -> None:
        self.inner = inner
        self.calls: list[tuple[Any, ...]] = []
        self.constant, self.struct = inner.constant, inner.struct

    def call(self, name: str, *args: Any) -> Any:
        result = self.inner.call(name, *args)
        self.calls.append((name, *args))
        return result

    def names(self) -> list[str]:
        """The calls since the last question."""
        found, self.calls = [c[0] for c in self.calls], []
        return found


class OnGpu:
    """An array of another library: memory on the GPU and __cuda_array_interface__."""

    def __init__(self, api: Counting, array: np.ndarray, producer: int | None = None) -> None:
        self.device, self.array = Device(0, api), array
        self.address = self.device.alloc(array.nbytes)
        self.device.upload(self.address, array.ctypes.data, array.nbytes)
        self.__cuda_array_interface__ = {
            "data": (self.address, False), "shape": array.shape, "typestr": array.dtype.str, "version": 3,
            "stream": producer,
        }  # fmt: skip

    def get(self) -> np.ndarray:
        out = np.empty_like(self.array)
        self.device.synchronize()
        self.device.download(out.ctypes.data, self.address, out.nbytes)
        return out
