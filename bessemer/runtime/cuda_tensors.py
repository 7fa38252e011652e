"""Where the tensors of a context are on the GPU, and what they hold: the arena, and memory that is taken while running.

Arrays of the caller on the GPU are used by address. Buffers of the context's own are for host arrays, for outputs
without an array, and for what has a size only while running; they grow, and stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.errors import DeviceError
from bessemer.device.cuda_stream import Stream
from bessemer.engine.equalities import check_equalities
from bessemer.runtime.cuda_engine import CudaEngine
from bessemer.runtime.shapes import learn, shape_of


class CudaTensors:
    """The tensors of one context at the sizes of its present run; not for two threads at once.

    `env` are the values of the sizes known by now, `addresses` those of inputs, outputs and dynamic tensors."""

    def __init__(self, shared: CudaEngine, stream: Stream) -> None:
        self.shared, self.program, self.device, self.stream = shared, shared.program, shared.device, stream
        self.arena = self.device.alloc(self.program.arena_bytes)
        self.addresses: dict[tuple[str, int], int] = {}  # of inputs, outputs and dynamic tensors
        self.env: dict[str, int] = {}
        self._buffers: dict[tuple[str, int], tuple[int, int]] = {}  # own device buffers for host arrays
        outputs = [self.program.tensors[n] for n in self.program.outputs]  # of what lies there these have the shapes
        dynamic = [t for t in self.program.tensors if t.space == "dynamic"]
        self._unplanned = [t for t in (*dynamic, *outputs) if t.dtype.kind != "s"]
        self._outputs: list[tuple[int, ...] | None] = []
        self.counters = self._zeros(("counters", 0), 4 * self.program.counters) if self.program.counters else 0

    def address(self, number: int) -> int:
        """The device address of a tensor."""
        t = self.program.tensors[number]
        if t.space == "weights":
            return self.shared.weights + t.offset
        shift = evaluate(t.shift, self.env)
        if t.space == "arena":
            return self.arena + t.offset + shift
        return self.addresses[(t.space, t.offset)] + shift

    def buffer(self, key: tuple[str, int], nbytes: int) -> int:
        """A device buffer of the context's own, at least `nbytes` large."""
        address, size = self._buffers.get(key, (0, -1))
        if size < nbytes:
            if address:
                self.stream.synchronize()
                del self._buffers[key]  # before what may fail: nobody may find it any more
                self.device.free(address)
            address = self.device.alloc(nbytes)
            self._buffers[key] = (address, nbytes)
        return address

    def _zeros(self, key: tuple[str, int], nbytes: int) -> int:
        """A buffer of zeros; kernels on any stream may read it."""
        address = self.buffer(key, nbytes)
        self.device.fill(address, 0, nbytes, self.stream)
        self.stream.synchronize()
        return address

    def output_shapes(self, shapes: Sequence[tuple[int, ...] | None]) -> None:
        """Remember which outputs have no size yet, and give memory to the dynamic tensors whose size is known."""
        self._outputs = list(shapes)
        self._place_unknown()

    def _place_unknown(self) -> None:
        """Sizes became known: give memory to dynamic tensors, and to outputs that waited for them."""
        for other in self._unplanned:
            key = (other.space, other.offset)
            waits = other.space == "dynamic" or (other.space == "output" and self._outputs[other.offset] is None)
            shape = shape_of(other, self.env) if waits else None
            if shape is not None:
                self.addresses[key] = self.buffer(key, max(1, math.prod(shape)) * other.dtype.itemsize)
                if other.space == "output":
                    self._outputs[other.offset] = shape

    def known_shape(self, k: int) -> tuple[int, ...]:
        """The shape of output `k` after a run."""
        shape = self._outputs[k]
        if shape is None:
            raise DeviceError(f"output {k} was not produced")
        return shape

    def read(self, number: int) -> np.ndarray:
        """A copy of a tensor's value on the host (waits for the device)."""
        t = self.program.tensors[number]
        shape = tuple(evaluate(d, self.env) for d in t.shape)
        out = np.empty(shape, t.dtype.numpy)
        self.device.synchronize()
        self.device.download(out.ctypes.data, self.address(number), out.nbytes)
        return out

    def write(self, number: int, array: np.ndarray) -> None:
        """Make a host array the tensor's value; its shape tells sizes that were not known."""
        t = self.program.tensors[number]
        if learn(array.shape, t, self.env):
            check_equalities(self.program.equalities, self.env)
        self._place_unknown()
        array = np.ascontiguousarray(array)
        self.device.upload(self.address(number), array.ctypes.data, array.nbytes)

    def close(self) -> None:
        """Free all of it, once the device is done with it."""
        for address in (self.arena, *(address for address, _ in self._buffers.values())):
            self.device.free(address)
