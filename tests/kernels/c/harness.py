"""Compiles a C tactic's code with the system's compiler and runs it on guarded buffers, without other stages."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import WORKSPACE, Int, KernelCode, Operand, Problem, Ptr, Tactic
from bessemer.kernels.c import weights
from tests.kernels.compiled import compiled

FLAGS = {
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma"),
    "scalar": (),
}
COMPILER = tuple(
    "gcc -std=gnu11 -O3 -fPIC -ffp-contract=fast -fno-math-errno -Wall -Werror -Wno-unused-function".split()
)
PAGE = mmap.PAGESIZE
T = TypeVar("T")
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@dataclass(frozen=True)
class Machine:
    """A target's face to tactics."""

    arch: str = "avx512"
    name: str = "cpu"
    limits: Mapping[str, int] = field(
        default_factory=lambda: {"threads": 2, "l1": 48 << 10, "l2": 1 << 20, "l3": 32 << 20}
    )


@functools.cache
def supported() -> tuple[str, ...]:
    """ISA levels that this processor runs."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    need = {"avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}, "avx2": {"avx2", "fma"}, "scalar": set()}
    return tuple(level for level, wanted in need.items() if wanted <= flags)


def at_levels(cases: Sequence[T]) -> list[tuple[str, T]]:
    """Every case at the best ISA level, and at one of the others, in turns."""
    best, *others = supported()
    return [(best, case) for case in cases] + [
        (others[k % len(others)], case) for k, case in enumerate(cases) if others
    ]


@functools.cache
def library(text: str, arch: str) -> ctypes.CDLL:
    """The shared object of a kernel's text."""
    command = (*COMPILER, *FLAGS[arch], "-x")
    intrinsics = "#include <immintrin.h>\n"  # to read it is half of what a kernel takes
    header = compiled([*command, "c-header", "source"], intrinsics, ".h.gch").with_suffix("")
    return ctypes.CDLL(str(compiled([*command, "c", "-include", header, "-shared", "source", "-lm"], text)))


