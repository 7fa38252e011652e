"""The cuda target: NVIDIA GPUs by architecture, and their kernels, Triton or CUDA C++, compiled ahead of time.

    target = cuda_target("sm_90")                     # or cuda_target() for the GPU of this machine
    kernels = target.compile([Request(problem, code, launch), ...])      # cached, in a pool of processes
    for k in kernels:                                  # in the order of the requests
        if isinstance(k, str): ...                     # the compiler's error: this candidate is dropped
        else: k.cubin, k.symbol, k.abi

`target.compile_one(request)` raises CompilerError instead; `target.link` does so for a whole engine. Nothing here
needs a GPU; `cuda_target` asks the driver which one there is, if any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.core.errors import BuildError, CompilerError
from bessemer.core.interval import divisor
from bessemer.core.tensor_map import BITS
from bessemer.kernels.base import COUNTERS, WORKSPACE, Int, KernelCode, Launch, Map, Problem
from bessemer.targets import compile_pool, nvrtc_compile
from bessemer.targets.base import Placement
from bessemer.targets.compile_pool import TIMEOUT, Job

SERIES = {"triton": 2, "cuda": 1}  # leading parts of a compiler's version that timing caches go by
ALIGN = 16  # of every pointer, in bytes: what the planner and the device's allocator give, and run() checks
MEASUREMENT = 2  # of kernels, a version: raise it with any change of how tune/guarded_cuda.py times them
COMPILE_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
TRITON_TYPES = {
    "f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "i64": "i64", "i32": "i32", "i16": "i16", "i8": "i8",
    "u64": "u64", "u32": "u32", "u16": "u16", "u8": "u8", "bool": "i8",
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """What tactics and the roofline model ask of an architecture; `name` is the GPU that the numbers are of.

    `mflops` are dense 16-bit tensor-core MFLOP/s, `fp32_mflops` those of fp32 without tensor cores, `mbytes_per_s` is
    the memory's rate."""

    name: str
    sms: int
    shared_bytes: int  # per block, opted in
    l2_bytes: int
    mflops: int
    mbytes_per_s: int
    registers: int = 65536  # per multiprocessor
    threads: int = 2048  # per multiprocessor
    fp32_mflops: int = 0


ARCHS: Mapping[str, Gpu] = {
    "sm_80": Gpu("NVIDIA A100-SXM4-80GB", 108, 166912, 40 << 20, 312_000_000, 2_039_000, fp32_mflops=19_500_000),
    "sm_86": Gpu("NVIDIA A10", 72, 101376, 6 << 20, 125_000_000, 600_000, threads=1536, fp32_mflops=31_200_000),
    "sm_89": Gpu("NVIDIA L40S", 142, 101376, 96 << 20, 362_000_000, 864_000, threads=1536, fp32_mflops=91_600_000),
    "sm_90": Gpu("NVIDIA H200", 132, 232448, 50 << 20, 989_000_000, 4_800_000, fp32_mflops=67_000_000),
    "sm_100": Gpu("NVIDIA B200", 148, 232448, 126 << 20, 2_250_000_000, 8_000_000, fp32_mflops=80_000_000),
    "sm_120": Gpu(
        "NVIDIA GeForce RTX 5090", 170, 101376, 96 << 20, 210_000_000, 1_792_000, threads=1536, fp32_mflops=104_800_000
    ),
}


@dataclass(frozen=True)
class Request:
    """One launch to compile: `problem` gives the types and divisibility of its arguments."""

    problem: Problem
    code: KernelCode
    launch: Launch

    @property
    def label(self) -> str:
        """For errors: what is computed, and how."""
        options = ", ".join(f"{k}={v}" for k, v in self.launch.options)
        return f"{self.launch.entry} for {self.problem.op} ({options})"


@dataclass(frozen=True)
class CompiledKernel:
    """A cubin, the symbol in it, and how to launch it. `abi` is JSON-ready and goes into the engine:

    params   bits of each of the launch's arguments, in order: 64 (pointer or i64) or 32 (i32)
    scratch  (bytes per program, alignment) of each pointer that follows them; null where the bytes are 0
    shared   bytes of dynamic shared memory
    warps    warps of a program: the block has 32 * warps threads
    pdl      whether it may start before the kernel ahead of it ends (programmatic dependent launch)
    cluster  programs that are scheduled together and reach each other's shared memory; it divides the grid's first dim
    """

    cubin: bytes
    symbol: str
    abi: Mapping[str, Any]


