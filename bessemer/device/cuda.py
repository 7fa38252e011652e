"""NVIDIA GPUs: memory, streams, events, kernels and captured graphs, over the driver alone.

    device = Device(0)                                   # DeviceError, with the fix, where there is no GPU
    module = device.load(cubin)
    kernel = module.kernel(symbol, abi)                  # abi: CompiledKernel.abi, as stored in the engine
    args = kernel.arguments([address, 128, ...])         # one value per launch argument: addresses, integers and maps
    stream = device.stream()
    kernel.launch((gx, gy, gz), args, stream)
    stream.synchronize()

    with stream.capture() as graph:                      # nothing runs, launches become nodes
        kernel.launch(grid, args, stream)
    graph.launch(stream)                                 # again and again
    args[0] = other; graph.update(0, kernel, grid, args) # the launch with number 0 gets other arguments

Call `device.activate()` once in every thread before anything else (`Device()` does so for its own). No method
allocates on the GPU but `alloc`, `pinned` and the making of streams, events, modules and graphs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from bessemer.core.dtype import DType
from bessemer.core.errors import DeviceError
from bessemer.core.tensor_map import BITS, TensorMap
from bessemer.device.cuda_api import Api, Bindings
from bessemer.device.cuda_graph import Capture
from bessemer.device.tensor_map import EncodedMap

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no ordering with the default stream
STATIC_SHARED = 48 << 10  # bytes of shared memory that need no opting in


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


@cache
def bindings() -> Api:
    """The driver of this machine, started once."""
    return Bindings()


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


class Device:
    """A GPU with its primary context (the one that torch and cupy use too), current in this thread.

    A context that nobody made before sets no stack aside for kernels that cannot tell how much they need: 1 KB of each
    thread that may be resident, 264 of the 518 MB that a context takes on an H200. The compiler knows what the kernels
    of engines need, and the driver sees to that."""

    def __init__(self, ordinal: int = 0, api: Api | None = None) -> None:
        self.api = api or bindings()
        self.info = require_device(ordinal, self.api)
        self._handle = self.api.call("cuDeviceGet", ordinal)
        _, made = self.api.call("cuDevicePrimaryCtxGetState", self._handle)
        self._context = self.api.call("cuDevicePrimaryCtxRetain", self._handle)
        self.activate()
        if not made:
            self.api.call("cuCtxSetLimit", self.api.constant("CUlimit", "CU_LIMIT_STACK_SIZE"), 0)

    def activate(self) -> None:
        """Make the device current in the calling thread."""
        self.api.call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        """Give the context back. What was made on it must be closed before."""
        self.api.call("cuDevicePrimaryCtxRelease", self._handle)

    def synchronize(self) -> None:
        """Wait for all work on the device; a kernel's failure is raised here."""
        self.api.call("cuCtxSynchronize")

    def free_memory(self) -> int:
        """Bytes that can be allocated now."""
        return int(self.api.call("cuMemGetInfo")[0])

    def alloc(self, nbytes: int) -> int:
        """The address of uninitialised device memory, aligned to 256 bytes. DeviceError names the size."""
        try:
            return int(self.api.call("cuMemAlloc", max(1, nbytes)))
        except DeviceError as error:
            raise DeviceError(f"{nbytes} bytes of GPU memory: {error.what}", fix=error.fix) from None

    def free(self, address: int) -> None:
        """Free what `alloc` gave."""
        self.api.call("cuMemFree", address)

    def pinned(self, nbytes: int) -> Pinned:
        """Host memory that copies from and to the GPU without staging."""
        return Pinned(self.api, nbytes)

    def stream(self) -> Stream:
        """A new stream, not ordered with the default one."""
        return Stream(self.api, self.api.call("cuStreamCreate", NON_BLOCKING), own=True)

    def foreign_stream(self, handle: int) -> Stream:
        """The caller's stream (torch: `stream.cuda_stream`; 0 is the default stream). It is never destroyed here."""
        return Stream(self.api, handle, own=False)

    def event(self, timing: bool = False) -> Event:
        """A new event; only with `timing` can elapsed time be asked of it."""
        return Event(self.api, timing)

    def load(self, cubin: bytes | memoryview) -> Module:
        """A module from the bytes of a cubin; DeviceError where it is for another GPU."""
        return Module(self, cubin)

    def tensor_map(self, dtype: DType, address: int, m: TensorMap) -> EncodedMap:
        """A map, at one shape, of the tensor at `address`: an argument for kernels that copy by it."""
        return EncodedMap(self.api, dtype, address, m)

    # copies: addresses are integers; without a stream they wait, with one they are queued

    def upload(self, target: int, source: int, nbytes: int, stream: Stream | None = None) -> None:
        """Host to device. With a stream, the host memory must stay as it is until the copy is done."""
        self._copy("cuMemcpyHtoD", target, source, nbytes, stream)

    def download(self, target: int, source: int, nbytes: int, stream: Stream | None = None) -> None:
        """Device to host."""
        self._copy("cuMemcpyDtoH", target, source, nbytes, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: Stream | None = None) -> None:
        """Device to device."""
        self._copy("cuMemcpyDtoD", target, source, nbytes, stream)

    def fill(self, target: int, byte: int, nbytes: int, stream: Stream | None = None) -> None:
        """Set `nbytes` bytes."""
        if nbytes and stream is None:
            self.api.call("cuMemsetD8", target, byte, nbytes)
        elif nbytes and stream is not None:
            self.api.call("cuMemsetD8Async", target, byte, nbytes, stream.handle)

    def _copy(self, name: str, target: int, source: int, nbytes: int, stream: Stream | None) -> None:
        if nbytes and stream is None:
            self.api.call(name, target, source, nbytes)
        elif nbytes and stream is not None:
            self.api.call(f"{name}Async", target, source, nbytes, stream.handle)


