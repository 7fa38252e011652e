"""A program running on an NVIDIA GPU: its steps queued on a stream, most of them as captured graphs.

Kernels and copies between two host steps are one segment, captured as a CUDA graph per set of input shapes. Arrays of
the caller on the GPU are used by address: graphs are updated in place when addresses change. Weights are there once per
session (`cuda_engine`), memory for everything else once per context (`cuda_tensors`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bessemer.core.dim import Dim, evaluate, symbols
from bessemer.core.interval import bounds
from bessemer.device.cuda_graph import Capture
from bessemer.device.cuda_kernel import Arguments
from bessemer.device.cuda_stream import Event, Stream
from bessemer.device.tensor_map import EncodedMap
from bessemer.runtime.cuda_engine import CudaEngine
from bessemer.runtime.cuda_state import Launch, State
from bessemer.runtime.cuda_tensors import CudaTensors
from bessemer.runtime.shapes import shape_of

MOST_SCRATCH = 16 << 20  # bytes that a kernel is given for its largest grid before that runs
MAX_SHAPES = 64  # sets of input shapes whose graphs a context keeps; the least recently used goes first


class CudaContext:
    """A stream, graphs and the memory they work on; not for two threads at once."""

    def __init__(self, shared: CudaEngine) -> None:
        self.shared, self.program, self.device = shared, shared.program, shared.device
        self.device.activate()
        self.stream = self.device.stream()
        try:
            self.tensors = CudaTensors(shared, self.stream)
        except BaseException:
            self.stream.close()
            raise
        self._scratch: dict[tuple[int, int], tuple[int, int]] = {}  # of kernels, by step and number
        self._produced: Event | None = None
        self._states: dict[tuple[tuple[int, ...], ...], State] = {}
        self.segments = self._segments()
        self._starts = {first: n for n, (_, first, _) in enumerate(self.segments)}

    def _segments(self) -> list[tuple[str, int, int]]:
        """(kind, first, last): runs of steps that one graph can hold, and single host and branch steps."""
        targets = {s.target for s in self.program.steps if s.kind in ("branch", "jump")}
        out: list[tuple[str, int, int]] = []
        for k, step in enumerate(self.program.steps):
            if step.kind not in ("kernel", "copy"):
                out.append((step.kind, k, k + 1))
            elif out and out[-1][0] == "graph" and out[-1][2] == k and k not in targets:
                out[-1] = ("graph", out[-1][1], k + 1)
            else:
                out.append(("graph", k, k + 1))
        return out

    # -- shapes ---------------------------------------------------------------------------------------------------

    def bind(self, shapes: tuple[tuple[int, ...], ...], env: dict[str, int] | None = None) -> State | None:
        """The state of these input shapes; None where they are new and `env` is not given."""
        state = self._states.pop(shapes, None)
        if state is None:
            if env is None:
                return None
            state = State(env, tuple(shape_of(self.program.tensors[n], env) for n in self.program.outputs))
            if len(self._states) >= MAX_SHAPES:
                self._states.pop(next(iter(self._states))).forget_graphs()
        self._states[shapes] = state
        self.tensors.env = dict(state.env)
        return state

    def _launch(self, state: State, k: int) -> Launch:
        step = self.program.steps[k]
        kernel, env = self.shared.kernels[step.kernel], self.tensors.env
        grid = tuple(evaluate(d, env) for d in step.grid)
        if not all(grid):  # it will not run, and there are no maps of empty tensors
            return Launch(kernel, grid, Arguments((), 0), [])
        values: list[int | EncodedMap] = []
        patches = []
        for number, arg in enumerate(step.args):
            if arg.kind == "int":
                values.append(evaluate(arg.value, env))
            elif arg.kind == "workspace":
                values.append(self.tensors.arena + step.workspace[0])
            elif arg.kind == "counters":
                values.append(self.tensors.counters)
            else:
                t, address = self.program.tensors[int(arg.value)], self.tensors.address(int(arg.value))  # type: ignore[arg-type]
                values.append(address if arg.map is None else self.device.tensor_map(t.dtype, address, arg.map.at(env)))
                if t.space in ("input", "output", "dynamic"):
                    patches.append((number, (t.space, t.offset), evaluate(t.shift, env)))
        args = kernel.arguments(values)
        for number, nbytes in enumerate(kernel.scratch_bytes(grid)):
            if nbytes:
                args.scratch(number, self._scratch_address((k, number), nbytes))
        return Launch(kernel, grid, args, patches)

    def _scratch_address(self, key: tuple[int, int], nbytes: int) -> int:
        """A kernel's hidden scratch memory, made for its largest grid. Graphs hold its address: where it moves, all are
        captured again."""
        address, size = self._scratch.get(key, (0, -1))
        if size < nbytes:
            if address:
                for state in self._states.values():
                    state.forget_graphs()
                del self._scratch[key]  # before what may fail: nobody may find it any more
                self.device.free(address)
            size = max(nbytes, self._most_scratch(*key))
            address = self.device.alloc(size)
            self._scratch[key] = (address, size)
        return address

    def _most_scratch(self, k: int, number: int) -> int:
        """Bytes of a step's scratch memory at the largest grid that the profile allows; 0 where it sets no bounds, or
        the memory would be large."""
        step, ranges = self.program.steps[k], self.program.ranges
        most = self.shared.kernels[step.kernel].scratch_bytes([bounds(d, ranges)[1] for d in step.grid])[number]
        return most if most <= MOST_SCRATCH else 0

    def wait_for(self, producer: int, stream: Stream) -> None:
        """Let `stream` wait for what is queued on another library's stream now."""
        if self._produced is None:
            self._produced = self.device.event()
        self._produced.record(self.device.foreign_stream(producer))
        stream.wait(self._produced)

    def close(self) -> None:
        """Free all of it, once the device is done with it."""
        self.device.activate()
        self.device.synchronize()
        for state in self._states.values():
            state.forget_graphs()
        self.tensors.close()
        for address, _ in self._scratch.values():
            self.device.free(address)
        if self._produced is not None:
            self._produced.close()
        self.stream.close()

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, state: State, stream: Stream) -> None:
        """Queue everything on `stream`; host steps and branches wait for what they read."""
        position = 0
        while position < len(self.segments):
            position = self.advance(position, state, stream)

    def advance(self, position: int, state: State, stream: Stream) -> int:
        """Queue the segment at `position`; the position of the one that comes after it."""
        kind, first, last = self.segments[position]
        if kind == "graph":
            self._run_graph(state, first, last, stream)
        elif kind == "host":
            self._run_host(state, first, stream)
        elif kind == "jump" or not self._condition(first, stream):
            return self._starts.get(self.program.steps[first].target, len(self.segments))
        return position + 1

    def _run_graph(self, state: State, first: int, last: int, stream: Stream) -> None:
        graph = state.graphs.get(first)
        if graph is None:
            later = state.later.get(first)
            if later is None:
                later = any(not symbols(d) <= state.env.keys() for k in range(first, last) for d in self._dims(k))
                state.later[first] = later
            self._queue_first(state, first, last, stream, keep=not later)
            return
        captured, addresses = state.captured[first], self.tensors.addresses
        if any(addresses[key] != address for key, address in captured.items()):
            if not self._update(state, first, last, graph):
                graph.close()
                self._capture(state, first, last)
                graph = state.graphs[first]
            state.captured[first] = {key: addresses[key] for key in captured}
        graph.launch(stream)

    def _dims(self, k: int) -> Iterator[Dim]:
        step = self.program.steps[k]
        yield from (self.program.tensors[n].shift for n in (*step.reads, *step.writes))
        yield from (a.value for a in step.args if a.kind == "int")
        yield from (d for a in step.args if a.map is not None for d in a.map.sizes())
        yield from step.grid
        if step.kind == "copy":
            yield from self.program.tensors[step.reads[0]].shape

    def _queue_first(self, state: State, first: int, last: int, stream: Stream, keep: bool) -> None:
        """The first run at a shape: launch directly, and capture for the next ones."""
        for k in range(first, last):
            if self.program.steps[k].kind == "kernel":
                state.launches[k] = self._launch(state, k)
            self._queue(state, k, stream)
        if keep:
            self._capture(state, first, last)

    def _queue(self, state: State, k: int, stream: Stream) -> None:
        step = self.program.steps[k]
        if step.kind == "copy":
            t = self.program.tensors[step.reads[0]]
            nbytes = t.dtype.itemsize * math.prod(evaluate(d, self.tensors.env) for d in t.shape)
            self.device.copy(self.tensors.address(step.writes[0]), self.tensors.address(step.reads[0]), nbytes, stream)
            return
        launch = state.launches[k]
        if all(launch.grid):
            launch.kernel.launch(launch.grid, launch.args, stream)

    def _capture(self, state: State, first: int, last: int) -> None:
        keys = {
            (t.space, t.offset)
            for k in range(first, last)
            for t in (self.program.tensors[n] for n in (*self.program.steps[k].reads, *self.program.steps[k].writes))
            if t.space in ("input", "output", "dynamic")
        }
        for k in range(first, last):
            for number, key, shift in state.launches[k].patches if k in state.launches else ():
                state.launches[k].args[number] = self.tensors.addresses[key] + shift
        state.graphs[first] = self.captured(state, first, last)
        state.captured[first] = {key: self.tensors.addresses[key] for key in keys}

    def captured(self, state: State, first: int, last: int) -> Capture:
        """A graph of steps that were launched before, with the arguments that they have by now."""
        with self.stream.capture() as graph:
            for k in range(first, last):
                self._queue(state, k, self.stream)
        graph.upload(self.stream)
        return graph

    def _update(self, state: State, first: int, last: int, graph: Capture) -> bool:
        """Patch changed addresses into a graph; False where a copy uses one (then it is captured again)."""
        number = 0
        for k in range(first, last):
            step = self.program.steps[k]
            if step.kind == "copy":
                spaces = {self.program.tensors[n].space for n in (*step.reads, *step.writes)}
                if spaces & {"input", "output", "dynamic"}:
                    return False
                continue
            launch = state.launches[k]
            if not all(launch.grid):
                continue
            if launch.patches:
                for position, key, shift in launch.patches:
                    launch.args[position] = self.tensors.addresses[key] + shift
                graph.update(number, launch.kernel, launch.grid, launch.args)
            number += 1
        return True

    def _condition(self, k: int, stream: Stream) -> bool:
        flag = np.zeros(1, np.uint8)
        stream.synchronize()
        self.device.download(flag.ctypes.data, self.tensors.address(self.program.steps[k].reads[0]), 1)
        return bool(flag[0])

    def _run_host(self, state: State, k: int, stream: Stream) -> None:
        step = self.program.steps[k]
        stream.synchronize()
        results = self.shared.hosts[k].run([self.tensors.read(n) for n in step.reads], self.tensors.env)
        for n, result in zip(step.writes, results, strict=True):
            self.tensors.write(n, result)

    def trace(self, state: State) -> Iterator[tuple[int, np.ndarray]]:
        """Run step by step; yields (tensor number, value) for everything written."""
        k = 0
        while k < len(self.program.steps):
            step = self.program.steps[k]
            if step.kind == "jump" or (step.kind == "branch" and not self._condition(k, self.stream)):
                k = step.target
                continue
            if step.kind == "host":
                self._run_host(state, k, self.stream)
            elif step.kind != "branch":
                self._queue_first(state, k, k + 1, self.stream, keep=False)
            for n in step.writes:
                yield n, self.tensors.read(n)
            k += 1
