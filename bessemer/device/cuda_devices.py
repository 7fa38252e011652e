"""The NVIDIA GPUs of this machine, and what is known of them without a context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.core.errors import DeviceError
from bessemer.device.cuda_api import Api, bindings


@dataclass(frozen=True)
class DeviceInfo:
    """What is known of a GPU without a context on it. `driver` is the CUDA version it supports, e.g. "13.0"."""

    ordinal: int
    name: str
    arch: str
    sms: int
    shared_bytes: int  # per block, opted in
    l2_bytes: int
    memory_bytes: int
    driver: str

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-ready: for engines and reports."""
        return {
            "name": self.name, "arch": self.arch, "sms": self.sms, "memory_bytes": self.memory_bytes,
            "driver": self.driver,
        }  # fmt: skip


def devices(api: Api | None = None) -> list[DeviceInfo]:
    """All GPUs; DeviceError where there is no driver."""
    api = api or bindings()
    return [_info(api, k) for k in range(api.call("cuDeviceGetCount"))]


def find_device(ordinal: int = 0) -> DeviceInfo | None:
    """The GPU with that number, or None where this machine has none (or no driver, or no binding)."""
    try:
        found = devices()
    except DeviceError:
        return None
    return found[ordinal] if ordinal < len(found) else None


def require_device(ordinal: int = 0, api: Api | None = None) -> DeviceInfo:
    """The GPU with that number; DeviceError says why there is none, and what to do."""
    found = devices(api)
    if ordinal >= len(found):
        raise DeviceError(
            f"there is no GPU number {ordinal}: this machine shows {len(found)}",
            fix="use a lower number, or look at CUDA_VISIBLE_DEVICES",
        )
    return found[ordinal]


def _info(api: Api, ordinal: int) -> DeviceInfo:
    handle = api.call("cuDeviceGet", ordinal)

    def attribute(name: str) -> int:
        member = api.constant("CUdevice_attribute", f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(api.call("cuDeviceGetAttribute", member, handle))

    version = int(api.call("cuDriverGetVersion"))
    return DeviceInfo(
        ordinal, api.call("cuDeviceGetName", 256, handle).split(b"\0")[0].decode(),
        f"sm_{attribute('COMPUTE_CAPABILITY_MAJOR')}{attribute('COMPUTE_CAPABILITY_MINOR')}",
        attribute("MULTIPROCESSOR_COUNT"), attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"), attribute("L2_CACHE_SIZE"),
        int(api.call("cuDeviceTotalMem", handle)), f"{version // 1000}.{version % 1000 // 10}",
    )  # fmt: skip