def installed_languages() -> tuple[str, ...]:
    """Triton, and CUDA C++ where its compiler is installed."""
    return ("triton",) if nvrtc_compile.version() is None else ("triton", "cuda")


@dataclass(frozen=True)
class CudaTarget:
    """One architecture. `gpu` is the device of this machine, or the one that stands for the architecture."""

    arch: str
    gpu: Gpu
    name: str = "cuda"
    languages: tuple[str, ...] = field(default_factory=installed_languages)
    folder: Path | None = field(default=None, compare=False)  # of compiled kernels; None: the user's cache

    @property
    def limits(self) -> Mapping[str, int]:
        """sms, shared_bytes (per block), l2 (bytes), registers and threads (per multiprocessor), peak rates, at how
        many shapes dynamic problems are tuned, and pdl (0 or 1)."""
        return {
            "sms": self.gpu.sms, "shared_bytes": self.gpu.shared_bytes, "l2": self.gpu.l2_bytes,
            "registers": self.gpu.registers, "threads": self.gpu.threads, "mflops": self.gpu.mflops,
            "fp32_mflops": self.gpu.fp32_mflops, "mbytes_per_s": self.gpu.mbytes_per_s, "tuned_points": 9,
            "pdl": int(self.pdl),
        }  # fmt: skip

    @property
    def pdl(self) -> bool:
        """Whether a kernel may start before the one ahead of it ends (programmatic dependent launch)."""
        return int(self.arch.removeprefix("sm_")) >= 90

    def fingerprint(self) -> Mapping[str, Any]:
        """What a time depends on: the GPU, the compiler of the kernel's language, and how it is taken.

        Of a compiler's version the parts count by which its kernels differ enough to be timed again (SERIES)."""
        versions = {language: compile_pool.compiler_version(language) for language in self.languages}
        return {
            "target": self.name, "arch": self.arch, "gpu": self.gpu.name, "sms": self.gpu.sms,
            "measurement": MEASUREMENT, **{k: ".".join(v.split(".")[: SERIES[k]]) for k, v in versions.items()},
        }  # fmt: skip

    @property
    def notes(self) -> tuple[str, ...]:
        """What a build should know of this target."""
        if "cuda" in self.languages:
            return ()
        return ("there are no CUDA C++ kernels: NVRTC is not installed (pip install 'bessemer[cuda]')",)

    def compile(
        self, requests: Sequence[Request], *, workers: int | None = None, timeout: float = TIMEOUT,
        done: Callable[[int, int], None] | None = None, seconds: float | None = None,
    ) -> list[CompiledKernel | str | None]:  # fmt: skip
        """Each request's kernel, or the text of its failure. Equal kernels are compiled once, and kept on disk.

        `done(finished, all)` counts those that had to be compiled. After `seconds` the compilers are stopped, and
        what they were not done with is None. CompilerError where a compiler is missing."""
        found = compile_pool.compile_all(
            [self.job(r) for r in requests], workers=workers, timeout=timeout, folder=self.folder, done=done,
            seconds=seconds,
        )  # fmt: skip
        return [None if f is None else self._checked(f) for f in found]

    def compile_one(self, request: Request) -> CompiledKernel:
        """The kernel of one request; CompilerError names it and shows the compiler's text."""
        (found,) = self.compile([request])
        if not isinstance(found, CompiledKernel):
            raise CompilerError(f"could not compile {request.label}:\n{found}", where=self.arch)
        return found

    def defects(self, codes: Iterable[tuple[Problem, KernelCode]]) -> Mapping[KernelCode, str]:
        """Of these kernels those with a launch that does not compile, with the compiler's text."""
        requests = [Request(problem, code, launch) for problem, code in codes for launch in code.launches]
        return {r.code: k for r, k in zip(requests, self.compile(requests)) if isinstance(k, str)}

    def link(self, codes: Iterable[tuple[Problem, KernelCode]]) -> LinkedCubins:
        """All launches of these kernels as cubins; CompilerError lists those that do not compile."""
        requests = [Request(problem, code, launch) for problem, code in codes for launch in code.launches]
        found = self.compile(requests)
        failed = [f"{r.label}:\n{k}" for r, k in zip(requests, found) if not isinstance(k, CompiledKernel)]
        if failed:
            raise CompilerError("could not compile " + "\n".join(failed), where=self.arch)
        kernels = {self.job(r): k for r, k in zip(requests, found) if isinstance(k, CompiledKernel)}
        return LinkedCubins(self, kernels, tuple(sorted({k.cubin for k in kernels.values()}, key=canon.digest)))

    def job(self, request: Request) -> Job:
        """The request as the compiler takes it: types and divisors of its arguments, constants, options."""
        launch, language = request.launch, request.code.language
        typed = [_parameter(request, a) for a in launch.args]
        known = COMPILE_OPTIONS if language == "triton" else nvrtc_compile.LAUNCH_OPTIONS
        options = [(k, v) for k, v in launch.options if k in known]
        constants = [(k, v) for k, v in launch.options if k not in known]
        if language == "triton":
            options.append(("launch_pdl", self.pdl))
            constants.append(("PDL", self.pdl))
        divisors = tuple(d for _, d in typed) if language == "triton" else ()
        return Job(
            request.code.text, launch.entry, self.arch, tuple(t for t, _ in typed), divisors,
            tuple(sorted(constants)), tuple(sorted(options)), language,
        )  # fmt: skip

    def _checked(self, found: tuple[bytes, dict[str, Any]] | str) -> CompiledKernel | str:
        if isinstance(found, str):
            return found
        cubin, abi = found
        if abi["shared"] > self.gpu.shared_bytes:
            return f"needs {abi['shared']} bytes of shared memory; {self.arch} has {self.gpu.shared_bytes}"
        return CompiledKernel(cubin, abi["symbol"], {k: v for k, v in abi.items() if k != "symbol"})


