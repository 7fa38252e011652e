"""A program's steps as the native table takes them: each with its first pointer and integer among all of them."""

from __future__ import annotations

import numpy as np

from bessemer.core.dim import product, substitute
from bessemer.core.errors import DeviceError
from bessemer.device.cpu import BRANCH, COPY, HOST, JUMP, KERNEL, NativeStep
from bessemer.engine.program import Program, Step
from bessemer.runtime.shapes import Integers

SERIAL_BYTES = 48 << 10  # a step that moves less and computes less than this is not worth waking a thread for
SERIAL_FLOPS = 400_000


class NativeSteps:
    """The steps of one context. Its integers are added to `integers`."""

    def __init__(self, program: Program, weights: np.ndarray, arena: np.ndarray, integers: Integers) -> None:
        self.program, self.weights, self.arena, self.integers = program, weights, arena, integers
        self.pointers: list[int] = []  # fixed addresses, 0 where patched
        self.patches: dict[tuple[str, int], list[int]] = {}  # (space, offset) -> pointer slots
        self.shifts: dict[int, int] = {}  # pointer slot -> integer slot that holds the bytes to add
        self.integers.add(0)  # those of the others
        self.steps = [self._step(s) for s in program.steps]

    def _step(self, s: Step) -> NativeStep:
        pointer = len(self.pointers)
        match s.kind:
            case "kernel":
                for arg in s.args:
                    if arg.kind == "tensor":
                        self._point(int(arg.value))  # type: ignore[arg-type]
                    elif arg.kind == "workspace":
                        self.pointers.append(self.arena.ctypes.data + s.workspace[0])
                    elif arg.kind != "int":
                        raise DeviceError(f"the cpu runtime passes no arguments of kind {arg.kind!r}")
                integer = len(self.integers.values)
                for arg in s.args:
                    if arg.kind == "int":
                        self.integers.add(arg.value)
                items = self.integers.add(product(s.grid))
                return NativeStep(KERNEL, s.kernel, pointer, integer, items, serial=self._small(s))
            case "copy":
                self._point(s.writes[0])
                self._point(s.reads[0])
                t = self.program.tensors[s.reads[0]]
                return NativeStep(COPY, pointer=pointer, integer=self.integers.add(product(t.shape) * t.dtype.itemsize))
            case "branch":
                self._point(s.reads[0])
                return NativeStep(BRANCH, pointer=pointer, target=s.target)
            case "jump":
                return NativeStep(JUMP, target=s.target)
            case "host":
                return NativeStep(HOST)
        raise DeviceError(f"the cpu runtime has no step of kind {s.kind!r}")

    def _point(self, number: int) -> None:
        t = self.program.tensors[number]
        if t.shift != 0:
            self.shifts[len(self.pointers)] = self.integers.add(t.shift)
        base = {"weights": self.weights, "arena": self.arena}.get(t.space)
        if base is None:
            self.patches.setdefault((t.space, t.offset), []).append(len(self.pointers))
            self.pointers.append(0)
        else:
            self.pointers.append(base.ctypes.data + t.offset)

    def _small(self, s: Step) -> bool:
        nbytes, flops = (substitute(d, self.program.typical) for d in (s.nbytes, s.flops))
        return isinstance(nbytes, int) and nbytes < SERIAL_BYTES and isinstance(flops, int) and flops < SERIAL_FLOPS
