"""What a target is: a device's limits, the kernel languages it compiles, and how chosen kernels become binaries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bessemer.core.errors import BuildError
from bessemer.kernels.base import KernelCode, Launch, Problem


@dataclass(frozen=True)
class Placement:
    """Where a compiled launch is: the binary's number, its symbol, and what a launch must know of it."""

    blob: int
    symbol: str
    abi: Mapping[str, Any] = field(default_factory=dict)


class Linked(Protocol):
    """The binaries of an engine."""

    @property
    def blobs(self) -> tuple[bytes, ...]: ...

    def placement(self, problem: Problem, code: KernelCode, launch: Launch) -> Placement:
        """Where a launch of `code` for `problem` is."""


class Target(Protocol):
    """A device that engines are built for. `limits` are what tactics and the roofline model ask."""

    @property
    def name(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def limits(self) -> Mapping[str, int]: ...

    def fingerprint(self) -> Mapping[str, Any]:
        """What a measured time depends on; part of the timing cache's keys."""

    def defects(self, codes: Iterable[tuple[Problem, KernelCode]]) -> Mapping[KernelCode, str]:
        """Of these kernels those that do not compile, with the compiler's text. The others are kept for `link`."""

    def link(self, codes: Iterable[tuple[Problem, KernelCode]]) -> Linked:
        """Compile all launches of these kernels; CompilerError where one does not compile."""


def cache_folder(kind: str) -> Path:
    """Where compiled kernels of a kind are kept: in $BESSEMER_CACHE, else in bessemer in the user's cache folder."""
    own = os.environ.get("BESSEMER_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bessemer"
    return (Path(own) if own else user) / kind


def no_room(folder: Path, why: str | None) -> BuildError:
    """The machine's fault, not a kernel's: a full disk, or a folder that cannot be written."""
    return BuildError(
        f"compiled kernels cannot be written: {why}", where=str(folder),
        fix="free space there, or set BESSEMER_CACHE (and TMPDIR) to a folder with room",
    )  # fmt: skip


def resolve(text: str, threads: int | None = None) -> Target:
    """The target called "cpu", "cpu:avx2", "cuda" or "cuda:sm_90"; `threads` is for the CPU."""
    name, _, arch = text.partition(":")
    if name == "cpu":
        from bessemer.targets.cpu import cpu_target

        return cpu_target(arch or None, threads)
    if name == "cuda":
        from bessemer.targets.cuda import cuda_target

        return cuda_target(arch or None)
    raise BuildError(f"unknown target {text!r}", fix="use cpu, cpu:avx2, cuda or cuda:sm_90")
