"""Sessions: an engine loaded once, run from any thread.

    session = bessemer.load("model.engine", threads=2)
    outputs = session.run({"x": array})                  # or session.run([array]), or session.run(feeds, out={...})

A Session is immutable and shared. Each run takes a context (an arena, a step table, threads) from the session's free
ones, or makes one; weights and code are loaded once for all.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np

from bessemer.core.dim import Dim, evaluate, symbols
from bessemer.core.errors import InputError
from bessemer.device.cpu import empty_array
from bessemer.engine.engine import Engine, TensorInfo
from bessemer.engine.program import Step, Tensor
from bessemer.runtime.bindings import Signature, Span, as_array, check_apart, check_out, host_buffer
from bessemer.runtime.cpu_context import CpuContext
from bessemer.runtime.cpu_engine import CpuEngine
from bessemer.runtime.machine import check_machine

Feeds = Mapping[str, Any] | Sequence[Any]
CLOSED = "the session is closed"


def load(source: str | Path | bytes | Engine, *, threads: int | None = None) -> Session:
    """Load an engine (a path, its bytes, or an Engine just built).

    `threads` is for CPU engines: at most as many as the engine was built for, which is also the default.
    Arrays have the dtypes of the model, and bf16 is uint16 bits in numpy: see Session.run.

    Raises EngineFormatError (not a whole engine), EngineMismatchError (made for another machine), InputError (what is
    neither, or no number of threads that it has), DeviceError.
    """
    if isinstance(source, Engine):
        engine = source
    else:
        from bessemer.engine.reader import read

        engine = read(source)
    check_machine(engine)
    if engine.manifest["target"]["name"] == "cuda":
        from bessemer.runtime.cuda import CudaSession

        return CudaSession(engine)
    return CpuSession(engine, threads)


class Session(ABC):
    """A loaded engine: what every device's session offers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.signature = Signature.of(engine.program)
        self._names = [t.name for t in self.signature.outputs]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The inputs in signature order."""
        return self.engine.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The outputs in signature order."""
        return self.engine.outputs

    @abstractmethod
    def run(self, feeds: Feeds, *, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run once; {output: array}.

        feeds: {input: array}, or arrays in signature order; anything with DLPack or numpy's array interface is taken
        without a copy if it is C-contiguous. out: buffers for some or all outputs, of any such library, which come
        back as they were given, and share no memory with inputs or each other; others are new arrays.
        bf16 is taken as uint16 bits, or from libraries that have it (torch, ml_dtypes), and comes back as uint16 bits:
        array.view(ml_dtypes.bfloat16) shows their numbers.
        Raises InputError (names, dtypes) and ShapeError (a shape outside the engine's range).
        """

    @abstractmethod
    def close(self) -> None:
        """Free memory, threads and code now; no run may be going on, and none works afterwards. A session that is no
        longer used frees them too, when it is collected."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_out(self, out: Mapping[str, Any]) -> None:
        """InputError for buffers of unknown outputs, and of those whose size only a run can tell."""
        if not isinstance(out, Mapping):
            raise InputError(f"out was given as {type(out).__name__}", fix="give {output: buffer}")
        unknown = [n for n in out if n not in self._names]
        if unknown:
            names = ", ".join(self._names)
            raise InputError(f"unknown outputs in out: {', '.join(map(str, unknown))}", fix=f"the outputs are {names}")
        inputs = {name for name, symbol in self.signature.symbols.items() if symbol.input >= 0}
        for t in self.signature.outputs:
            if t.name in out and any(not symbols(d) <= inputs for d in t.shape):
                raise InputError(
                    f"output {t.name} takes no buffer: its size depends on the data",
                    fix="leave it out of `out`; run() gives a new array",
                )

    @abstractmethod
    def trace(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run once and return every tensor that the engine stores, by its value's name; nothing is fused otherwise."""

    @abstractmethod
    def profile(self, feeds: Feeds, runs: int = 20) -> list[tuple[Step, float]]:
        """Every step with its mean time in microseconds, over that many runs (1 or more)."""

    def _check_runs(self, runs: int) -> None:
        if not isinstance(runs, Integral) or runs < 1:
            raise InputError(f"{runs!r} runs were asked for", fix="give a whole number, 1 or more")

    def evaluate(self, d: Dim, feeds: Feeds) -> int:
        """A dim of the program at the shapes of `feeds`; 0 where it depends on data."""
        env = self.signature.bind([tuple(np.shape(a)) for a in self.signature.ordered(feeds)])
        return evaluate(d, env) if symbols(d) <= env.keys() else 0


class CpuSession(Session):
    """A loaded engine for the CPU."""

    def __init__(self, engine: Engine, threads: int | None = None) -> None:
        super().__init__(engine)
        built = int(engine.manifest["target"]["threads"])
        whole = isinstance(threads, Integral)
        if threads is not None and not (whole and 1 <= threads <= built):
            more = whole and threads > built
            raise InputError(
                f"{threads!r} threads were asked for, the engine was built for 1 to {built}",
                fix=f"build it with threads={threads}" if more else f"give a whole number from 1 to {built}",
            )
        self.threads = threads or built
        self._shared: CpuEngine | None = CpuEngine(engine)  # None once closed
        self._free: list[CpuContext] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """See Session.close."""
        with self._lock:
            contexts, self._free, self._shared = self._free, [], None
        for context in contexts:
            context.close()

    def run(self, feeds: Feeds, *, out: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """See Session.run."""
        with self._ready(feeds, out) as (context, arrays, outputs):
            results: dict[str, Any] = dict(zip(self._names, context.run(arrays, outputs)))
        results.update(out or {})
        return results

    def trace(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """See Session.trace."""
        with self._ready(feeds, None) as (context, arrays, outputs):
            return {self.engine.program.tensors[n].name: value for n, value in context.trace(arrays, outputs)}

    def profile(self, feeds: Feeds, runs: int = 20) -> list[tuple[Step, float]]:
        """See Session.profile."""
        self._check_runs(runs)
        with self._ready(feeds, None) as (context, arrays, outputs):
            return list(zip(self.engine.program.steps, context.profile(arrays, outputs, runs)))

    @contextmanager
    def _ready(
        self, feeds: Feeds, out: Mapping[str, Any] | None
    ) -> Iterator[tuple[CpuContext, list[np.ndarray], list[np.ndarray | None]]]:
        """A context with the inputs' shapes bound, and the arrays to run it on."""
        arrays = [self.signature.taken(k, as_array(a)) for k, a in enumerate(self.signature.ordered(feeds))]
        shapes = tuple(a.shape for a in arrays)
        context = self._acquire()
        try:
            bound = context.bind(shapes) or context.bind(shapes, self.signature.bind(shapes))
            assert bound is not None
            outputs = self._output_arrays(bound.outputs, out)
            if out:
                given = [(t, array) for t, array in zip(self.signature.outputs, outputs) if t.name in out]
                check_apart(_spans("output", given), _spans("input", zip(self.signature.inputs, arrays)))
            yield context, arrays, outputs
        finally:
            with self._lock:
                self._free.append(context)

    def _output_arrays(
        self, shapes: Sequence[tuple[int, ...] | None], out: Mapping[str, Any] | None
    ) -> list[np.ndarray | None]:
        if out is not None:
            self._check_out(out)
        arrays: list[np.ndarray | None] = []
        for t, shape in zip(self.signature.outputs, shapes):
            if shape is None:
                arrays.append(None)
            elif out and t.name in out:
                arrays.append(check_out(host_buffer(out[t.name], t.name), t, shape))
            else:
                arrays.append(empty_array(shape, t.dtype.numpy))
        return arrays

    def _acquire(self) -> CpuContext:
        with self._lock:
            shared = self._shared
            if shared is None:
                raise InputError(CLOSED, fix="load the engine again")
            if self._free:
                return self._free.pop()
        return CpuContext(shared, self.threads)


def _spans(kind: str, given: Iterable[tuple[Tensor, np.ndarray | None]]) -> list[Span]:
    return [Span(f"{kind} {t.name}", array.ctypes.data, array.nbytes) for t, array in given if array is not None]
