"""The processors this process may use, and processes of Python that run modules of this package, from wherever it was
imported."""

from __future__ import annotations

import os
from pathlib import Path


def processors() -> int:
    """How many this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, str]:
    """The environment in which `python -m bessemer.some.module` finds this package, and whatever was found so far."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)}
