"""Arrays of other libraries by address, without a copy: numpy, `__cuda_array_interface__`, and DLPack.

    view = view_of(array)            # device "cpu" or "cuda", address, shape, strides in elements, dtype
    view.contiguous

A View keeps the array alive. torch, cupy, jax and numpy arrays all have one of the three protocols.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.core.errors import InputError
from bessemer.device import dlpack
from bessemer.device.view import View, dense


def view_of(array: Any, stream: int | None = None) -> View:
    """The View of any array. InputError says what the object lacks.

    `stream` is the CUDA stream (an integer handle) that will use the memory. By DLPack, which comes first for that, the
    array's library lets that stream wait for its own work on the array; otherwise `producer` is left to wait for."""
    if isinstance(array, np.ndarray):
        return _numpy(array)
    if offers(array, "__dlpack__") and offers(array, "__dlpack_device__"):
        return dlpack.view(array, stream)
    if offers(array, "__cuda_array_interface__"):
        return _cuda_array(array)
    if offers(array, "__array_interface__"):
        return _numpy(np.asarray(array))
    raise InputError(
        f"{type(array).__name__} is no array",
        fix="give a numpy array, or an object with __dlpack__ or __cuda_array_interface__",
    )


def offers(array: Any, protocol: str) -> bool:
    """Whether the array has a protocol's attribute. InputError where its library refuses to show it, as torch does with
    a tensor that requires grad."""
    try:
        return hasattr(array, protocol)
    except (BufferError, RuntimeError) as error:
        raise InputError(f"{type(array).__name__} gives no {protocol}: {error}", fix="detach() or copy it") from None


def storage(view: View) -> np.ndarray:
    """The memory of an array on the host as a numpy array, which keeps the array alive; bf16 as uint16 bits."""
    last = sum((size - 1) * stride for size, stride in zip(view.shape, view.strides))
    itemsize = view.dtype.itemsize
    memory = (ctypes.c_uint8 * ((last + 1) * itemsize if view.nbytes else 0)).from_address(view.address)
    memory.owner = view  # type: ignore[attr-defined]
    flat: np.ndarray = np.frombuffer(memoryview(memory).cast("B"), view.dtype.numpy)
    return np.lib.stride_tricks.as_strided(flat, view.shape, [s * itemsize for s in view.strides])


def _dtype(array: Any, numpy_dtype: np.dtype[Any]) -> DType:
    if numpy_dtype.byteorder not in "=|" and not numpy_dtype.isnative:
        raise InputError(f"{type(array).__name__} has the foreign byte order {numpy_dtype}", fix="give native arrays")
    if numpy_dtype.name == "bfloat16":
        return dt.bf16
    try:
        return dt.from_numpy(numpy_dtype)
    except TypeError as error:
        raise InputError(str(error)) from None


def _elements(strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    if any(s % itemsize for s in strides):
        raise InputError(f"strides of {strides} bytes do not fit elements of {itemsize}", fix="copy the array")
    return tuple(s // itemsize for s in strides)


def _numpy(array: np.ndarray) -> View:
    dtype = _dtype(array, array.dtype)
    strides = _elements(array.strides, array.dtype.itemsize)
    return View("cpu", 0, array.ctypes.data, array.shape, strides, dtype, bool(array.flags.writeable), None, array)


def _cuda_array(array: Any) -> View:
    found = array.__cuda_array_interface__
    address, read_only = found["data"]
    shape = tuple(int(s) for s in found["shape"])
    kind = np.dtype(found["typestr"])
    bf16 = "bfloat16" in str(getattr(array, "dtype", ""))  # the protocol only calls it two opaque bytes
    dtype = dt.bf16 if bf16 else _dtype(array, kind)
    given = found.get("strides")
    strides = dense(shape) if given is None else _elements(tuple(int(s) for s in given), kind.itemsize)
    stream = found.get("stream")
    return View("cuda", _ordinal(array), int(address or 0), shape, strides, dtype, not read_only, stream, array)


def _ordinal(array: Any) -> int:
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[1])
    return 0
