"""DLPack by a table of C functions: a library of our own that offers one, and torch."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import InputError
from bessemer.device import dlpack
from bessemer.device.interop import view_of

SHAPE, STRIDES = (ctypes.c_int64 * 2)(4, 6), (ctypes.c_int64 * 2)(12, 2)
STREAM = 77
NAME = b"dlpack_exchange_api"
new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def fill(array: Any, target: int) -> int:
    tensor = dlpack._Tensor.from_address(target)
    tensor.data, tensor.rank, tensor.offset = 4096, 2, 64
    tensor.device.kind, tensor.device.ordinal = array.kind, 1
    tensor.type.code, tensor.type.bits, tensor.type.lanes = 2, 16, 1
    tensor.shape = ctypes.cast(SHAPE, ctypes.POINTER(ctypes.c_int64))
    tensor.strides = ctypes.cast(STRIDES, ctypes.POINTER(ctypes.c_int64)) if array.strided else None
    return 0


def current_stream(kind: int, ordinal: int, target: int) -> int:
    assert (kind, ordinal) == (2, 1)
    ctypes.c_void_p.from_address(target).value = STREAM
    return 0


CALLBACKS = dlpack._TensorFrom(fill), dlpack._CurrentStream(current_stream)


def table(major: int, older: dlpack._Table | None = None) -> dlpack._Table:
    functions = [ctypes.cast(f, ctypes.c_void_p).value for f in CALLBACKS]
    return dlpack._Table(major, 0, ctypes.addressof(older) if older is not None else None, None, None, None, *functions)


OLD = table(1)
NEW = table(2, OLD)
LATER = table(2)


class Offering:
    """An array whose type offers functions; its capsule would be refused."""

    __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(OLD), NAME, None)

    def __init__(self, kind: int = 2, strided: bool = True) -> None:
        self.kind, self.strided = kind, strided

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("ask the functions")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 1


class OfTwoVersions(Offering):
    __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(NEW), NAME, None)


class OfALaterVersion(Offering):
    __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(LATER), NAME, None)


class Inheriting(Offering):
    pass


@pytest.mark.parametrize("kind", [Offering, OfTwoVersions])
def test_functions_fill_the_view(kind: type[Offering]) -> None:
    array = kind()
    view = view_of(array)
    assert (view.device, view.ordinal, view.address, view.dtype) == ("cuda", 1, 4160, dt.f16)
    assert (view.shape, view.strides, view.producer, view.owner) == ((4, 6), (12, 2), STREAM, array)
    assert view_of(kind(strided=False)).strides == (6, 1)
    assert view_of(kind(1)).device == "cpu" and view_of(kind(1)).producer is None
    with pytest.raises(InputError, match="device of DLPack type 10"):
        view_of(kind(10))


@pytest.mark.parametrize("kind", [OfALaterVersion, Inheriting])
def test_the_capsule_where_functions_are_of_a_later_version_or_of_a_base(kind: type[Offering]) -> None:
    with pytest.raises(InputError, match="ask the functions"):
        view_of(kind())


@pytest.mark.torch
def test_torch_gives_the_same_either_way() -> None:
    import torch

    if dlpack._functions_of(torch.Tensor) is None:
        pytest.skip(f"torch {torch.__version__} offers no table of functions")
    for t in (torch.zeros(4, 6)[1:, ::2], torch.zeros(3, dtype=torch.bfloat16), torch.zeros(()), torch.zeros(0, 5)):
        fast, slow = view_of(t), dlpack._by_capsule(t, None)
        assert fast == slow and fast.owner is t
