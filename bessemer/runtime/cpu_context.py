"""A program on the CPU: addresses, integers and steps in the native table; a run is one C call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from weakref import proxy

import numpy as np

from bessemer.core.dim import evaluate, substitute
from bessemer.core.errors import BessemerError, DeviceError
from bessemer.device.cpu import StepTable, aligned_block, empty_array
from bessemer.engine.equalities import check_equalities
from bessemer.runtime.cpu_engine import CpuEngine
from bessemer.runtime.cpu_steps import NativeSteps
from bessemer.runtime.shapes import Bound, Integers, bind, learn, shape_of

MAX_SHAPES = 64  # sets of input shapes that a context remembers; the least recently used goes first


class CpuContext:
    """One arena and one step table with its threads; not for two threads at once."""

    def __init__(self, shared: CpuEngine, threads: int) -> None:
        self.shared, self.program = shared, shared.program
        self.arena = aligned_block(max(1, self.program.arena_bytes))
        self.integers = Integers()
        native = NativeSteps(self.program, shared.weights, self.arena, self.integers)
        kernels = [k.entry for k in self.program.kernels]
        own = proxy(self)  # that the table must not keep: no collection of garbage sees a cycle through ctypes
        self.table = StepTable(
            shared.library, native.steps, kernels, len(native.pointers), len(self.integers.values), threads,
            lambda k: own._host(k),
        )  # fmt: skip
        self.table.pointers[: len(native.pointers)] = native.pointers
        self.table.integers[: len(self.integers.values)] = self.integers.values
        self._slots = {place: np.array(slots, np.int64) for place, slots in native.patches.items()}
        self._shift_slots = np.zeros(len(native.pointers), np.int64)
        self._shift_slots[list(native.shifts)] = list(native.shifts.values())
        self._moving = np.array([slot for slot in native.shifts if native.pointers[slot]], np.int64)
        self._origins = np.array(native.pointers, np.int64)[self._moving]
        none = np.zeros(0, np.int64)
        self._input_slots = [self._slots.get(("input", k), none) for k in range(len(self.program.inputs))]
        self._output_slots = [self._slots.get(("output", k), none) for k in range(len(self.program.outputs))]
        self._bound: dict[tuple[tuple[int, ...], ...], Bound] = {}
        self._current: Bound | None = None
        self._env: dict[str, int] = {}
        self._arrays: dict[str, list[np.ndarray | None]] = {"input": [], "output": []}
        self._unplanned = [t for t in self.program.tensors if t.space == "dynamic" and t.dtype.kind != "s"]
        self._dynamic: dict[int, np.ndarray] = {}  # memory of dynamic tensors, by offset; what has none is not in it
        self._blocks: dict[int, np.ndarray] = {}  # what this context allocated for them, by offset: kept for later runs
        self._data_dependent = any(symbol.input < 0 for symbol in self.program.symbols.values())
        self._failure: BaseException | None = None

    # -- running --------------------------------------------------------------------------------------------------

    def bind(self, shapes: tuple[tuple[int, ...], ...], env: dict[str, int] | None = None) -> Bound | None:
        """Make these input shapes current; None where they are new and `env` (their symbols) is not given."""
        bound = self._bound.pop(shapes, None)
        if bound is None:
            if env is None:
                return None
            bound = bind(self.program, self.integers, env)
            if len(self._bound) >= MAX_SHAPES:
                del self._bound[next(iter(self._bound))]
        self._bound[shapes] = bound
        if bound is not self._current or self._data_dependent:
            self.table.integers[bound.slots] = bound.values
            self._move()
            self._current = bound
            self._env = dict(bound.env)
            self._dynamic.clear()
            self._allocate()
        return bound

    def _move(self) -> None:
        """Point to the views of the arena that start elsewhere at other shapes."""
        if len(self._moving):
            shifts = self.table.integers[self._shift_slots[self._moving]]
            self.table.pointers[self._moving] = self._origins + shifts

    def run(self, inputs: Sequence[np.ndarray], outputs: list[np.ndarray | None]) -> list[np.ndarray]:
        """Run at the current shapes; an output that is None has a shape that depends on data, and is made."""
        pointers = self.table.pointers
        for slots, array in zip(self._input_slots, inputs):
            pointers[slots] = array.ctypes.data
        for slots, out in zip(self._output_slots, outputs):
            if out is not None:
                pointers[slots] = out.ctypes.data
        self._arrays["input"], self._arrays["output"] = list(inputs), outputs
        if self.table.run():
            self._raise()
        if self._data_dependent and any(a is None for a in outputs):
            raise DeviceError(f"the size of output {[a is None for a in outputs].index(True)} was never decided")
        return outputs  # type: ignore[return-value]

    def trace(self, inputs: Sequence[np.ndarray], outputs: list[np.ndarray | None]) -> Iterator[tuple[int, np.ndarray]]:
        """Run step by step; yields (tensor number, a copy of its value) for everything each step wrote."""
        self._arrays["input"], self._arrays["output"] = list(inputs), outputs
        for slots, array in zip((*self._input_slots, *self._output_slots), (*inputs, *outputs)):
            if array is not None:
                self.table.pointers[slots] = array.ctypes.data
        k = 0
        while k < len(self.program.steps):
            step = self.program.steps[k]
            if step.kind == "branch":
                k = k + 1 if bool(self._view(step.reads[0])) else step.target
                continue
            if step.kind == "jump":
                k = step.target
                continue
            if self.table.run(k, k + 1):
                self._raise()
            for n in step.writes:
                yield n, self._view(n).copy()
            k += 1

    def profile(self, inputs: Sequence[np.ndarray], outputs: list[np.ndarray | None], runs: int) -> list[float]:
        """Mean microseconds of every step over `runs` runs."""
        self.run(inputs, outputs)
        self.table.nanoseconds[:] = 0
        self.table.timed(True)
        try:
            for _ in range(runs):
                self.run(inputs, outputs)
        finally:
            self.table.timed(False)
        return [float(ns) / runs / 1e3 for ns in self.table.nanoseconds[: len(self.program.steps)]]

    # -- host steps -----------------------------------------------------------------------------------------------

    def _view(self, number: int) -> np.ndarray:
        """A tensor's memory as an array of its current shape."""
        t = self.program.tensors[number]
        if t.space in ("input", "output"):
            array = self._arrays[t.space][t.offset]
            assert array is not None
            shape = shape_of(t, self._env)  # a view may be the beginning of what it looks into
            return array if shape is None else array.reshape(-1)[: math.prod(shape)].reshape(shape)
        if t.space == "dynamic":
            if t.offset not in self._dynamic:
                raise DeviceError(f"tensor {t.name} is read before its size is known")
            whole = self._dynamic[t.offset]
            if t.dtype.kind == "s":
                return whole.reshape([evaluate(d, self._env) for d in t.shape])
            base, start = whole.reshape(-1).view(np.uint8), 0
        else:
            base, start = (self.shared.weights if t.space == "weights" else self.arena), t.offset
        start += evaluate(t.shift, self._env)
        shape = tuple(evaluate(d, self._env) for d in t.shape)
        nbytes = int(np.prod(shape)) * t.dtype.itemsize
        return base[start : start + nbytes].view(t.dtype.numpy).reshape(shape)

    def _host(self, k: int) -> int:
        """Called by the interpreter; an exception is kept and raised after the C call."""
        try:
            step = self.program.steps[k]
            results = self.shared.hosts[k].run([self._view(n) for n in step.reads], self._env)
            for n, result in zip(step.writes, results, strict=True):
                self._deliver(n, result)
        except BaseException as error:
            self._failure = error
            return 1
        return 0

    def _deliver(self, number: int, result: np.ndarray) -> None:
        t = self.program.tensors[number]
        if learn(result.shape, t, self._env):
            check_equalities(self.program.equalities, self._env)
            self._refresh()
        if t.space == "dynamic" or (t.space == "output" and self._arrays["output"][t.offset] is None):
            # A copy: the result may look into memory that is used again.
            self._place(t.space, t.offset, np.array(result, order="C"))
        else:
            self._view(number)[...] = result.reshape(shape_of(t, self._env) or result.shape)

    def _refresh(self) -> None:
        """New symbols are known: evaluate what waited for them, and allocate what they size."""
        assert self._current is not None
        for slot, d in self._current.later:
            value = substitute(d, self._env)
            if isinstance(value, int):
                self.table.integers[slot] = value
        self._move()
        for k, number in enumerate(self.program.outputs):
            t = self.program.tensors[number]  # of all that lie there this one has the output's shape
            shape = shape_of(t, self._env) if t.space == "output" else None
            if shape is not None and self._arrays["output"][k] is None:
                self._place("output", k, empty_array(shape, t.dtype.numpy))
        self._allocate()

    def _allocate(self) -> None:
        """Give memory to the dynamic tensors whose shapes are known by now and that have none yet in this run."""
        sizes: dict[int, int] = {}  # of allocations: tensors that are never in use together share one
        for t in self._unplanned:
            shape = shape_of(t, self._env) if t.offset not in self._dynamic else None
            if shape is not None:
                sizes[t.offset] = max(sizes.get(t.offset, 0), math.prod(shape) * t.dtype.itemsize)
        for number, nbytes in sizes.items():
            block = self._blocks.get(number)
            if block is None or block.nbytes < nbytes:
                block = self._blocks[number] = aligned_block(nbytes)
            self._place("dynamic", number, block)

    def _place(self, space: str, number: int, array: np.ndarray) -> None:
        """Make `array` the memory of what had none, since its size was not known: a dynamic tensor, or an output."""
        if space == "dynamic":
            self._dynamic[number] = array
        else:
            self._arrays["output"][number] = array
        slots = self._slots.get((space, number))
        if slots is not None:
            self.table.pointers[slots] = array.ctypes.data + self.table.integers[self._shift_slots[slots]]

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is None:
            raise DeviceError("a host step failed")
        if isinstance(failure, BessemerError) or not isinstance(failure, Exception):  # such as KeyboardInterrupt
            raise failure
        raise DeviceError(f"a host step failed: {type(failure).__name__}: {failure}") from failure

    def close(self) -> None:
        """End the threads."""
        self.table.close()
