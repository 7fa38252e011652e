"""PTX without branches, computed by numpy: what a GPU does with a kernel's text, fused products and all.

Triton's interpreter rounds each product and each sum; the compiler for GPUs fuses them where it may. So a scalar
function is only known to hold on a GPU when its PTX does. One thread handles one element: registers are arrays of bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bessemer.kernels.base import KernelCode, Problem
from bessemer.targets.cuda import Request, cuda_target
from bessemer.targets.triton_compile import build

Array = np.ndarray[Any, Any]
TYPES = {"f32": np.float32, "f64": np.float64, "b32": np.uint32, "s32": np.int32, "u32": np.uint32, "b64": np.uint64}
COMPARE: dict[str, Callable[[Array, Array], Any]] = {
    "eq": np.equal, "ne": lambda a, b: (a < b) | (a > b), "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "nan": lambda a, b: np.isnan(a) | np.isnan(b), "num": lambda a, b: (a == a) & (b == b),
}  # fmt: skip
ROUNDED: dict[str, Callable[..., Any]] = {  # of values wide enough that rounding once more does no harm
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "fma": lambda a, b, c: a * b + c,
    "sqrt": np.sqrt, "rcp": np.reciprocal, "abs": np.abs, "neg": np.negative, "min": np.fmin, "max": np.fmax,
}  # fmt: skip
WHOLE: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "shl": np.left_shift, "shr": np.right_shift, "not": np.bitwise_not,
}  # fmt: skip


def ptx_of(problem: Problem, code: KernelCode, arch: str, folder: Path) -> str:
    """The PTX of a kernel's first launch, compiled as engines' kernels are."""
    job = cuda_target(arch).job(Request(problem, code, code.launches[0]))
    fields = {**vars(job), "constants": dict(job.constants), "options": dict(job.options)}
    text: str = build(fields, folder).asm["ptx"]
    return text


def run(text: str, inputs: Sequence[Array]) -> Array:
    """What the kernel stores, given what its loads yield, in their order. KeyError for an instruction unknown here."""
    machine = _Machine(list(inputs))
    body = text[text.index("{", text.index(".entry")) + 1 : text.index("ret;")]
    for name, operands in re.findall(r"^\s+([a-z][\w.]*)\s+([^;\s][^;]*);", body, re.M):
        machine.step(name, re.findall(r"[^\s,{}\[\]+]+", operands))
    return machine.stored


class _Machine:
    def __init__(self, inputs: list[Array]) -> None:
        self.inputs, self.values, self.stored = inputs, dict[str, Array](), np.empty(0)

    def step(self, name: str, operands: list[str]) -> None:
        op, *flags = name.split(".")
        first, rest = operands[0], operands[1:]
        if op == "ld" and flags[0] == "global":
            self.values[first] = self.inputs.pop(0)
        elif op == "st":
            self.stored = self.values[operands[-1]]
        elif flags[-1] in ("s64", "u64") or "wide" in flags or op == "ld":
            return  # addresses
        elif op == "mov":
            self.values[first] = self.read(rest[0], flags[-1])
        elif op == "cvt":
            self.values[first] = self.read(rest[0], flags[-1]).astype(TYPES[flags[-2]])
        elif op == "setp":
            a, b = (self.read(r, flags[-1]) for r in rest)
            self.values[first] = COMPARE[flags[0]](a, b)
        elif op == "selp":
            a, b = (self.read(r, flags[-1]) for r in rest[:2])
            self.values[first] = np.where(self.values[rest[2]], a, b)
        elif flags[-1] == "pred":
            self.values[first] = WHOLE[op](*(self.values[r] for r in rest))
        else:
            self.values[first] = self.compute(op, flags, [self.read(r, flags[-1]) for r in rest])

    def compute(self, op: str, flags: list[str], args: list[Array]) -> Array:
        if flags[-1][0] != "f":
            out: Array = WHOLE[op](*args)
            return out
        wide = np.longdouble if op == "fma" or flags[-1] == "f64" else np.float64
        rounded: Array = ROUNDED[op](*(a.astype(wide) for a in args)).astype(TYPES[flags[-1]])
        return rounded

    def read(self, operand: str, kind: str) -> Array:
        """A register or a literal as values of `kind`."""
        dtype = TYPES[kind]
        if operand.startswith(("%tid", "%ctaid")):
            return np.zeros(1, dtype)
        if operand.startswith("%"):
            return self.values[operand].view(dtype)
        if operand[:2] in ("0f", "0d"):
            return np.array([int(operand[2:], 16)], np.uint32 if operand[1] == "f" else np.uint64).view(dtype)
        return np.array([int(operand, 0)]).astype(dtype)
