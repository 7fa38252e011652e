"""What a time on the CPU depends on: the processor, its clocks, its threads, what else runs, and the packages."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bessemer.targets.cpu import CpuTarget

PACKAGES = ("numpy", "onnx", "onnxruntime")
CPUINFO = Path("/proc/cpuinfo")
FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def fingerprint(target: CpuTarget) -> dict[str, Any]:
    """The processor, its threads and its limits, Python, the compiler and the packages: the same in every run."""
    out = {
        **target.fingerprint(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "packages": {p: version(p) for p in PACKAGES},
    }  # fmt: skip
    for name in ("scaling_governor", "cpuinfo_max_freq"):
        if (FREQUENCY / name).is_file():
            out[name] = (FREQUENCY / name).read_text(encoding="utf-8").strip()
    return out


def state() -> dict[str, Any]:
    """How busy the machine is, and how fast: the load of the last minute, and least, middle and greatest MHz of the
    cores (where the system tells)."""
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.is_file() else ""
    mhz = [float(found) for found in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.M)]
    out: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
    if mhz:
        out["mhz"] = [round(float(v)) for v in (min(mhz), np.median(mhz), max(mhz))]
    return out


def result_name(cpu: str, day: date) -> str:
    """The name of a result: the machine, then the day. "AMD EPYC 9R45" on 21 November gives
    amd-epyc-9r45-2026-11-21.json."""
    words = re.sub(r"\(.*?\)|@.*|\b(cpu|processor|\d+-core)\b", " ", cpu.lower())
    return f"{'-'.join(re.findall(r'[a-z0-9]+', words)) or 'cpu'}-{day.isoformat()}.json"
