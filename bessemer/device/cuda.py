"""An NVIDIA GPU over the driver alone: its memory and copies, and the making of all else that lives on it.

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
allocates on the GPU but `alloc` and the making of streams, events, modules and graphs, which `cuda_stream`,
`cuda_kernel` and `cuda_graph` hold; `cuda_devices` says which GPUs there are.
"""

from __future__ import annotations

from bessemer.core.dtype import DType
from bessemer.core.errors import DeviceError
from bessemer.core.tensor_map import TensorMap
from bessemer.device.cuda_api import Api, bindings
from bessemer.device.cuda_devices import require_device
from bessemer.device.cuda_kernel import Module
from bessemer.device.cuda_stream import Event, Stream
from bessemer.device.tensor_map import EncodedMap

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no ordering with the default stream


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

    def alloc(self, nbytes: int) -> int:
        """The address of uninitialised device memory, aligned to 256 bytes. DeviceError names the size."""
        try:
            return int(self.api.call("cuMemAlloc", max(1, nbytes)))
        except DeviceError as error:
            raise DeviceError(f"{nbytes} bytes of GPU memory: {error.what}", fix=error.fix) from None

    def free(self, address: int) -> None:
        """Free what `alloc` gave."""
        self.api.call("cuMemFree", address)

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
            self._wait()
        elif nbytes and stream is not None:
            self.api.call("cuMemsetD8Async", target, byte, nbytes, stream.handle)

    def _copy(self, name: str, target: int, source: int, nbytes: int, stream: Stream | None) -> None:
        if nbytes and stream is None:
            self.api.call(name, target, source, nbytes)
            if name != "cuMemcpyDtoH":  # which waits
                self._wait()
        elif nbytes and stream is not None:
            self.api.call(f"{name}Async", target, source, nbytes, stream.handle)

    def _wait(self) -> None:
        """The driver's calls without a stream may return early: from memory that is not page-locked once it was read,
        within the GPU at once."""
        self.api.call("cuStreamSynchronize", 0)
