"""Is this the machine, and the library, that an engine was made for?"""

from __future__ import annotations

import platform
from pathlib import Path

from bessemer import __version__
from bessemer.core.errors import EngineFormatError, EngineMismatchError
from bessemer.engine.engine import Engine

ELF_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def check_machine(engine: Engine) -> None:
    """EngineMismatchError, with both sides named, where this machine or library cannot run the engine's code.

    EngineFormatError where the manifest lacks what that depends on."""
    _check_version(str(engine.manifest.get("bessemer")))
    target = engine.manifest["target"]
    if target["name"] == "cpu":
        threads = target.get("threads")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise EngineFormatError(f"the engine's manifest names {threads!r} as its number of threads")
        _check_processor(bytes(engine.blobs[0][:20]) if engine.blobs else b"")
        needed = {str(flag) for flag in target.get("isa", ())}
        missing = sorted(needed - _cpu_flags()) if needed else []
        if missing:
            raise EngineMismatchError(
                f"the engine is for CPUs with {', '.join(sorted(needed))} ({target['arch']}), "
                f"this one lacks {', '.join(missing)}",
                fix="build it on this machine, or with a lower level such as --target cpu:avx2",
            )
    elif target["name"] != "cuda":
        raise EngineMismatchError(
            f"the engine is for target {target['name']!r}, this runtime knows 'cpu' and 'cuda'",
            fix="build it for one of those",
        )


def _check_version(built_by: str) -> None:
    """Native steps and host steps rely on the library that made them: releases of one minor version fit together."""
    if built_by.split(".")[:2] != __version__.split(".")[:2]:
        raise EngineMismatchError(
            f"the engine was built by Bessemer {built_by}, this is Bessemer {__version__}",
            fix="build the engine again with this version",
        )


def _check_processor(start: bytes) -> None:
    """The native code is an ELF object, whose header names its processor."""
    if len(start) < 20 or start[:4] != b"\x7fELF":
        raise EngineMismatchError(
            f"the engine's native code starts with {start[:4]!r}, this runtime loads ELF objects",
            fix="build the engine on this system",
        )
    number = int.from_bytes(start[18:20], "little" if start[5] == 1 else "big")
    made_for = ELF_MACHINES.get(number, f"ELF machine {number}")
    here = platform.machine().lower()
    if made_for != ALIASES.get(here, here):
        raise EngineMismatchError(
            f"the engine is for {made_for} processors, this one is {platform.machine()}",
            fix="build it on this machine",
        )


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    line = next((row for row in text.splitlines() if row.startswith("flags")), ":")
    return set(line.partition(":")[2].split())
