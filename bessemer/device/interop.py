"""Arrays of other libraries by address, without a copy: numpy, `__cuda_array_interface__`, and DLPack.

    view = view_of(array)            # device "cpu" or "cuda", address, shape, strides in elements, dtype
    view.contiguous

A View keeps the array alive. torch, cupy, jax and numpy arrays all have one of the three protocols.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.core.errors import InputError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType
LEGACY_STREAM = 1  # what DLPack calls CUDA's default stream


@dataclass(frozen=True)
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


def view_of(array: Any, stream: int | None = None) -> View:
    """The View of any array. InputError says what the object lacks.

    `stream` is the CUDA stream (an integer handle) that will use the memory. By DLPack, which comes first for that, the
    array's library lets that stream wait for its own work on the array; otherwise `producer` is left to wait for."""
    if isinstance(array, np.ndarray):
        return _numpy(array)
    if offers(array, "__dlpack__") and offers(array, "__dlpack_device__"):
        return _dlpack(array, stream)
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


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


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
    strides = _dense(shape) if given is None else _elements(tuple(int(s) for s in given), kind.itemsize)
    stream = found.get("stream")
    return View("cuda", _ordinal(array), int(address or 0), shape, strides, dtype, not read_only, stream, array)


def _ordinal(array: Any) -> int:
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[1])
    return 0


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("ordinal", ctypes.c_int32)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device", _Device), ("rank", ctypes.c_int32), ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]  # fmt: skip


_DTYPES = {
    (0, 8): dt.i8, (0, 16): dt.i16, (0, 32): dt.i32, (0, 64): dt.i64,
    (1, 8): dt.u8, (1, 16): dt.u16, (1, 32): dt.u32, (1, 64): dt.u64,
    (2, 16): dt.f16, (2, 32): dt.f32, (2, 64): dt.f64, (4, 16): dt.bf16, (6, 8): dt.bool_,
}  # fmt: skip


# A function of our own: that of ctypes.pythonapi is shared with other libraries, and so are its types.
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _dlpack(array: Any, stream: int | None) -> View:
    """The tensor in a DLPack capsule (legacy form). The capsule is not consumed: its own destructor frees it, so
    keeping it keeps the memory."""
    kind, ordinal = (int(v) for v in array.__dlpack_device__())
    if kind not in (CPU, CUDA, CUDA_HOST, CUDA_MANAGED):
        raise InputError(f"{type(array).__name__} is on a device of DLPack type {kind}", fix="move it to CPU or GPU")
    on_gpu = kind in (CUDA, CUDA_MANAGED)
    try:
        capsule = array.__dlpack__(stream=(stream or LEGACY_STREAM)) if on_gpu else array.__dlpack__()
    except (BufferError, RuntimeError) as error:
        raise InputError(f"{type(array).__name__} gives no DLPack: {error}", fix="detach() or copy it") from None
    address = _capsule_pointer(capsule, b"dltensor")
    assert address is not None
    tensor = _Tensor.from_address(address)
    dtype = _DTYPES.get((tensor.type.code, tensor.type.bits))
    if dtype is None or tensor.type.lanes != 1:
        raise InputError(f"DLPack type {tensor.type.code} of {tensor.type.bits} bits has no Bessemer dtype")
    shape = tuple(int(tensor.shape[k]) for k in range(tensor.rank))
    strides = tuple(int(tensor.strides[k]) for k in range(tensor.rank)) if tensor.strides else _dense(shape)
    where = int(tensor.data or 0) + int(tensor.offset)
    return View("cuda" if on_gpu else "cpu", ordinal, where, shape, strides, dtype, True, None, (array, capsule))
