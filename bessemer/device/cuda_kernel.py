"""Kernels: loaded modules, the arguments of a launch in the driver's form, and the launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bessemer.core.errors import DeviceError
from bessemer.core.tensor_map import BITS
from bessemer.device.cuda_stream import Stream
from bessemer.device.tensor_map import EncodedMap

if TYPE_CHECKING:
    from bessemer.device.cuda import Device

STATIC_SHARED = 48 << 10  # bytes of shared memory that need no opting in


class Module:
    """A loaded cubin."""

    def __init__(self, device: Device, cubin: bytes | memoryview) -> None:
        self._device = device
        image = np.frombuffer(cubin, np.uint8)
        self._handle = device.api.call("cuModuleLoadData", image.ctypes.data)

    def kernel(self, symbol: str, abi: Mapping[str, Any]) -> Kernel:
        """A kernel of the module; DeviceError where it has none of that name or needs too much shared memory."""
        return Kernel(self._device, self._device.api.call("cuModuleGetFunction", self._handle, symbol.encode()), abi)

    def close(self) -> None:
        """Unload it; its kernels must not be launched any more."""
        self._device.api.call("cuModuleUnload", self._handle)


class Arguments:
    """The arguments of one launch, in memory that the driver reads when the launch is queued (or captured).

    Assignment by number patches one; a tensor map is moved to an address that is assigned to it. The hidden pointers
    to scratch memory follow the kernel's own arguments."""

    def __init__(self, bits: Sequence[int], hidden: int) -> None:
        self._bits = tuple(bits)
        self.values = np.zeros(len(self._bits) + hidden, np.int64)
        self._pointers = self.values.ctypes.data + 8 * np.arange(len(self.values), dtype=np.uint64)
        self.address = self._pointers.ctypes.data
        self._maps: dict[int, EncodedMap] = {}

    def __setitem__(self, number: int, value: int | EncodedMap) -> None:
        if self._bits[number] == BITS:
            self._set_map(number, value)
            return
        if isinstance(value, EncodedMap):
            raise DeviceError(f"argument {number} of a kernel is a tensor map, it takes {self._bits[number]} bits")
        if self._bits[number] == 32 and not -(2**31) <= value < 2**32:
            raise DeviceError(f"argument {number} of a kernel is {value}, which does not fit into 32 bits")
        self.values[number] = value

    def __len__(self) -> int:
        return len(self._bits)

    def _set_map(self, number: int, value: int | EncodedMap) -> None:
        if isinstance(value, EncodedMap):
            self._maps[number], self._pointers[number] = value, value.address
        elif number in self._maps:
            self._maps[number].move(value)
        else:
            raise DeviceError(f"argument {number} of a kernel is {value}, it takes a tensor map")

    def scratch(self, number: int, address: int) -> None:
        """Give the kernel its hidden scratch memory `number`."""
        self.values[len(self._bits) + number] = address


class Kernel:
    """A kernel that can be launched."""

    def __init__(self, device: Device, function: Any, abi: Mapping[str, Any]) -> None:
        self.api, self.function = device.api, function
        self.threads, self.shared = 32 * int(abi["warps"]), int(abi["shared"])
        self._bits = tuple(int(b) for b in abi["params"])
        self._scratch = tuple((int(size), int(align)) for size, align in abi["scratch"])
        self.pdl = bool(abi.get("pdl", False))
        if self.shared > device.info.shared_bytes:
            raise DeviceError(
                f"a kernel needs {self.shared} bytes of shared memory, {device.info.name} has "
                f"{device.info.shared_bytes} per block", fix="build the engine for this GPU",
            )  # fmt: skip
        if self.shared > STATIC_SHARED:
            self._allow("MAX_DYNAMIC_SHARED_SIZE_BYTES", self.shared)

    def arguments(self, values: Sequence[int | EncodedMap]) -> Arguments:
        """Packed arguments: addresses, integers and tensor maps in the order of the launch."""
        if len(values) != len(self._bits):
            raise DeviceError(f"a kernel of {len(self._bits)} arguments is given {len(values)}")
        out = Arguments(self._bits, len(self._scratch))
        for number, value in enumerate(values):
            out[number] = value
        return out

    def scratch_bytes(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Bytes of each hidden scratch memory that a launch over `grid` needs (0: none, its pointer stays null)."""
        programs = int(np.prod(grid, dtype=np.int64))
        return tuple(size * programs for size, _ in self._scratch)

    def launch(self, grid: Sequence[int], args: Arguments, stream: Stream) -> None:
        """Queue the kernel over up to three dims of programs; an empty grid launches nothing."""
        gx, gy, gz = (*grid, 1, 1)[:3]
        if not (gx and gy and gz):
            return
        if self.pdl:
            config = self._config((gx, gy, gz), stream)
            self.api.call("cuLaunchKernelEx", config, self.function, args.address, 0)
        else:
            self.api.call(
                "cuLaunchKernel", self.function, gx, gy, gz, self.threads, 1, 1, self.shared, stream.handle,
                args.address, 0,
            )  # fmt: skip
        if stream.recording is not None:
            stream.recording.mark()

    def _config(self, grid: tuple[int, int, int], stream: Stream) -> Any:
        """A launch that may begin while the one before it still runs; the kernel itself waits for its data."""
        attribute = self.api.struct("CUlaunchAttribute")
        attribute.id = self.api.constant("CUlaunchAttributeID", "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION")
        attribute.value.programmaticStreamSerializationAllowed = 1
        config = self.api.struct("CUlaunchConfig")
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = self.threads, 1, 1
        config.sharedMemBytes, config.hStream = self.shared, stream.handle
        config.attrs, config.numAttrs = [attribute], 1
        return config

    def _allow(self, name: str, value: int) -> None:
        member = self.api.constant("CUfunction_attribute", f"CU_FUNC_ATTRIBUTE_{name}")
        self.api.call("cuFuncSetAttribute", self.function, member, value)