@dataclass(frozen=True)
class LinkedCubins:
    """The cubins of an engine, equal ones once, in the order of their hashes."""

    target: CudaTarget
    kernels: Mapping[Job, CompiledKernel]
    blobs: tuple[bytes, ...]

    def placement(self, problem: Problem, code: KernelCode, launch: Launch) -> Placement:
        """Where a launch of `code` for `problem` is; its `abi` is what Module.kernel of device/cuda takes."""
        kernel = self.kernels[self.target.job(Request(problem, code, launch))]
        return Placement(self.blobs.index(kernel.cubin), kernel.symbol, kernel.abi)


def _parameter(request: Request, arg: Any) -> tuple[str, int]:
    """Triton's type of a launch argument (a tensor map: "m" and its bits), and a power of two, at most 16, that divides
    it."""
    if isinstance(arg, Int):
        return f"i{arg.bits}", min(16, divisor(arg.value, request.problem.range_map)) if arg.value != 0 else 16
    if isinstance(arg, Map):
        return f"m{BITS}", 1
    return f"*{TRITON_TYPES[_element(request, arg.operand).name]}", ALIGN


def _element(request: Request, number: int) -> DType:
    if number == WORKSPACE:
        return dt.f32
    if number == COUNTERS:
        return dt.i32
    for pack in request.code.packs:
        if pack.operand == number:
            return pack.type.dtype
    operands, outputs = request.problem.operands, request.problem.outputs
    return operands[number].type.dtype if number < len(operands) else outputs[number - len(operands)].dtype


def cuda_target(arch: str | None = None, folder: Path | None = None) -> CudaTarget:
    """The target of an architecture ("sm_90"), or of this machine's first GPU.

    Where this machine's GPU has that architecture, its own name and limits are used; but a GPU that ARCHS knows is the
    same target with and without one at hand, so that timings and engines are too. BuildError for an unknown
    architecture, DeviceError where none was named and there is no GPU."""
    if arch is not None and arch not in ARCHS:
        raise BuildError(f"unknown GPU architecture {arch!r}", fix=f"use one of {', '.join(ARCHS)}")
    from bessemer.device import cuda_devices

    present = cuda_devices.find_device() if arch is not None else cuda_devices.require_device()
    if present is None or (arch is not None and present.arch != arch):
        assert arch is not None
        return CudaTarget(arch, ARCHS[arch], folder=folder)
    base = ARCHS.get(present.arch)
    if base is None:
        raise BuildError(
            f"{present.name} has the architecture {present.arch}, which is not supported",
            fix=f"use a GPU of {', '.join(ARCHS)}",
        )
    if (present.name, present.sms) == (base.name, base.sms):
        return CudaTarget(present.arch, base, folder=folder)
    own = Gpu(
        present.name, present.sms, present.shared_bytes, present.l2_bytes, base.mflops, base.mbytes_per_s,
        base.registers, base.threads, base.fp32_mflops,
    )  # fmt: skip
    return CudaTarget(present.arch, own, folder=folder)
