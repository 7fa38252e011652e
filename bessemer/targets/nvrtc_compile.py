"""Compiles CUDA C++ kernels to cubins with NVRTC, without a GPU, a driver or header files.

The clusters of a kernel are an attribute of its text (`__cluster_dims__`), so that every launch has them; the ABI names
their size for the checks of an engine. What else a launch must know of a kernel is what its tactic says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

LAUNCH_OPTIONS = frozenset({"warps", "shared", "cluster", "pdl"})
OWN_FEATURES = ("sm_90", "sm_100", "sm_120")  # architectures with instructions that no other has (wgmma)
OPTIONS = ("--std=c++17", "--device-as-default-execution-space", "--ptxas-options=-v")


@cache
def version() -> str | None:
    """The version of NVRTC, "13.0"; None where it, or its binding, is not installed."""
    try:
        from cuda.bindings import nvrtc

        _, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError):  # no binding; no library
        return None
    return f"{major}.{minor}"


def compile_job(job: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The cubin of a job and its launch ABI (see CompiledKernel in targets/cuda.py)."""
    options = dict(job["options"])
    if set(options) != LAUNCH_OPTIONS or job["constants"]:
        raise ValueError(
            f"{job['entry']} is launched with {', '.join([*options, *job['constants']])}, "
            f"CUDA kernels with {', '.join(sorted(LAUNCH_OPTIONS))}"
        )
    cubin, _ = compile_text(job["text"], job["arch"])
    bits = [64 if t.startswith("*") else int(t[1:]) for t in job["types"]]
    return cubin, {
        "symbol": job["entry"], "params": bits, "scratch": [], "shared": int(options["shared"]),
        "warps": int(options["warps"]), "pdl": bool(options["pdl"]), "cluster": int(options["cluster"]),
    }  # fmt: skip


def compile_text(text: str, arch: str) -> tuple[bytes, str]:
    """The cubin of a whole text, and the compiler's log with the registers and spills of each kernel.

    ValueError shows the log where it does not compile."""
    from cuda.bindings import nvrtc

    target = f"{arch}a" if arch in OWN_FEATURES else arch
    options = [f"--gpu-architecture={target}", *OPTIONS]
    program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], []))
    try:
        (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        shown = log.rstrip(b"\0 ").decode(errors="replace")
        if failed:
            raise ValueError(shown)
        cubin = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
        _checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return cubin, shown


def _checked(result: tuple[Any, ...]) -> Any:
    failed, *values = result
    if failed:
        raise ValueError(f"NVRTC failed: {failed}")
    return values[0] if values else None
