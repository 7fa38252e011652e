"""From the start of a process to its first result: where the time of a BERT-base engine goes, and its GPU memory.

    python -m bench.cold [ROW] [-o bench/results/h200-cold.json]      # a row of bench.gpu; bert-base-b1-s128
    python -m bench.cold --engine model.engine inputs.npz             # any engine for a GPU

Fresh processes load the engine from its file, which lies in the page cache, and run it once. Some only do that, from
`python -c`: their whole time counts. Others do it stage by stage and tell each. The GPU's memory is what NVML says of
the process after two runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PROCESSES = 5  # of each kind
WHOLE = "import sys, numpy, bessemer; bessemer.load(sys.argv[1]).run(dict(numpy.load(sys.argv[2])))"


def stages(engine: str, inputs: str) -> dict[str, Any]:
    """What one process does, stage by stage, in seconds; called in a process that imported nothing of Bessemer."""
    found: dict[str, Any] = {"start of Python, import numpy": time.time() - float(os.environ["STARTED"])}
    last = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal last
        found[name], last = time.perf_counter() - last, time.perf_counter()

    from bessemer.device.cuda import Device
    from bessemer.device.cuda_api import bindings
    from bessemer.engine.reader import read
    from bessemer.runtime.cuda import CudaSession

    stage("import bessemer")
    api = bindings()
    stage("start the driver")
    Device(0, api)
    stage("make the GPU's context")
    opened = read(engine)
    stage("read and check the file")
    session = CudaSession(opened)
    stage("load kernels, copy weights")
    feeds = dict(np.load(inputs))
    last = time.perf_counter()
    session.run(feeds)
    stage("first run")
    session.run(feeds)
    stage("second run")
    return {"stages": found, "gpu_bytes": _gpu_bytes()}


def _gpu_bytes() -> int | None:
    from bench.machine import gpu_bytes

    return gpu_bytes(os.getpid())


def measure(engine: Path, inputs: Path) -> dict[str, Any]:
    """Medians over fresh processes."""
    from bessemer.engine.reader import read

    whole = []
    for _ in range(PROCESSES):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", WHOLE, str(engine), str(inputs)], check=True)
        whole.append(time.perf_counter() - started)
    told = [json.loads(_child(engine, inputs)) for _ in range(PROCESSES)]
    parts = {name: float(np.median([t["stages"][name] for t in told])) for name in told[0]["stages"]}
    load_s = parts["read and check the file"] + parts["load kernels, copy weights"]
    return {
        "whole_s": float(np.median(whole)), "load_s": load_s, "stages_s": parts, "gpu_bytes": told[0]["gpu_bytes"],
        "memory": read(engine).memory, "file_bytes": engine.stat().st_size,
    }  # fmt: skip


def _child(engine: Path, inputs: Path) -> str:
    command = [sys.executable, "-m", "bench.cold", "--stages", str(engine), str(inputs)]
    env = {**os.environ, "STARTED": repr(time.time())}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def built(row: str, folder: Path, cache: Path | None) -> tuple[Path, Path]:
    """The row's engine and inputs as files."""
    import bessemer
    from bench.rows import ROWS
    from zoo.model import Shapes
    from zoo.models import MODELS

    r = ROWS[row]
    engine = bessemer.build(
        MODELS[r.model].path(), target="cuda", precision="fp16", shapes=dict(r.dims), timing_cache=cache
    )
    inputs = folder / "inputs.npz"
    arrays: dict[str, Any] = MODELS[r.model].make_inputs(Shapes(row, r.dims), np.random.default_rng(7))
    np.savez(inputs, **arrays)
    return engine.save(folder / f"{row}.engine"), inputs


def show(name: str, found: dict[str, Any]) -> None:
    """Print one measurement."""
    print(f"{name}: {found['whole_s']:.2f} s from start to first result; to load {found['file_bytes'] >> 20} MB takes "
          f"{found['load_s']:.2f} s of it")  # fmt: skip
    for stage, seconds in found["stages_s"].items():
        print(f"  {stage:32} {seconds * 1e3:7.1f} ms")
    if found["gpu_bytes"] is not None:
        held = found["memory"]["weights"] + found["memory"]["arena"]
        print(f"  GPU memory {found['gpu_bytes'] >> 20} MB, weights and arena {held >> 20} MB, the context "
              f"{found['gpu_bytes'] - held >> 20} MB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="?", default="bert-base-b1-s128", metavar="ROW")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/h200-cold.json"))
    parser.add_argument("--engine", type=Path, nargs=2, default=None, metavar=("ENGINE", "INPUTS.npz"))
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("--stages", nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stages is not None:
        print(json.dumps(stages(*args.stages)))
        return
    from bench.machine import fingerprint

    with tempfile.TemporaryDirectory() as folder:
        engine, inputs = args.engine or built(args.row, Path(folder), args.cache)
        found = measure(engine, inputs)
    show(args.row if args.engine is None else str(engine), found)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"engine": args.row, "machine": fingerprint(), **found}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
