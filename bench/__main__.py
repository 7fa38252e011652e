"""Engines against onnxruntime on this CPU, model by model, pair by pair; JSON with the machine's fingerprint.

    python -m bench [MODEL ...] [--tune off] [-o bench/results/cpu.json]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import bessemer
from bessemer.cli.verbs.compare import relative_error
from bessemer.targets.cpu import cpu_target
from zoo.models import MODELS

DEFAULT = ("a1-det", "a1-rec", "a1-cls", "c1", "c2", "d0", "d1-a", "d1-b", "e2", "f1", "g1-ifless", "g1-static", "g2",
           "h2", "resnet50", "bert-base")  # fmt: skip
ROUNDS = 7
SECONDS = 0.2  # of each block of runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--tune", default="device")
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/cpu.json"))
    args = parser.parse_args()
    target = cpu_target()
    packages = {p: version(p) for p in ("numpy", "onnxruntime", "onnx")}
    machine = {**target.fingerprint(), "python": platform.python_version(), "packages": packages}
    rows: list[dict[str, Any]] = []
    for key in args.models:
        rows.append(measure(key, args.tune, args.cache, target.threads))
        row = rows[-1]
        print(f"{key:12} {row['ms']['median']:9.3f} ms, onnxruntime {row['onnxruntime_ms']['median']:9.3f} ms, "
              f"ratio {row['ratio']:.2f}, error {row['relative_error']:.1e}, {row['steps']} steps, "
              f"built in {row['build_s']:.0f} s", flush=True)  # fmt: skip
        mean = math.exp(sum(math.log(r["ratio"]) for r in rows) / len(rows))
        result = {"machine": machine, "tune": args.tune, "models": rows, "geometric_mean_ratio": mean}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"geometric mean of onnxruntime's time over ours: {mean:.2f}")


def measure(key: str, tune: str, cache: Path | None, threads: int) -> dict[str, Any]:
    """One model at its first shape."""
    import onnxruntime

    model = MODELS[key]
    bounds = model.bounds()
    profiles = [bessemer.Profile(bounds)] if bounds else None
    started = time.perf_counter()
    engine = bessemer.build(model.path(), profiles=profiles, tune=tune, timing_cache=cache)
    built = time.perf_counter() - started
    session = bessemer.load(engine)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    peer = onnxruntime.InferenceSession(str(model.path()), options, providers=["CPUExecutionProvider"])
    feeds = model.make_inputs(model.shapes[0], np.random.default_rng(7))
    names = [o.name for o in peer.get_outputs()]
    want, got = dict(zip(names, peer.run(names, feeds))), session.run(feeds)
    ours, theirs = _in_turn(lambda: session.run(feeds), lambda: peer.run(names, feeds))
    return {
        "model": key, "shapes": {k: list(v.shape) for k, v in feeds.items()},
        "relative_error": max(relative_error(got[k], want[k]) for k in names), "ms": _summary(ours),
        "onnxruntime_ms": _summary(theirs), "ratio": float(np.median(np.array(theirs) / np.array(ours))),
        "build_s": built, "steps": len(engine.program.steps), "memory": engine.memory,
        "slow_paths": engine.manifest["slow_paths"],
    }  # fmt: skip


def _in_turn(a: Callable[[], object], b: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Mean ms per run of each, block by block in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    counts = []
    for fn in (a, b):
        fn()
        started = time.perf_counter()
        fn()
        counts.append(max(1, int(SECONDS / max(time.perf_counter() - started, 1e-6))))
    for _ in range(ROUNDS):
        for fn, count, out in zip((a, b), counts, times):
            started = time.perf_counter()
            for _ in range(count):
                fn()
            out.append((time.perf_counter() - started) / count * 1e3)
    return times


def _summary(ms: list[float]) -> dict[str, float]:
    return {"median": float(np.median(ms)), "min": min(ms), "max": max(ms)}


if __name__ == "__main__":
    main()
