"""DLPack: an array by the C structure that its library fills.

A capsule (`__dlpack__`) serves every library. A type with `__dlpack_c_exchange_api__`, as torch's, offers a table of
C functions instead: one call fills the structure, in a microsecond where the capsule takes seven. It waits for nothing,
and tells the stream on which the library works. What differs between the two is the View's `producer`.

Source: dlpack.h 1.3 (github.com/dmlc/dlpack).
"""

from __future__ import annotations

import ctypes
from typing import Any
from weakref import WeakKeyDictionary

from bessemer.core import dtype as dt
from bessemer.core.errors import InputError
from bessemer.device.view import View, dense

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType
LEGACY_STREAM = 1  # what DLPack calls CUDA's default stream
MAJOR = 1  # version of the table of functions


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


class _Table(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("older", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p), ("managed_from", ctypes.c_void_p), ("managed_to", ctypes.c_void_p),
        ("tensor_from", ctypes.c_void_p), ("current_stream", ctypes.c_void_p),
    ]  # fmt: skip


_DTYPES = {
    (0, 8): dt.i8, (0, 16): dt.i16, (0, 32): dt.i32, (0, 64): dt.i64,
    (1, 8): dt.u8, (1, 16): dt.u16, (1, 32): dt.u32, (1, 64): dt.u64,
    (2, 16): dt.f16, (2, 32): dt.f32, (2, 64): dt.f64, (4, 16): dt.bf16, (6, 8): dt.bool_,
}  # fmt: skip

# Functions of our own: those of ctypes.pythonapi are shared with other libraries, and so are their types.
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_TensorFrom = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
_CurrentStream = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int32, ctypes.c_void_p)


def view(array: Any, stream: int | None) -> View:
    """The View of an array that offers DLPack, for use on `stream`. InputError where its library or type refuses."""
    functions = _functions_of(type(array))
    try:
        # What requires grad is left to the capsule, which refuses it.
        if functions is not None and not getattr(array, "requires_grad", False):
            return functions.view(array)
        return _by_capsule(array, stream)
    except (BufferError, RuntimeError) as error:
        raise InputError(f"{type(array).__name__} gives no DLPack: {error}", fix="detach() or copy it") from None


class _Functions:
    """A library's table of C functions."""

    def __init__(self, table: _Table) -> None:
        self._tensor_from = _TensorFrom(table.tensor_from)
        self._current_stream = _CurrentStream(table.current_stream)

    def view(self, array: Any) -> View:
        tensor, stream = _Tensor(), ctypes.c_void_p()
        self._tensor_from(array, ctypes.addressof(tensor))
        kind, ordinal = tensor.device.kind, tensor.device.ordinal
        device = _device(array, kind)
        if device == "cpu":
            return _view(tensor, device, ordinal, None, array)
        self._current_stream(kind, ordinal, ctypes.addressof(stream))
        return _view(tensor, device, ordinal, stream.value or 0, array)


_known: WeakKeyDictionary[type, _Functions | None] = WeakKeyDictionary()  # by type of arrays


def _functions_of(kind: type) -> _Functions | None:
    """The functions of a type of arrays, where it has some of a version that is known here."""
    if kind not in _known:
        _known[kind] = _offered(vars(kind).get("__dlpack_c_exchange_api__"))  # one that inherits them may hold others
    return _known[kind]


def _offered(capsule: Any) -> _Functions | None:
    if type(capsule).__name__ != "PyCapsule":
        return None
    address = _capsule_pointer(capsule, b"dlpack_exchange_api")
    while address:
        table = _Table.from_address(address)
        if table.major == MAJOR:
            return _Functions(table) if table.tensor_from and table.current_stream else None
        address = table.older
    return None


def _by_capsule(array: Any, stream: int | None) -> View:
    """The tensor in a capsule (legacy form), after letting `stream` wait for the library's own work on it. The capsule
    is not consumed: its own destructor frees it, so keeping it keeps the memory."""
    kind, ordinal = (int(v) for v in array.__dlpack_device__())
    device = _device(array, kind)
    capsule = array.__dlpack__(stream=(stream or LEGACY_STREAM)) if device == "cuda" else array.__dlpack__()
    address = _capsule_pointer(capsule, b"dltensor")
    assert address is not None
    return _view(_Tensor.from_address(address), device, ordinal, None, (array, capsule))


def _device(array: Any, kind: int) -> str:
    if kind not in (CPU, CUDA, CUDA_HOST, CUDA_MANAGED):
        raise InputError(f"{type(array).__name__} is on a device of DLPack type {kind}", fix="move it to CPU or GPU")
    return "cuda" if kind in (CUDA, CUDA_MANAGED) else "cpu"


def _view(tensor: _Tensor, device: str, ordinal: int, producer: int | None, owner: Any) -> View:
    dtype = _DTYPES.get((tensor.type.code, tensor.type.bits))
    if dtype is None or tensor.type.lanes != 1:
        raise InputError(f"DLPack type {tensor.type.code} of {tensor.type.bits} bits has no Bessemer dtype")
    shape = tuple(tensor.shape[: tensor.rank])
    strides = tuple(tensor.strides[: tensor.rank]) if tensor.strides else dense(shape)
    where = int(tensor.data or 0) + int(tensor.offset)
    return View(device, ordinal, where, shape, strides, dtype, True, producer, owner)
