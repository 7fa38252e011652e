"""The CUDA driver behind one call: `api.call("cuMemAlloc", nbytes)` gives the results, or raises DeviceError.

Everything that Bessemer asks of a GPU goes through an `Api`, so a test can put a recorder in its place. Handles and
addresses are what the binding returns or plain integers; the binding takes both.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from bessemer.core.errors import DeviceError

NO_BINDING = "the CUDA binding is not installed"
NO_DRIVER = "there is no NVIDIA driver on this machine"
NO_DEVICE = "there is no NVIDIA GPU on this machine"
FIXES = {
    "CUDA_ERROR_OUT_OF_MEMORY": "free memory on the GPU, or build with a smaller profile",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "build the engine for this GPU's architecture",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "update the NVIDIA driver",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "make the NVIDIA driver's kernel module and library the same version",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "the process must be restarted: no CUDA call works after this",
}


NEWEST = {  # bindings before 13 give the form that knows of programmatic edges another name
    "cuStreamGetCaptureInfo": "cuStreamGetCaptureInfo_v3",
}


class Api(Protocol):
    """The driver: one function, by name. `constant` gives a member of an enum, `struct` a new structure."""

    def call(self, name: str, *args: Any) -> Any:
        """The results of a driver function without its return code: None, one value, or a tuple."""

    def constant(self, enum: str, member: str) -> Any:
        """A member of one of the driver's enums."""

    def struct(self, name: str, *value: int) -> Any:
        """A new driver structure: zeroed, or of a number, or at a host address."""


class Bindings:
    """The driver of this machine, by NVIDIA's cuda-bindings; DeviceError where there is none."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise DeviceError(f"{NO_BINDING}: {error}", fix="pip install 'bessemer[cuda]'") from None
        self._driver = driver
        self._functions: dict[str, Any] = {}
        self.call("cuInit", 0)

    def call(self, name: str, *args: Any) -> Any:
        function = self._functions.get(name)
        if function is None:
            newest = getattr(self._driver, NEWEST.get(name, name), None)
            function = self._functions[name] = newest or getattr(self._driver, name)
        try:
            code, *results = function(*args)
        except RuntimeError as error:  # the binding's own: the library or the function is missing
            raise _absent(name, error) from None
        if code:
            raise self._error(name, code)
        return None if not results else results[0] if len(results) == 1 else tuple(results)

    def constant(self, enum: str, member: str) -> Any:
        return getattr(getattr(self._driver, enum), member)

    def struct(self, name: str, *value: int) -> Any:
        return getattr(self._driver, name)(*value)

    def _error(self, name: str, code: Any) -> DeviceError:
        shown = [self._text(f, code) for f in ("cuGetErrorName", "cuGetErrorString")]
        if shown[0] == "CUDA_ERROR_NO_DEVICE":
            return DeviceError(NO_DEVICE, where=name, fix="build for cuda:sm_XX and run on a machine with a GPU")
        return DeviceError(f"{name} failed: {shown[0]}: {shown[1]}", fix=FIXES.get(shown[0]))

    def _text(self, function: str, code: Any) -> str:
        failed, text = getattr(self._driver, function)(code)
        return str(int(code)) if failed or text is None else text.decode()


@cache
def bindings() -> Api:
    """The driver of this machine, started once."""
    return Bindings()


def _absent(name: str, error: RuntimeError) -> DeviceError:
    if name == "cuInit":
        fix = "install the NVIDIA driver, or build for cuda:sm_XX and run on a machine with a GPU"
        return DeviceError(f"{NO_DRIVER}: {error}", fix=fix)
    return DeviceError(f"{name}: {error}", fix="update the NVIDIA driver")
