"""Runs CUDA kernels on the CPU: the kernel's own text with emulator.h in the place of the instructions of ptx.cuh."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.tensor_map import TensorMap, Window
from bessemer.kernels.base import Int, KernelCode, Launch, Map, Problem
from bessemer.kernels.c import scalar as c_scalar
from bessemer.kernels.cuda import scalar
from tests.kernels.compiled import compiled
from tests.kernels.triton.harness import GUARD, buffers_of, outputs_of

Array = np.ndarray[Any, Any]
MEMORY = "extern __shared__ __align__(1024) unsigned char memory[];"
PRODUCT = r"inline void (\w+)\(float \(&sums\)\[(\d+)\], uint64_t a, uint64_t b(, bool keep)?\) \{.*?\n\}\n"
OF_REGISTERS = r"inline void (\w+)\(float \(&sums\)\[(\d+)\], const uint32_t \*a, uint64_t b\) \{.*?\n\}\n"
GATHERED = (
    r"inline void (\w+)\(float \(&sums\)\[(\d+)\], const uint32_t \(&a\)\[4\], uint64_t b, bool keep\) \{"
    r".*?\n\}\n"
)
MAP_WORDS = 21  # of 8 bytes
HERE = Path(__file__).parent
GPU = ("threads", "copies", "products", "main")  # compiled as one text, in this order
COMPILER = ("g++", "-std=c++20", "-O1", "-w")


def emulate(
    problem: Problem, code: KernelCode, operands: Sequence[Array], folder: Path, env: Mapping[str, int] | None = None
) -> list[Array]:
    """The outputs of `code` (of one launch) on `operands`. AssertionError where it fails, or writes out of bounds."""
    env = dict(env or {})
    (launch,) = code.launches
    buffers = buffers_of(problem, code, operands, env)
    data = folder / "buffers"
    with data.open("wb") as file:
        for arg in launch.args:
            if isinstance(arg, Int):
                file.write(_head(-1, evaluate(arg.value, env)))
            else:
                whole = GUARD + buffers[arg.operand][0] + GUARD
                file.write(_head(len(whole), 0, arg.map.at(env) if isinstance(arg, Map) else None) + whole)
    options = dict(launch.options)
    grid = [*(evaluate(d, env) for d in launch.grid), 1, 1][:3]
    numbers = [*grid, options["cluster"], 32 * options["warps"], len(GUARD)]
    command = [_program(code.text, len(launch.args)), data, *map(str, numbers)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr}"
    return _outputs(problem, launch, data.read_bytes(), env)


def _head(size: int, number: int, m: TensorMap | None = None) -> bytes:
    """What goes before an argument's bytes: see main of emulator_main.cpp, and TensorMap of emulator.h."""
    numbers = [0] * MAP_WORDS
    if m is not None:
        w = m.window or Window((0, 0), (0, 0), (1, 1))
        assert m.swizzle in (0, 2 * m.box[0])
        padded = [(*values, 0, 0, 0, 0)[:4] for values in (m.dims, m.strides, m.box)]
        numbers = [0, len(m.dims), *padded[0], *padded[1], *padded[2], m.swizzle, *w.lower, *w.upper, *w.steps]
    return np.array([size, number, *numbers], np.int64).tobytes()


def _program(text: str, args: int) -> Path:
    """The program of a kernel of `args` arguments, for all sizes that are arguments."""
    values = ", ".join(f"values[{k}]" for k in range(args))
    gpu = compiled(
        [*COMPILER, "-O2", "-I", HERE, "-c", "-x", "c++", "source"],
        "\n".join(HERE.joinpath(f"emulator_{part}.cpp").read_text() for part in GPU), ".o",
    )
    header = compiled([*COMPILER, "-x", "c++-header", "source"], HERE.joinpath("emulator.h").read_text(), ".h.gch")
    command = [*COMPILER, gpu, "-include", header.with_suffix(""), "-x", "c++", "source"]
    return compiled(command, f"{host_text(text)}\nvoid kernel_of(const Value *values) {{ kernel({values}); }}\n")


def host_text(text: str) -> str:
    """A kernel's text for the emulator: without instructions, and C's functions where the GPU's are of them."""
    own = scalar.functions()
    headers = (scalar.template(name) for name in ("types.cuh", "ptx.cuh", "tensor.cuh", "warp.cuh", "image.cuh"))
    for piece in (*headers, *own.values()):
        text = text.replace(scalar.device_words(piece), "")
    known = dict(c_scalar.functions()) | {
        name: piece for name, piece in own.items() if not re.search(r"\basm\b", piece)
    }
    kind = "bf16" if "f32.bf16.bf16" in text else "f16"
    text = re.sub(PRODUCT, rf"inline void \1(float (&sums)[\2], uint64_t a, uint64_t b, bool keep = true) {{ "
                  rf"product_by_thread(sums, \2, a, b, keep, f32_of_{kind}); }}\n", text, flags=re.S)  # fmt: skip
    text = re.sub(OF_REGISTERS, rf"inline void \1(float (&sums)[\2], const uint32_t *a, uint64_t b) {{ "
                  rf"product_of_registers_by_thread(sums, \2, a, b, f32_of_{kind}); }}\n",
                  text, flags=re.S)  # fmt: skip
    text = re.sub(GATHERED, rf"inline void \1(float (&sums)[\2], const uint32_t *a, uint64_t b, bool keep) {{ "
                  rf"product_of_gathered_rows_by_thread(sums, \2, a, b, keep, f32_of_{kind}); }}\n",
                  text, flags=re.S)  # fmt: skip
    text = text.replace(MEMORY, "unsigned char *const memory = own->memory;")
    return scalar.device_words(c_scalar.called(f"{text} f32_of_{kind}(", known)) + text


def _outputs(problem: Problem, launch: Launch, data: bytes, env: Mapping[str, int]) -> list[Array]:
    found, position, count = {}, 0, len(problem.operands)
    for arg in launch.args:
        size = int(np.frombuffer(data[position : position + 8], np.int64)[0])
        position += 16 + 8 * MAP_WORDS
        if not isinstance(arg, Int):
            whole = data[position : position + size]
            assert whole.startswith(GUARD) and whole.endswith(GUARD), f"{arg} was written outside its bounds"
            found[arg.operand] = whole[len(GUARD) : -len(GUARD)]
            position += size
    return outputs_of(problem, [found[count + j] for j in range(len(problem.outputs))], env)
