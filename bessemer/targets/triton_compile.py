"""Compiles Triton kernels ahead of time, without a GPU: all that depends on Triton's version.

Seen to work with Triton 3.6 and 3.9. They differ in

- the number of pointers that the launcher appends after the kernel's own arguments (scratch for global memory and for
  profiling): counted in the PTX, so that a version with more or fewer of them still launches;
- the default of FP fusion, which is therefore always given.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from bessemer.core.errors import CompilerError

PTX_BITS = {"u64": 64, "b64": 64, "s64": 64, "f64": 64, "u32": 32, "b32": 32, "s32": 32, "f32": 32}


@cache
def version() -> str:
    """The installed Triton's version; CompilerError where there is none."""
    if importlib.util.find_spec("triton") is None:
        raise CompilerError(
            "Triton, the compiler of GPU kernels, is not installed", fix="pip install 'bessemer[cuda]'"
        )
    return metadata.version("triton")


def settle(folder: Path) -> None:
    """Make the results of this process depend on nothing but its jobs; `folder` is for its own files."""
    for name in ("TRITON_INTERPRET", "TRITON_KERNEL_OVERRIDE", "TRITON_STORE_BINARY_ONLY"):
        os.environ.pop(name, None)  # the user's settings for other work would change what comes out here
    os.environ["TRITON_CACHE_DIR"] = str(folder / "cache")
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # paths in a cubin would differ from machine to machine
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"


def build(job: Mapping[str, Any], folder: Path) -> Any:
    """A job as Triton compiles it: `asm` has its forms by name (ptx, cubin, ...)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = _load_module(job["text"], folder)
    function = getattr(module, job["entry"], None)
    if function is None:
        raise ValueError(f"the kernel's text defines no {job['entry']!r}")
    names = list(function.arg_names)
    types, constants = list(job["types"]), dict(job["constants"])
    plain = [n for n in names if n not in constants]
    if len(plain) != len(types) or set(constants) - set(names):
        raise ValueError(
            f"{job['entry']}({', '.join(names)}) is called with {len(types)} arguments and the constants "
            f"{', '.join(constants) or 'none'}"
        )
    signature = {**dict(zip(plain, types)), **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        fn=function,
        signature={n: signature[n] for n in names},
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={
            (names.index(n),): [["tt.divisibility", d]] for n, d in zip(plain, job["divisors"]) if d > 1
        },
    )  # fmt: skip
    target = GPUTarget("cuda", int(job["arch"].removeprefix("sm_")), 32)
    options = {"enable_fp_fusion": True, **job["options"]}
    return triton.compile(source, target=target, options=options)


def compile_job(job: Mapping[str, Any], folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The cubin of a job and its launch ABI (see CompiledKernel in targets/cuda.py)."""
    compiled = build(job, folder)
    return compiled.asm["cubin"], _abi(compiled.metadata, compiled.asm["ptx"], list(job["types"]))


def _load_module(text: str, folder: Path) -> ModuleType:
    """The module of a kernel's text. Triton reads a function's source from a file, so there is one, by content."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = folder / f"kernel_{digest}.py"
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _abi(metadata: Any, ptx: str, types: list[str]) -> dict[str, Any]:
    head = re.search(r"\.entry\s+(\w+)\s*\((.*?)\)", ptx, re.S)
    if head is None:
        raise ValueError("the PTX has no entry")
    bits = [PTX_BITS[kind] for kind in re.findall(r"\.param\s+\.(\w+)", head.group(2))]
    own = [64 if t.startswith("*") else int(t[1:]) for t in types]
    if bits[: len(own)] != own or any(b != 64 for b in bits[len(own) :]):
        raise ValueError(f"the PTX entry takes {bits}-bit parameters, not {own}")
    scratch = [
        [int(getattr(metadata, f"{use}_scratch_size", 0) or 0), int(getattr(metadata, f"{use}_scratch_align", 1) or 1)]
        for use in ("global", "profile")
    ]
    trailing = len(bits) - len(own)
    if trailing > len(scratch) or any(size for size, _ in scratch[trailing:]):
        raise ValueError(f"the PTX entry takes {trailing} hidden pointers, of unknown use")
    return {
        "symbol": head.group(1), "params": bits[: len(own)], "scratch": scratch[:trailing],
        "shared": int(metadata.shared), "warps": int(metadata.num_warps), "pdl": bool(metadata.launch_pdl),
        "cluster": 1,
    }  # fmt: skip
