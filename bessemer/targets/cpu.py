"""The cpu target: this machine's ISA level, caches and threads, and C kernels linked into one shared object."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from bessemer.core.errors import BuildError, CompilerError
from bessemer.core.processors import processors
from bessemer.kernels.base import KernelCode, Launch, Problem
from bessemer.targets.base import Placement
from bessemer.targets.c_compiler import Source, compile_objects, find_compiler, link_objects

LEVELS = ("avx512", "avx2", "scalar")  # best first
NEEDS = {"avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "fma", "avx2", "f16c", "bmi2"},
         "avx2": {"avx2", "fma", "f16c", "bmi2"}, "scalar": set()}  # fmt: skip
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "scalar": 16}
MFLOPS = {"avx512": 250_000, "avx2": 120_000, "scalar": 15_000}  # per thread, the roofline model's ceiling


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """ISA flags as the kernel lists them; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = [line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")]
    return frozenset(lines[0].split()) if lines else frozenset()


@lru_cache(maxsize=1)
def cpu_model() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def detect_level() -> str:
    """The best ISA level that this machine runs."""
    return next(level for level in LEVELS if cpu_flags() >= NEEDS[level])


def _cache_bytes(index: int, default: int) -> int:
    try:
        text = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size").read_text(encoding="utf-8").strip()
        return int(text.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1)
    except (OSError, ValueError):
        return default


@dataclass(frozen=True)
class LinkedObject:
    """The engine's shared object."""

    blobs: tuple[bytes, ...]

    def placement(self, problem: Problem, code: KernelCode, launch: Launch) -> Placement:
        return Placement(0, source_of(code).symbol(launch.entry))


def source_of(code: KernelCode) -> Source:
    """The C file of a kernel."""
    return Source(code.text, tuple(sorted({launch.entry for launch in code.launches})))


def interpreter() -> Source:
    """The step interpreter, part of every engine."""
    text = resources.files("bessemer.device").joinpath("native/interp.c").read_text(encoding="utf-8")
    return Source(text, ())


@dataclass(frozen=True)
class CpuTarget:
    """One ISA level with a number of threads. `optimise` off is for conformance runs, where only results matter."""

    arch: str
    threads: int
    optimise: bool = True
    name: str = "cpu"
    languages: tuple[str, ...] = ("c",)

    @property
    def limits(self) -> Mapping[str, int]:
        """threads, vector_bytes, cache sizes in bytes, peak rates, and how many candidates are worth timing."""
        return {
            "threads": self.threads, "vector_bytes": VECTOR_BYTES[self.arch], "l1": _cache_bytes(0, 32 << 10),
            "l2": _cache_bytes(2, 1 << 20), "l3": _cache_bytes(3, 16 << 20),
            "mflops": MFLOPS[self.arch] * self.threads, "mbytes_per_s": 40_000, "timed_candidates": 3,
        }  # fmt: skip

    @property
    def isa(self) -> tuple[str, ...]:
        """CPU flags that the code needs."""
        return tuple(sorted(NEEDS[self.arch]))

    def fingerprint(self) -> Mapping[str, Any]:
        compiler = find_compiler()
        return {"target": self.name, "arch": self.arch, "cpu": cpu_model(), "threads": self.threads,
                "compiler": compiler.version, "flags": " ".join(compiler.flags(self.arch, True))}  # fmt: skip

    def defects(self, codes: Iterable[tuple[Problem, KernelCode]]) -> Mapping[KernelCode, str]:
        """Of these kernels those that do not compile, with the compiler's text."""
        sources = {source_of(code): code for _, code in codes}
        objects = compile_objects(list(sources), self.arch, optimise=self.optimise)
        return {code: found for code, found in zip(sources.values(), objects) if isinstance(found, str)}

    def link(self, codes: Iterable[tuple[Problem, KernelCode]]) -> LinkedObject:
        """One shared object of all kernels and the interpreter."""
        sources = sorted({source_of(code) for _, code in codes}, key=lambda s: s.suffix)
        objects = compile_objects([*sources, interpreter()], self.arch, optimise=self.optimise)
        for source, found in zip([*sources, interpreter()], objects):
            if not isinstance(found, Path):
                raise CompilerError(f"a kernel does not compile:\n{found}", where=", ".join(source.entries))
        return LinkedObject((link_objects([o for o in objects if isinstance(o, Path)]),))


def cpu_target(arch: str | None = None, threads: int | None = None) -> CpuTarget:
    """This machine's level, or the one that was named; BuildError for an unknown name."""
    if arch is not None and arch not in LEVELS:
        raise BuildError(f"unknown ISA level {arch!r}", fix=f"use one of {', '.join(LEVELS)}")
    return CpuTarget(arch or detect_level(), threads or processors())
