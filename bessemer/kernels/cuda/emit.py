"""Texts of CUDA kernels: a template, its constants, the problem's epilogue, and the functions that all of it calls.

A template is a file of templates/ that names its parts @SO@. It is complete C++17 with them, needs no header files, and
every function in it is a device function. Besides the parts that a tactic gives, a template has

- @EPILOGUE_PARAMETERS@ and @EPILOGUE_NAMES@, the parameters of the epilogue's functions (see epilogue.py) and the names
  to pass for them, each with a comma before it; `Module.args` are the launch's arguments at that position;
- its constants, `constexpr int`s before everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bessemer.core.dtype import DType
from bessemer.kernels.base import Arg, Problem
from bessemer.kernels.cuda import scalar
from bessemer.kernels.cuda.epilogue import Epilogue, epilogue

ARCH = "sm_90"  # what these kernels are written for: it has products of warpgroups, clusters and tensor copies


@dataclass(frozen=True)
class Module:
    """A complete text, and the launch's arguments at the position of EPILOGUE_PARAMETERS."""

    text: str
    args: tuple[Arg, ...]


def module(
    name: str, problem: Problem, constants: Mapping[str, int], parts: Mapping[str, str], store: Epilogue | None = None
) -> Module:
    """The text of templates/`name` with the epilogue of `problem`, or `store` if given. KeyError for a part that is
    not given."""
    store = store or epilogue(problem)
    known = {
        **parts,
        "EPILOGUE_PARAMETERS": "".join(f", {p}" for p in store.parameters),
        "EPILOGUE_NAMES": "".join(f", {n}" for n in store.names),
    }  # fmt: skip
    source = re.sub(r"@(\w+)@", lambda m: known[m.group(1)], scalar.template(name))
    header = scalar.template("types.cuh") + "\n" + scalar.template("ptx.cuh")
    numbers = "".join(f"constexpr int {key} = {value};\n" for key, value in constants.items())
    return Module("\n".join([header, numbers, scalar.assemble(f"{store.text}\n{source}")]), store.args)


def warpgroup_product(columns: int, dtype: DType, name: str = "product") -> str:
    """The function `name(sums, a, b)`: adds a [64, 16] times b [columns, 16] transposed, both described in shared
    memory, to the warpgroup's f32 sums. `columns` is a multiple of 8 up to 256, `dtype` f16 or bf16."""
    count = columns // 2
    places = ", ".join(f"%{k}" for k in range(count))
    outputs = ", ".join(f'"+f"(sums[{k}])' for k in range(count))
    return (
        f"inline void {name}(float (&sums)[{count}], uint64_t a, uint64_t b) {{\n"
        f'    asm volatile("wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} "\n'
        f'                 "{{{places}}}, %{count}, %{count + 1}, 1, 1, 1, 0, 0;"\n'
        f'                 : {outputs} : "l"(a), "l"(b));\n}}\n'
    )


def warpgroup_product_that_starts(columns: int, dtype: DType, name: str = "product") -> str:
    """The function `name(sums, a, b, keep)`: like `warpgroup_product`, but the sums start anew unless `keep`."""
    count = columns // 2
    places = ", ".join(f"%{k}" for k in range(count))
    outputs = ", ".join(f'"+f"(sums[{k}])' for k in range(count))
    return (
        f"inline void {name}(float (&sums)[{count}], uint64_t a, uint64_t b, bool keep) {{\n"
        f'    asm volatile("{{ .reg .pred keep; setp.ne.b32 keep, %{count + 2}, 0; "\n'
        f'                 "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} "\n'
        f'                 "{{{places}}}, %{count}, %{count + 1}, keep, 1, 1, 0, 0; }}"\n'
        f'                 : {outputs} : "l"(a), "l"(b), "r"(static_cast<int>(keep)));\n}}\n'
    )


def warpgroup_product_of_registers(columns: int, dtype: DType, name: str) -> str:
    """The function `name(sums, a, b)`: like `warpgroup_product`, with a's fragment in four registers, and b's rows
    running along the sum ([16, columns] as it lies in memory)."""
    count = columns // 2
    places = ", ".join(f"%{k}" for k in range(count))
    left = ", ".join(f"%{count + k}" for k in range(4))
    outputs = ", ".join(f'"+f"(sums[{k}])' for k in range(count))
    return (
        f"inline void {name}(float (&sums)[{count}], const uint32_t *a, uint64_t b) {{\n"
        f'    asm volatile("wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} "\n'
        f'                 "{{{places}}}, {{{left}}}, %{count + 4}, 1, 1, 1, 1;"\n'
        f'                 : {outputs} : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));\n}}\n'
    )


def warpgroup_product_of_gathered_rows(columns: int, dtype: DType, name: str = "product") -> str:
    """The function `name(sums, a, b, keep)`: like `warpgroup_product_that_starts`, with a's fragment in registers."""
    count = columns // 2
    places = ", ".join(f"%{k}" for k in range(count))
    left = ", ".join(f"%{count + k}" for k in range(4))
    outputs = ", ".join(f'"+f"(sums[{k}])' for k in range(count))
    registers = ", ".join(f'"r"(a[{k}])' for k in range(4))
    return (
        f"inline void {name}(float (&sums)[{count}], const uint32_t (&a)[4], uint64_t b, bool keep) {{\n"
        f'    asm volatile("{{ .reg .pred keep; setp.ne.b32 keep, %{count + 5}, 0; "\n'
        f'                 "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} "\n'
        f'                 "{{{places}}}, {{{left}}}, %{count + 4}, keep, 1, 1, 0; }}"\n'
        f'                 : {outputs} : {registers}, "l"(b), "r"(static_cast<int>(keep)));\n}}\n'
    )