class Guarded:
    """`nbytes` that end `slack` bytes before an unreadable page; the bytes before them are a canary.

    With slack the start is aligned to a cache line: what to time with, since a masked load next to an unreadable page
    traps inside the processor.
    """

    def __init__(self, nbytes: int, slack: int = 0) -> None:
        nbytes += -nbytes % 64 + slack if slack else 0
        pages = -(-(nbytes + 64) // PAGE)
        self.map = mmap.mmap(-1, (pages + 1) * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        assert _LIBC.mprotect(start + pages * PAGE, PAGE, 0) == 0
        self.address = start + pages * PAGE - nbytes
        self.bytes = np.frombuffer(self.map, np.uint8, nbytes, pages * PAGE - nbytes)
        self.before = np.frombuffer(self.map, np.uint8, pages * PAGE - nbytes)
        self.before[:] = 0xA5
        self.bytes[:] = 0xFF  # NaN as f32

    def check(self) -> None:
        """Fails where something wrote before the buffer."""
        assert (self.before == 0xA5).all(), "a write before the buffer"


@dataclass
class Call:
    """A kernel bound to buffers: `launches` are (entry, pointers, integers, items)."""

    launches: list[tuple[ctypes._CFuncPtr, ctypes.Array[ctypes.c_void_p], ctypes.Array[ctypes.c_int64], int]]
    output: np.ndarray
    buffers: list[Guarded]
    keep: ctypes.CDLL

    def run(self, pieces: int = 3) -> np.ndarray:
        """Each launch in `pieces` ranges, threads 0 and 1 in turn."""
        for entry, p, d, items in self.launches:
            cuts = [items * i // pieces for i in range(pieces + 1)]
            for i, (a, z) in enumerate(zip(cuts, cuts[1:])):
                if a < z:
                    entry(p, d, a, z, i % 2)
        for buffer in self.buffers:
            buffer.check()
        return self.output


def bind(
    problem: Problem,
    code: KernelCode,
    arrays: Sequence[np.ndarray],
    arch: str,
    env: Mapping[str, int] | None = None,
    slack: int = 0,
) -> Call:
    """`code` on copies of `arrays` (one per operand), constants packed; see Guarded for `slack`."""
    env = env or {}
    arrays = list(arrays)
    for pack in code.packs:
        fn = getattr(weights, pack.transform)
        arrays[pack.operand] = fn(arrays[pack.operand], *pack.params)
        assert arrays[pack.operand].shape == pack.type.shape, (pack, arrays[pack.operand].shape)
    buffers = []
    for array in arrays:
        buffers.append(Guarded(array.nbytes, slack))
        buffers[-1].bytes[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    out_type = problem.outputs[0]
    shape = tuple(evaluate(d, env) for d in out_type.shape)
    nbytes = int(np.prod(shape)) * out_type.dtype.itemsize
    out = Guarded(nbytes, slack)
    buffers.append(out)
    work = Guarded(evaluate(code.workspace, env), slack)
    buffers.append(work)
    lib = library(code.text, arch)
    launches = []
    for launch in code.launches:
        pointers = [
            work.address if a.operand == WORKSPACE else buffers[a.operand].address
            for a in launch.args
            if isinstance(a, Ptr)
        ]
        ints = [evaluate(a.value, env) for a in launch.args if isinstance(a, Int)]
        entry = getattr(lib, launch.entry)
        entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64]
        entry.restype = None
        p, d = (ctypes.c_void_p * max(1, len(pointers)))(*pointers), (ctypes.c_int64 * max(1, len(ints)))(*ints)
        launches.append((entry, p, d, evaluate(launch.grid[0], env)))
    return Call(launches, out.bytes[:nbytes].view(out_type.dtype.numpy).reshape(shape), buffers, lib)


def compute(
    tactic: Tactic,
    problem: Problem,
    arrays: Sequence[np.ndarray],
    arch: str,
    config: Mapping[str, int | str] | None = None,
    env: Mapping[str, int] | None = None,
) -> np.ndarray:
    """The problem's output by `tactic`; it must apply."""
    machine = Machine(arch)
    reason = tactic.applicable(problem, machine)
    assert reason is None, reason
    chosen = config if config is not None else tactic.configs(problem, machine)[0]
    return bind(problem, tactic.emit(problem, machine, chosen), arrays, arch, env).run()


def f32(*shape: Dim) -> TensorType:
    return TensorType(dt.f32, shape)


def matmul_problem(
    a: TensorType,
    b: TensorType,
    out: TensorType,
    *,
    constant: bool = True,
    transpose_a: bool = False,
    transpose_b: bool = False,
    epilogue: ex.Expr | None = None,
    extra: Sequence[TensorType] = (),
    ranges: Mapping[str, Range] | None = None,
    constant_a: bool = False,
) -> Problem:
    operands = (Operand(a, constant_a), Operand(b, constant), *(Operand(t) for t in extra))
    attrs = (("transpose_a", transpose_a), ("transpose_b", transpose_b))
    return Problem("matmul", operands, (out,), attrs, 2, out, epilogue, None, tuple((ranges or {}).items()))


def conv_problem(
    x: TensorType,
    w: TensorType,
    out: TensorType,
    *,
    op: str = "conv",
    layout: str = "NHWC",
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[Dim, ...],
    groups: int = 1,
    epilogue: ex.Expr | None = None,
    extra: Sequence[TensorType] = (),
    ranges: Mapping[str, Range] | None = None,
    constant: bool = True,
    output_padding: tuple[int, ...] = (),
) -> Problem:
    operands = (Operand(x), Operand(w, constant), *(Operand(t) for t in extra))
    attrs: tuple[tuple[str, object], ...] = (
        ("layout", layout), ("strides", strides), ("dilations", dilations), ("pads", pads), ("groups", groups),
    )  # fmt: skip
    if op == "conv_transpose":
        attrs = (*attrs, ("output_padding", output_padding))
    return Problem(op, operands, (out,), attrs, 2, out, epilogue, None, tuple((ranges or {}).items()))  # type: ignore[arg-type]


def bias_relu(rank: int, channels: int, operand: int = 2) -> ex.Expr:
    """max(acc + bias[column], 0)."""
    bias = ex.load(operand, (ex.Axis(f"i{rank - 1}"),), dt.f32)
    return ex.call("max", ex.call("add", ex.Acc(dt.f32), bias), ex.lit(0.0, dt.f32))
