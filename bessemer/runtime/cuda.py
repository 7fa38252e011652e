"""Sessions on an NVIDIA GPU: what a caller gives and gets; see cuda_context for how a program runs."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bessemer.core.errors import DeviceError, InputError
from bessemer.device.cpu import empty_array
from bessemer.device.cuda_stream import Stream
from bessemer.device.interop import offers, view_of
from bessemer.device.view import View
from bessemer.engine.engine import Engine
from bessemer.engine.program import Step, Tensor
from bessemer.runtime.bindings import Span, as_array, check_apart, check_out
from bessemer.runtime.cuda_context import CudaContext
from bessemer.runtime.cuda_engine import CudaEngine
from bessemer.runtime.cuda_profile import step_times
from bessemer.runtime.cuda_state import State
from bessemer.runtime.session import CLOSED, Feeds, Session

MAX_STREAMS = 16  # streams of callers that keep a context; the least recently used goes first


@dataclass
class _Queue:
    """The context of one of the caller's streams: what is queued there runs in order, so one is enough."""

    context: CudaContext
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0  # threads that have it, or wait for it


class CudaSession(Session):
    """A loaded engine for a GPU. Inputs and outputs may be host arrays, or arrays on the GPU, used by address."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._shared: CudaEngine | None = CudaEngine(engine)
        self._free: list[CudaContext] = []
        self._queues: dict[int, _Queue] = {}  # by stream
        self._lock = threading.Lock()

    def run(self, feeds: Feeds, *, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once and wait. Outputs without a buffer in `out` are new numpy arrays; see Session.run."""
        out = {} if out is None else out
        self._check_out(out)
        with self._context() as context:
            views = self._views(feeds, context.stream, host=True)  # they keep the arrays until the run is over
            context.run(self._prepare(context, views, out, context.stream), context.stream)
            context.stream.synchronize()
            return {name: self._fetch(context, k, out.get(name)) for k, name in enumerate(self._names)}

    def run_async(self, feeds: Feeds, *, stream: Any, out: Mapping[str, Any]) -> dict[str, Any]:
        """Queue one run on the caller's stream (an integer handle, or an object with `cuda_stream` or `ptr`).

        Inputs and `out` are arrays on the GPU that stay as they are until the run is over; nothing waits but host
        steps, which `inspect` lists. Runs may be queued from several threads, on one stream or on many. InputError for
        host arrays, for an output without a buffer, and for one whose size depends on data.
        """
        handle = int(getattr(stream, "cuda_stream", getattr(stream, "ptr", stream)))
        self._check_out(out)
        missing = [n for n in self._names if n not in out]
        if missing:
            raise InputError(f"run_async needs a buffer on the GPU for {', '.join(missing)}")
        device = self._open().device
        device.activate()
        foreign = device.foreign_stream(handle)
        views = self._views(feeds, foreign, host=False)
        with self._queue(handle) as context:
            context.run(self._prepare(context, views, out, foreign), foreign)
        return {name: out[name] for name in self._names}

    @contextmanager
    def _queue(self, handle: int) -> Iterator[CudaContext]:
        """The context of a stream, for one thread at a time."""
        with self._lock:
            queue = self._queues.pop(handle, None) or _Queue(CudaContext(self._open()))
            self._queues[handle] = queue
            queue.users += 1
            idle = next((h for h, q in self._queues.items() if not q.users), None)
            if len(self._queues) > MAX_STREAMS and idle is not None:
                self._queues.pop(idle).context.close()
        try:
            with queue.lock:
                yield queue.context
        finally:
            with self._lock:
                queue.users -= 1

    @contextmanager
    def _context(self) -> Iterator[CudaContext]:
        with self._lock:
            shared = self._open()
            context = self._free.pop() if self._free else None
        shared.device.activate()
        context = context or CudaContext(shared)
        try:
            yield context
        finally:
            with self._lock:
                self._free.append(context)

    def _open(self) -> CudaEngine:
        if self._shared is None:
            raise InputError(CLOSED, fix="load the engine again")
        return self._shared

    def _views(self, feeds: Feeds, stream: Stream, host: bool) -> list[View]:
        """The inputs, in signature order; on the host only where that is allowed."""
        return [self._view(k, a, stream, host) for k, a in enumerate(self.signature.ordered(feeds))]

    def _prepare(self, context: CudaContext, views: Sequence[View], out: Mapping[str, Any], stream: Stream) -> State:
        """Bind the inputs' shapes and all addresses; `stream` waits for whoever made the arrays on the GPU."""
        shapes = tuple(v.shape for v in views)
        state = context.bind(shapes) or context.bind(shapes, self.signature.bind(shapes))
        assert state is not None
        producers: set[int] = set()
        for k, v in enumerate(views):
            key = ("input", k)
            if v.device == "cuda":
                context.tensors.addresses[key] = self._placed(context, v, producers)
            else:
                context.tensors.addresses[key] = context.tensors.buffer(key, v.nbytes)
                context.device.upload(context.tensors.addresses[key], v.address, v.nbytes, stream)
        context.tensors.output_shapes(state.outputs)
        for k, (t, shape) in enumerate(zip(self.signature.outputs, state.outputs)):
            if shape is not None:
                address = self._output_address(context, k, t, shape, out.get(t.name), stream, producers)
                context.tensors.addresses[("output", k)] = address
        if out:
            self._check_apart(context, views, out)
        for producer in producers - {int(stream.handle)}:
            context.wait_for(producer, stream)
        return state

    def _check_apart(self, context: CudaContext, views: Sequence[View], out: Mapping[str, Any]) -> None:
        """InputError where buffers on the GPU, or those on the host that outputs are copied to, share memory."""
        written = []
        for k, t in enumerate(self.signature.outputs):
            if t.name in out:
                nbytes = t.dtype.itemsize * math.prod(context.tensors.known_shape(k))
                on_host = isinstance(out[t.name], np.ndarray)
                address = out[t.name].ctypes.data if on_host else context.tensors.addresses[("output", k)]
                written.append(Span(f"output {t.name}", address, nbytes))
        read = [(t, v) for t, v in zip(self.signature.inputs, views) if v.device == "cuda"]
        check_apart(written, [Span(f"input {t.name}", v.address, v.nbytes) for t, v in read])

    def _placed(self, context: CudaContext, view: View, producers: set[int]) -> int:
        """The address of an array on the session's GPU; the stream of whoever makes it goes to `producers`."""
        if view.ordinal != context.device.info.ordinal:
            raise InputError(
                f"an array is on GPU {view.ordinal}, the session runs on GPU {context.device.info.ordinal}",
                fix="copy it there",
            )
        if view.producer is not None:
            producers.add(view.producer)
        return view.address

    def _view(self, k: int, value: Any, stream: Stream, host: bool) -> View:
        foreign = offers(value, "__dlpack__") or offers(value, "__cuda_array_interface__")
        view = view_of(value, int(stream.handle)) if foreign else view_of(as_array(value))
        if view.device != "cuda":
            if not host:
                raise InputError(f"input {self.signature.inputs[k].name} of run_async is not on the GPU")
            view = view_of(as_array(value))
        if not view.contiguous:
            raise InputError(f"input {self.signature.inputs[k].name} is not C-contiguous")
        if view.dtype.numpy != self.signature.inputs[k].dtype.numpy:
            self.signature.check_dtype(k, view.dtype.numpy)
        return view

    def _output_address(
        self, context: CudaContext, k: int, t: Tensor, shape: tuple[int, ...], out: Any, stream: Stream,
        producers: set[int],
    ) -> int:  # fmt: skip
        nbytes = t.dtype.itemsize * math.prod(shape)
        if out is None or isinstance(out, np.ndarray):
            if out is not None:
                check_out(out, t, shape)
            return context.tensors.buffer(("output", k), nbytes)
        view = view_of(out, int(stream.handle))
        fits = view.shape == shape and view.contiguous and view.dtype.numpy == t.dtype.numpy and view.writable
        if view.device != "cuda" or not fits:
            raise InputError(
                f"out buffer for {t.name} is {view.dtype} {list(view.shape)} ({view.device}), needed is a writable, "
                f"C-contiguous {t.dtype} {list(shape)} on the GPU"
            )
        return self._placed(context, view, producers)

    def _fetch(self, context: CudaContext, k: int, given: Any) -> Any:
        if given is not None and not isinstance(given, np.ndarray):
            return given
        t = self.signature.outputs[k]
        array = given if given is not None else empty_array(context.tensors.known_shape(k), t.dtype.numpy)
        context.device.download(array.ctypes.data, context.tensors.addresses[("output", k)], array.nbytes)
        return array

    def close(self) -> None:
        """See Session.close; waits for what is queued."""
        with self._lock:
            contexts = [*self._free, *(q.context for q in self._queues.values())]
            shared, self._shared, self._free, self._queues = self._shared, None, [], {}
        if shared is not None:
            for context in contexts:
                context.close()
            shared.close()

    def __del__(self) -> None:
        if getattr(self, "_shared", None) is not None and not sys.is_finalizing():
            with suppress(DeviceError):  # after a fault nothing can be freed
                self.close()

    def trace(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """See Session.trace."""
        with self._context() as context:
            state = self._prepare(context, self._views(feeds, context.stream, host=True), {}, context.stream)
            return {self.engine.program.tensors[n].name: value for n, value in context.trace(state)}

    def profile(self, feeds: Feeds, runs: int = 20) -> list[tuple[Step, float]]:
        """See Session.profile; device time in the captured sequence, see cuda_profile."""
        self._check_runs(runs)
        with self._context() as context:
            state = self._prepare(context, self._views(feeds, context.stream, host=True), {}, context.stream)
            return list(zip(self.engine.program.steps, step_times(context, state, runs)))

    def device_ms(self, feeds: Feeds, runs: int = 100) -> list[float]:
        """Device time of whole runs between two events, in ms, with the inputs already on the GPU.

        Another run goes ahead of each, so that the launch of the one that is timed is not waited for."""
        with self._context() as context:
            state = self._prepare(context, self._views(feeds, context.stream, host=True), {}, context.stream)
            start, end = context.device.event(timing=True), context.device.event(timing=True)
            times = []
            try:
                for k in range(runs + 5):
                    context.run(state, context.stream)
                    start.record(context.stream)
                    context.run(state, context.stream)
                    end.record(context.stream)
                    end.synchronize()
                    if k >= 5:
                        times.append(end.milliseconds_since(start))
            finally:
                start.close()
                end.close()
            return times
