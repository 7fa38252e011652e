"""Is this the machine an engine was made for?"""

from __future__ import annotations

from pathlib import Path

from bessemer.core.errors import EngineMismatchError
from bessemer.engine.engine import Engine


def check_machine(engine: Engine) -> None:
    """EngineMismatchError, with both sides named, where this machine cannot run the engine's code."""
    target = engine.manifest["target"]
    if target["name"] == "cpu":
        needed = set(target["isa"])
        missing = sorted(needed - _cpu_flags()) if needed else []
        if missing:
            raise EngineMismatchError(
                f"the engine is for CPUs with {', '.join(sorted(needed))} ({target['arch']}), "
                f"this one lacks {', '.join(missing)}",
                fix="build it on this machine, or with a lower level such as --target cpu:avx2",
            )
    elif target["name"] != "cuda":
        raise EngineMismatchError(f"the engine is for target {target['name']!r}, which this runtime does not know")


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    line = next((row for row in text.splitlines() if row.startswith("flags")), ":")
    return set(line.partition(":")[2].split())
