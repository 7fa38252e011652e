"""Sessions on an NVIDIA GPU: what a caller gives and gets; see cuda_context for how a program runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from bessemer.core.errors import InputError
from bessemer.device.cuda import Stream
from bessemer.device.interop import View, view_of
from bessemer.engine.engine import Engine
from bessemer.engine.program import Step, Tensor
from bessemer.runtime.bindings import as_array, check_out
from bessemer.runtime.cuda_context import CudaContext, CudaEngine, State
from bessemer.runtime.cuda_profile import step_times
from bessemer.runtime.session import Feeds, Session


class CudaSession(Session):
    """A loaded engine for a GPU. Inputs and outputs may be host arrays, or arrays on the GPU, used by address."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._shared = CudaEngine(engine)
        self._free: list[CudaContext] = []
        self._lock = threading.Lock()

    def run(self, feeds: Feeds, *, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once and wait. Outputs without a buffer in `out` are new numpy arrays; see Session.run."""
        with self._context() as context:
            results = self._run(context, feeds, out, context.stream)
            context.stream.synchronize()
            return {name: self._fetch(context, k, value) for k, (name, value) in enumerate(results.items())}

    def run_async(self, feeds: Feeds, *, stream: Any, out: Mapping[str, Any]) -> dict[str, Any]:
        """Queue one run on the caller's stream (an integer handle, or an object with `cuda_stream` or `ptr`).

        Inputs and `out` are arrays on the GPU; nothing waits. InputError for host arrays, or where an output has no
        buffer. The context used belongs to that stream from then on.
        """
        handle = int(getattr(stream, "cuda_stream", getattr(stream, "ptr", stream)))
        missing = [n for n in self._names if n not in out]
        if missing:
            raise InputError(f"run_async needs a buffer on the GPU for {', '.join(missing)}")
        with self._lock:
            context = self._of_stream.get(handle)
        if context is None:
            context = CudaContext(self._shared)
            with self._lock:
                self._of_stream[handle] = context
        self._shared.device.activate()
        return self._run(context, feeds, out, self._shared.device.foreign_stream(handle), host=False)

    @property
    def _of_stream(self) -> dict[int, CudaContext]:
        return self.__dict__.setdefault("_streams", {})  # type: ignore[no-any-return]

    @contextmanager
    def _context(self) -> Iterator[CudaContext]:
        with self._lock:
            context = self._free.pop() if self._free else None
        self._shared.device.activate()
        context = context or CudaContext(self._shared)
        try:
            yield context
        finally:
            with self._lock:
                self._free.append(context)

    def _run(
        self, context: CudaContext, feeds: Feeds, out: Mapping[str, Any] | None, stream: Stream, host: bool = True
    ) -> dict[str, Any]:
        state = self._prepare(context, feeds, out or {}, stream, host)
        context.run(state, stream)
        return {name: (out or {}).get(name) for name in self._names}

    def _prepare(
        self, context: CudaContext, feeds: Feeds, out: Mapping[str, Any], stream: Stream, host: bool
    ) -> State:
        views = [self._view(k, a, host) for k, a in enumerate(self.signature.ordered(feeds))]
        shapes = tuple(v.shape for v in views)
        state = context.bind(shapes) or context.bind(shapes, self.signature.bind(shapes))
        assert state is not None
        for k, v in enumerate(views):
            key = ("input", k)
            if v.device == "cuda":
                context.addresses[key] = v.address
            else:
                context.addresses[key] = context.buffer(key, v.nbytes)
                context.device.upload(context.addresses[key], v.address, v.nbytes, stream)
        context.output_shapes(state.outputs)
        for k, (t, shape) in enumerate(zip(self.signature.outputs, state.outputs)):
            if shape is not None:
                context.addresses[("output", k)] = self._output_address(context, k, t, shape, out.get(t.name))
        return state

    def _view(self, k: int, value: Any, host: bool) -> View:
        view = view_of(value if hasattr(value, "__cuda_array_interface__") or hasattr(value, "__dlpack__")
                       else as_array(value))  # fmt: skip
        if view.device != "cuda":
            if not host:
                raise InputError(f"input {self.signature.inputs[k].name} of run_async is not on the GPU")
            view = view_of(as_array(value))
        if not view.contiguous:
            raise InputError(f"input {self.signature.inputs[k].name} is not C-contiguous")
        if view.dtype.numpy != self.signature.inputs[k].dtype.numpy:
            self.signature.check_dtype(k, view.dtype.numpy)
        return view

    def _output_address(self, context: CudaContext, k: int, t: Tensor, shape: tuple[int, ...], out: Any) -> int:
        nbytes = t.dtype.itemsize * math.prod(shape)
        if out is None or isinstance(out, np.ndarray):
            if out is not None:
                check_out(out, t, shape)
            return context.buffer(("output", k), nbytes)
        view = view_of(out)
        if view.device != "cuda" or view.shape != shape or not view.contiguous or view.nbytes != nbytes:
            raise InputError(f"out buffer for {t.name} must be a C-contiguous {t.dtype} {list(shape)} on the GPU")
        return view.address

    def _fetch(self, context: CudaContext, k: int, given: Any) -> Any:
        if given is not None and not isinstance(given, np.ndarray):
            return given
        t = self.signature.outputs[k]
        array = given if given is not None else np.empty(context.known_shape(k), t.dtype.numpy)
        context.device.download(array.ctypes.data, context.addresses[("output", k)], array.nbytes)
        return array

    def trace(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """See Session.trace."""
        with self._context() as context:
            state = self._prepare(context, feeds, {}, context.stream, host=True)
            return {self.engine.program.tensors[n].name: value for n, value in context.trace(state)}

    def profile(self, feeds: Feeds, runs: int = 20) -> list[tuple[Step, float]]:
        """See Session.profile; device time in the captured sequence, see cuda_profile."""
        with self._context() as context:
            state = self._prepare(context, feeds, {}, context.stream, host=True)
            return list(zip(self.engine.program.steps, step_times(context, state, runs)))

    def device_ms(self, feeds: Feeds, runs: int = 100) -> list[float]:
        """Device time of whole runs between two events, in ms, with the inputs already on the GPU.

        Another run goes ahead of each, so that the launch of the one that is timed is not waited for."""
        with self._context() as context:
            state = self._prepare(context, feeds, {}, context.stream, host=True)
            start, end = context.device.event(timing=True), context.device.event(timing=True)
            times = []
            for k in range(runs + 5):
                context.run(state, context.stream)
                start.record(context.stream)
                context.run(state, context.stream)
                end.record(context.stream)
                end.synchronize()
                if k >= 5:
                    times.append(end.milliseconds_since(start))
            return times
