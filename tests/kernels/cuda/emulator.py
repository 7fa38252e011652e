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
from tests.kernels.triton.harness import GUARD, array_of, buffers_of

Array = np.ndarray[Any, Any]
MEMORY = "extern __shared__ __align__(1024) unsigned char memory[];"
PRODUCT = r"inline void (\w+)\(float \(&sums\)\[(\d+)\], uint64_t a, uint64_t b(, bool keep)?\) \{.*?\n\}\n"
OF_REGISTERS = r"inline void (\w+)\(float \(&sums\)\[(\d+)\], const uint32_t \*a, uint64_t b\) \{.*?\n\}\n"
MAP_WORDS = 18  # of 8 bytes
MAIN = r"""
struct Value {
    void *pointer;
    int64_t number;

    template <class T> operator T *() const { return static_cast<T *>(pointer); }

    operator int() const { return static_cast<int>(number); }

    operator int64_t() const { return number; }

    operator TensorMap() const {
        TensorMap map;
        memcpy(&map, header, sizeof(map));
        map.elements = static_cast<const uint16_t *>(pointer);
        return map;
    }

    int64_t header[sizeof(TensorMap) / 8];
};

int main(int, char **argv) {
    FILE *file = fopen(argv[1], "r+b");
    std::vector<Value> values(COUNT);
    std::vector<int64_t> sizes(COUNT);
    for (int k = 0; k < COUNT; k++) {
        int64_t head[2];  // bytes of a buffer, or -1, and a number; then the numbers of a map, or zeros
        if (fread(head, 8, 2, file) != 2 || fread(values[k].header, sizeof(TensorMap), 1, file) != 1)
            fail("short input");
        values[k].number = head[1];
        sizes[k] = head[0];
        if (head[0] < 0)
            continue;
        values[k].pointer = aligned_alloc(256, (head[0] + 255) / 256 * 256);
        if (static_cast<int64_t>(fread(values[k].pointer, 1, head[0], file)) != head[0])
            fail("short input");
        values[k].pointer = static_cast<char *>(values[k].pointer) + GUARD_BYTES;
    }
    launch({GRID_X, GRID_Y, GRID_Z}, CLUSTER, THREADS_OF_BLOCK, [&] { kernel(VALUES); });
    rewind(file);
    for (int k = 0; k < COUNT; k++) {
        fseek(file, 16 + sizeof(TensorMap), SEEK_CUR);
        if (sizes[k] >= 0)
            fwrite(static_cast<char *>(values[k].pointer) - GUARD_BYTES, 1, sizes[k], file);
    }
    return fclose(file);
}
"""


def emulate(
    problem: Problem, code: KernelCode, operands: Sequence[Array], folder: Path, env: Mapping[str, int] | None = None
) -> list[Array]:
    """The outputs of `code` (of one launch) on `operands`. AssertionError where it fails, or writes out of bounds."""
    env = dict(env or {})
    (launch,) = code.launches
    buffers = buffers_of(problem, code, operands, env)
    program = _built(code.text, launch, env, folder)
    data = folder / "buffers"
    with data.open("wb") as file:
        for arg in launch.args:
            if isinstance(arg, Int):
                file.write(_head(-1, evaluate(arg.value, env)))
            else:
                whole = GUARD + buffers[arg.operand][0] + GUARD
                file.write(_head(len(whole), 0, arg.map.at(env) if isinstance(arg, Map) else None) + whole)
    ran = subprocess.run([program, str(data)], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr}"
    return _outputs(problem, launch, data.read_bytes(), env)


def _head(size: int, number: int, m: TensorMap | None = None) -> bytes:
    """What goes before an argument's bytes: see MAIN, and TensorMap of emulator.h."""
    numbers = [0] * MAP_WORDS
    if m is not None:
        w = m.window or Window((0, 0), (0, 0), (1, 1))
        assert m.swizzle == 2 * m.box[0]
        padded = [(*values, 0, 0, 0, 0)[:4] for values in (m.dims, m.strides)]
        numbers = [0, len(m.dims), *padded[0], *padded[1], *m.box[:2], *w.lower, *w.upper, *w.steps]
    return np.array([size, number, *numbers], np.int64).tobytes()


def _built(text: str, launch: Launch, env: Mapping[str, int], folder: Path) -> Path:
    options = dict(launch.options)
    gx, gy, gz = ([evaluate(d, env) for d in launch.grid] + [1, 1])[:3]
    numbers = {
        "COUNT": len(launch.args), "GUARD_BYTES": len(GUARD), "GRID_X": gx, "GRID_Y": gy, "GRID_Z": gz,
        "CLUSTER": options["cluster"], "THREADS_OF_BLOCK": 32 * options["warps"],
        "VALUES": ", ".join(f"values[{k}]" for k in range(len(launch.args))),
    }  # fmt: skip
    main = re.sub(r"\b[A-Z][A-Z_]+\b", lambda m: str(numbers.get(m.group(0), m.group(0))), MAIN)
    source, program = folder / "kernel.cpp", folder / "kernel"
    source.write_text(host_text(text) + main)
    head = Path(__file__).with_name("emulator.h")
    command = ["g++", "-std=c++20", "-O1", "-w", "-pthread", "-include", str(head), str(source), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


def host_text(text: str) -> str:
    """A kernel's text for the emulator: without instructions, and C's functions where the GPU's are of them."""
    own = scalar.functions()
    headers = (scalar.template(name) for name in ("types.cuh", "ptx.cuh", "tensor.cuh", "warp.cuh"))
    for piece in (*headers, *own.values()):
        text = text.replace(scalar.device_words(piece), "")
    known = dict(c_scalar.functions()) | {
        name: piece for name, piece in own.items() if not re.search(r"\basm\b", piece)
    }
    kind = "bf16" if "f32.bf16.bf16" in text else "f16"
    text = re.sub(PRODUCT, rf"inline void \1(float (&sums)[\2], uint64_t a, uint64_t b, bool keep = true) {{ "
                  rf"product_by_thread(sums, a, b, keep, f32_of_{kind}); }}\n", text, flags=re.S)  # fmt: skip
    text = re.sub(OF_REGISTERS, rf"inline void \1(float (&sums)[\2], const uint32_t *a, uint64_t b) {{ "
                  rf"product_of_registers_by_thread(sums, a, b, f32_of_{kind}); }}\n", text, flags=re.S)  # fmt: skip
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
    return [array_of(found[count + j], t, env) for j, t in enumerate(problem.outputs)]
