"""What a time depends on: the machine's fingerprint, and the GPU's clocks while it was taken (read only, by NVML)."""

from __future__ import annotations

import ctypes
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import UUID

PACKAGES = ("torch", "triton", "cuda-bindings", "numpy", "onnx", "onnxruntime")
SM, MEMORY = 1, 2  # nvmlClockType_t
REASONS = {0x4: "the power limit", 0x8: "the hardware", 0x20: "heat", 0x40: "heat", 0x80: "the power supply"}
BOOT = Path("/proc/sys/kernel/random/boot_id")


def fingerprint() -> dict[str, Any]:
    """The GPU, the driver, Python and the packages, and which boot of the machine this is."""
    from bessemer.device.cuda_devices import require_device

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "gpu": dict(require_device().fingerprint()), "python": platform.python_version(), "packages": versions,
        "boot": BOOT.read_text().strip()[:8] if BOOT.exists() else platform.node(),
    }  # fmt: skip


class _Process(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("bytes", ctypes.c_ulonglong), ("gpu", ctypes.c_uint), ("part", ctypes.c_uint))


def gpu_uuid() -> str:
    """The first GPU that CUDA shows this process, by NVML's name for it: NVML numbers those too that are hidden by
    CUDA_VISIBLE_DEVICES. DeviceError where there is none."""
    from bessemer.device.cuda_api import bindings

    api = bindings()
    return f"GPU-{UUID(bytes=api.call('cuDeviceGetUuid', api.call('cuDeviceGet', 0)).bytes)}"


def gpu_bytes(pid: int) -> int | None:
    """What a process holds of the memory of this one's first GPU, by NVML; None where NVML does not tell, or knows the
    process by another number. OSError where there is no NVML library."""
    nvml, gpu, count = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), ctypes.c_uint(64)
    found = (_Process * count.value)()
    calls = (("nvmlInit_v2",), ("nvmlDeviceGetHandleByUUID", gpu_uuid().encode(), ctypes.byref(gpu)),
             ("nvmlDeviceGetComputeRunningProcesses_v3", gpu, ctypes.byref(count), found))  # fmt: skip
    if any(getattr(nvml, name)(*args) for name, *args in calls):
        return None
    return next((int(p.bytes) for p in found[: count.value] if p.pid == pid), None)


class Clocks:
    """Samples of a GPU's clocks, in MHz, with its power and temperature."""

    def __init__(self, uuid: str) -> None:
        """`uuid` as gpu_uuid() gives it. OSError where there is no NVML library."""
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        self._handle = ctypes.c_void_p()
        self._ask("nvmlInit_v2")
        self._ask("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(self._handle))
        self.samples: list[dict[str, int]] = []

    def _ask(self, function: str, *args: Any) -> None:
        status = getattr(self._nvml, function)(*args)
        if status:
            raise OSError(f"{function} failed with status {status}")

    def _number(self, function: str, *args: Any) -> int:
        value = ctypes.c_uint()
        self._ask(function, self._handle, *args, ctypes.byref(value))
        return value.value

    def sample(self) -> None:
        """Take one; call it while the GPU works."""
        self.samples.append(
            {
                "sm_mhz": self._number("nvmlDeviceGetClockInfo", SM),
                "memory_mhz": self._number("nvmlDeviceGetClockInfo", MEMORY),
                "watts": self._number("nvmlDeviceGetPowerUsage") // 1000,
                "celsius": self._number("nvmlDeviceGetTemperature", 0),
            }
        )

    def lowered(self) -> set[str]:
        """Why the GPU's clocks are lower than they could be just now; nothing where they are not, or it is idle."""
        bits = ctypes.c_ulonglong()
        self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._handle, ctypes.byref(bits))
        return {reason for bit, reason in REASONS.items() if bits.value & bit}

    def summary(self) -> dict[str, list[int]]:
        """Least, middle and greatest of each figure since the last summary; empty where nothing was sampled."""
        taken, self.samples = self.samples, []
        out = {}
        for name in taken[0] if taken else ():
            seen = sorted(s[name] for s in taken)
            out[name] = [seen[0], seen[len(seen) // 2], seen[-1]]
        return out
