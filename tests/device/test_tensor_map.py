"""Tensor maps on a recorder in the driver's place: what is asked of it, and maps as arguments that move."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import DeviceError
from bessemer.core.tensor_map import BITS, TensorMap, Window
from bessemer.device.cuda import Device
from bessemer.device.cuda_kernel import Arguments, Kernel
from tests.device.test_cuda_driver import ABI, Recorder

MODES = (
    "CU_TENSOR_MAP_INTERLEAVE_NONE", "CU_TENSOR_MAP_SWIZZLE_128B", "CU_TENSOR_MAP_L2_PROMOTION_L2_256B",
    "CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE",
)  # fmt: skip
TILES = TensorMap((64, 100), (128,), (64, 32))


class Encoder(Recorder):
    """A recorder whose maps hold their tensor's address, as often as it fits."""

    def call(self, name: str, *args: Any) -> Any:
        result = super().call(name, *args)
        if name == "cuTensorMapReplaceAddress":
            ctypes.memmove(args[0], np.full(16, args[1], np.uint64).ctypes.data, 128)
        if not name.startswith("cuTensorMapEncode"):
            return result
        bytes_of = np.full(16, args[2], np.uint64)
        return SimpleNamespace(getPtr=lambda: bytes_of.ctypes.data)


def kernel_of(device: Device) -> Kernel:
    return device.load(b"cubin").kernel("k", {**ABI, "params": [BITS, 64], "scratch": []})


def held(args: Arguments, number: int) -> list[int]:
    """The 128 bytes that a launch would read for an argument."""
    at = int(np.ctypeslib.as_array((ctypes.c_uint64 * 2).from_address(args.address))[number])
    assert at % 64 == 0
    return np.ctypeslib.as_array((ctypes.c_uint64 * 16).from_address(at)).tolist()


def test_tiles_are_asked_of_the_driver() -> None:
    api = Encoder()
    Device(0, api).tensor_map(dt.bf16, 4096, TILES)
    assert api.calls[-1] == (
        "cuTensorMapEncodeTiled", "CU_TENSOR_MAP_DATA_TYPE_BFLOAT16", 2, 4096, [64, 100], [128], [64, 32], [1, 1],
        *MODES,
    )  # fmt: skip


def test_windows_are_asked_of_the_driver() -> None:
    api = Encoder()
    m = TensorMap((64, 7, 9, 2), (128, 896, 8064), (64, 128), window=Window((-1, 0), (-1, -2), (2, 1)))
    Device(0, api).tensor_map(dt.f16, 4096, m)
    assert api.calls[-1] == (
        "cuTensorMapEncodeIm2col", "CU_TENSOR_MAP_DATA_TYPE_FLOAT16", 4, 4096, [64, 7, 9, 2], [128, 896, 8064],
        [-1, 0], [-1, -2], 64, 128, [1, 2, 1, 1], *MODES,
    )  # fmt: skip


def test_a_map_is_an_argument_that_moves() -> None:
    api = Encoder()
    device = Device(0, api)
    args = kernel_of(device).arguments([device.tensor_map(dt.f16, 4096, TILES), 7])
    assert held(args, 0) == [4096] * 16
    args[0] = 8192
    assert held(args, 0) == [8192] * 16 and args.values[1] == 7
    assert api.names().count("cuTensorMapEncodeTiled") == 1


def test_maps_and_numbers_are_not_mixed_up() -> None:
    device = Device(0, Encoder())
    m = device.tensor_map(dt.f16, 4096, TILES)
    with pytest.raises(DeviceError, match="argument 1 of a kernel is a tensor map, it takes 64 bits"):
        kernel_of(device).arguments([m, m])
    with pytest.raises(DeviceError, match="argument 0 of a kernel is 4096, it takes a tensor map"):
        kernel_of(device).arguments([4096, 7])


def test_the_driver_says_why_it_refuses_a_map() -> None:
    with pytest.raises(DeviceError, match="cuTensorMapEncodeTiled"):
        Device(0, Encoder(fails=["cuTensorMapEncodeTiled"])).tensor_map(dt.f16, 4096, TILES)
