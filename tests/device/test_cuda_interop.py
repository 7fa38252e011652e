"""Arrays of other libraries, by address."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import InputError
from bessemer.device.interop import view_of


class OnGpu:
    """What cupy shows of an array."""

    def __init__(self, **fields: Any) -> None:
        plain = {"data": (4096, False), "shape": (2, 3), "typestr": "<f4", "version": 3}
        self.__cuda_array_interface__ = {**plain, **fields}


def test_numpy_by_address() -> None:
    a = np.arange(12, dtype=np.int64).reshape(3, 4)
    view = view_of(a)
    assert (view.device, view.address, view.shape, view.strides) == ("cpu", a.ctypes.data, (3, 4), (4, 1))
    assert view.dtype == dt.i64 and view.contiguous and view.writable and view.nbytes == 96
    turned = view_of(a.T)
    assert turned.strides == (1, 4) and not turned.contiguous
    a.flags.writeable = False
    assert not view_of(a).writable


def test_unit_and_empty_axes_are_contiguous() -> None:
    assert view_of(np.zeros((4, 1, 3))[:, ::-1]).contiguous
    assert view_of(np.zeros((0, 5))[:, ::2]).contiguous
    assert not view_of(np.zeros((4, 6))[:, ::2]).contiguous


def test_cuda_array_interface() -> None:
    view = view_of(OnGpu())
    assert (view.device, view.address, view.strides, view.dtype) == ("cuda", 4096, (3, 1), dt.f32)
    view = view_of(OnGpu(strides=(4, 8), stream=7, data=(4096, True)))
    assert view.strides == (1, 2) and view.producer == 7 and not view.writable


def test_bfloat16_of_torch_by_cuda_array_interface() -> None:
    array = OnGpu(typestr="<V2")
    array.dtype = "torch.bfloat16"
    assert view_of(array).dtype == dt.bf16


@pytest.mark.torch
def test_torch_on_the_cpu_by_dlpack() -> None:
    import torch

    for torch_dtype, dtype in ((torch.float32, dt.f32), (torch.bfloat16, dt.bf16), (torch.bool, dt.bool_)):
        t = torch.zeros(4, 6, dtype=torch_dtype)[1:, ::2]
        view = view_of(t)
        assert (view.device, view.address, view.shape, view.strides) == ("cpu", t.data_ptr(), (3, 3), (6, 2))
        assert view.dtype == dtype
    with pytest.raises(InputError, match="detach"):
        view_of(torch.zeros(3, requires_grad=True))


class Refusing:
    """What torch shows of a tensor on a GPU that requires grad."""

    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")


def test_a_library_that_refuses_is_cited() -> None:
    with pytest.raises(InputError, match="requires grad") as caught:
        view_of(Refusing())
    assert caught.value.fix == "detach() or copy it"


class Capsuled:
    """An array that offers DLPack alone, on a device of choice."""

    def __init__(self, array: np.ndarray, kind: int = 1) -> None:
        self.array, self.kind = array, kind

    def __dlpack__(self, **_: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 2


def test_dlpack_keeps_the_memory() -> None:
    array = np.arange(5, dtype=np.float32)
    view = view_of(Capsuled(array, kind=2))
    assert (view.device, view.ordinal, view.address, view.dtype) == ("cuda", 2, array.ctypes.data, dt.f32)
    assert view.owner is not None


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (3, "int is no array"),
        (np.zeros(3, np.complex128).astype("<c8").view("V8"), "has no Bessemer dtype"),
        (np.zeros(3, ">f4"), "byte order"),
        (np.zeros(3, [("a", "<i2"), ("b", "<i4")])["b"], "strides of"),
        (Capsuled(np.zeros(3), kind=10), "device of DLPack type 10"),
    ],
)
def test_what_is_no_array_is_said(array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        view_of(array)