class Pinned:
    """Page-locked host memory: `array` are its bytes (uint8), `address` where they are."""

    def __init__(self, api: Api, nbytes: int) -> None:
        self._api = api
        self.address = int(api.call("cuMemAllocHost", max(1, nbytes)))
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self.address))

    def close(self) -> None:
        """Free it; `array` must not be used any more."""
        if self.address:
            self._api.call("cuMemFreeHost", self.address)
            self.address = 0


class Stream:
    """A queue of work on the device."""

    def __init__(self, api: Api, handle: Any, own: bool) -> None:
        self.api, self.handle, self._own = api, handle, own
        self.recording: Capture | None = None

    def synchronize(self) -> None:
        """Wait for what was queued."""
        self.api.call("cuStreamSynchronize", self.handle)

    def wait(self, event: Event) -> None:
        """Let what is queued from now on wait for `event`."""
        self.api.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def capture(self) -> Capture:
        """A context manager: launches and copies on this stream become nodes of a graph, and nothing runs."""
        return Capture(self)

    def close(self) -> None:
        """Destroy the stream, if it was made here."""
        if self._own:
            self.api.call("cuStreamDestroy", self.handle)
            self._own = False


class Event:
    """A point in a stream."""

    def __init__(self, api: Api, timing: bool) -> None:
        self._api = api
        self.handle = api.call("cuEventCreate", 0 if timing else 2)  # CU_EVENT_DISABLE_TIMING

    def record(self, stream: Stream) -> None:
        """Mark the end of what is queued on `stream`."""
        self._api.call("cuEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until the point is reached."""
        self._api.call("cuEventSynchronize", self.handle)

    def milliseconds_since(self, start: Event) -> float:
        """Time between two events that were reached."""
        return float(self._api.call("cuEventElapsedTime", start.handle, self.handle))

    def close(self) -> None:
        """Destroy the event."""
        self._api.call("cuEventDestroy", self.handle)


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

    def registers(self) -> int:
        """Registers per thread."""
        return self._attribute("NUM_REGS")

    def spilled_bytes(self) -> int:
        """Bytes of local memory per thread: what did not fit into registers."""
        return self._attribute("LOCAL_SIZE_BYTES")

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

    def _attribute(self, name: str) -> int:
        member = self.api.constant("CUfunction_attribute", f"CU_FUNC_ATTRIBUTE_{name}")
        return int(self.api.call("cuFuncGetAttribute", member, self.function))
