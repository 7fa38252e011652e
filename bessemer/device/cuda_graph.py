"""Captured CUDA graphs: the launches of a stream, recorded once and launched as one."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bessemer.core.errors import DeviceError

if TYPE_CHECKING:
    from bessemer.device.cuda_kernel import Arguments, Kernel
    from bessemer.device.cuda_stream import Stream


class Capture:
    """`with stream.capture() as graph:` records what is queued on the stream; afterwards `graph` can be launched.

    Kernel launches are numbered from 0 in the order of the capture; `update` replaces the arguments or the grid of
    one. If the block raises, the capture is ended and nothing is kept."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._api = stream, stream.api
        self._nodes: list[Any] = []
        self._graph: Any = None
        self._executable: Any = None

    def __enter__(self) -> Capture:
        mode = self._api.constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")
        self._api.call("cuStreamBeginCapture", self._stream.handle, mode)
        self._stream.recording = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.recording = None
        try:
            self._graph = self._api.call("cuStreamEndCapture", self._stream.handle)
        except DeviceError:
            if kind is None:
                raise
            return  # what broke the capture is the error to show
        if kind is not None:
            self.close()
            return
        self._executable = self._api.call("cuGraphInstantiate", self._graph, 0)

    def mark(self) -> None:
        """Remember the node of the launch that was just captured: the one that the next would depend on."""
        info = self._api.call("cuStreamGetCaptureInfo", self._stream.handle)
        self._nodes.append(info[3][0])  # (status, id, graph, dependencies, ...)

    def __len__(self) -> int:
        return len(self._nodes)

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""
        self._api.call("cuGraphLaunch", self._executable, stream.handle)

    def upload(self, stream: Stream) -> None:
        """Move the graph to the device ahead of its first launch."""
        self._api.call("cuGraphUpload", self._executable, stream.handle)

    def update(self, number: int, kernel: Kernel, grid: Sequence[int], args: Arguments) -> None:
        """Give the launch `number` (of the same kernel) other arguments or another grid, for all launches to come."""
        params = self._api.struct("CUDA_KERNEL_NODE_PARAMS")
        params.func = kernel.function
        params.gridDimX, params.gridDimY, params.gridDimZ = (*grid, 1, 1)[:3]
        params.blockDimX, params.blockDimY, params.blockDimZ = kernel.threads, 1, 1
        params.sharedMemBytes, params.kernelParams, params.extra = kernel.shared, args.address, 0
        self._api.call("cuGraphExecKernelNodeSetParams", self._executable, self._nodes[number], params)

    def close(self) -> None:
        """Destroy the graph."""
        if self._executable is not None:
            self._api.call("cuGraphExecDestroy", self._executable)
        if self._graph is not None:
            self._api.call("cuGraphDestroy", self._graph)
        self._graph = self._executable = None
