"""Engines against onnxruntime on this CPU, model by model, pair by pair; JSON with the machine's fingerprint.

    python -m bench [MODEL ...] [--tune off] [-o bench/results/MACHINE-DAY.json]

All models of the zoo where none is named. Each is built once for its whole range of shapes, checked at every listed
shape, and timed at the first: blocks of runs of ours and of onnxruntime in turn, same threads, same input, each with
the cores to itself. Rows of the file that an earlier run on this machine wrote stay, where this run does not measure
them again. The load and the clocks of the machine stand beside every row: a figure taken on a busy machine is good for
its ratio only.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import bessemer
from bench.host import fingerprint, result_name, state
from bessemer.cli.verbs.compare import relative_error
from bessemer.targets.cpu import cpu_target
from zoo.export import ExportError
from zoo.models import MODELS

ROUNDS = 7
SECONDS = 0.2  # of each block of runs
SETTLE = 0.1  # seconds before a block: the other's threads spin for tens of milliseconds after their last run
WARM = 0.02  # seconds of runs at the start of a block that do not count: caches hold the other's data
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"some of {', '.join(MODELS)}")
    parser.add_argument("--tune", default="device", help="off, cache or device")
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("-o", "--output", type=Path, default=None)
    args = parser.parse_args()
    unknown = [key for key in args.models if key not in MODELS]
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    target = cpu_target()
    machine = fingerprint(target)
    output = args.output or RESULTS / result_name(machine["cpu"], date.today())
    rows = _earlier(output, machine)
    for key in args.models or MODELS:
        try:
            rows[key] = measure(key, args.tune, args.cache, target.threads)
        except ExportError as error:
            print(f"{key:12} left out: {error}", flush=True)
            continue
        print(_line(rows[key]), flush=True)
        _save(output, machine, rows)
    if rows:
        print(f"geometric mean of onnxruntime's time over ours: {_mean(rows):.2f}; {output}")


def measure(key: str, tune: str, cache: Path | None, threads: int) -> dict[str, Any]:
    """One model: its error at every shape, its time at the first."""
    import onnxruntime

    model, before = MODELS[key], state()
    started = time.perf_counter()
    engine = bessemer.build(model.path(), profiles=[bessemer.Profile(model.bounds())], tune=tune, timing_cache=cache)
    built = time.perf_counter() - started
    session = bessemer.load(engine)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    peer = onnxruntime.InferenceSession(str(model.path()), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in peer.get_outputs()]
    errors = {}
    for shapes in model.shapes:
        feeds = model.make_inputs(shapes, np.random.default_rng(7))
        want, got = dict(zip(names, peer.run(names, feeds))), session.run(feeds)
        errors[shapes.name] = max(relative_error(got[k], want[k]) for k in names)
    feeds = model.make_inputs(model.shapes[0], np.random.default_rng(7))
    ours, theirs = _in_turn(lambda: session.run(feeds), lambda: peer.run(names, feeds))
    return {
        "model": key, "shapes": {k: list(v.shape) for k, v in feeds.items()}, "tune": tune, "errors": errors,
        "relative_error": max(errors.values()), "ms": _summary(ours), "onnxruntime_ms": _summary(theirs),
        "ratio": float(np.median(np.array(theirs) / np.array(ours))), "build_s": built,
        "onnx_nodes": engine.manifest["model"]["nodes"], "steps": len(engine.program.steps), "memory": engine.memory,
        "slow_paths": engine.manifest["slow_paths"], "before": before, "after": state(),
    }  # fmt: skip


def _in_turn(a: Callable[[], object], b: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Mean ms per run of each, block by block in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    counts = []
    for fn in (a, b):
        fn()
        started = time.perf_counter()
        fn()
        counts.append(max(1, int(SECONDS / max(time.perf_counter() - started, 1e-6))))
    for _ in range(ROUNDS):
        for fn, count, out in zip((a, b), counts, times):
            time.sleep(SETTLE)
            started = time.perf_counter()
            while time.perf_counter() - started < WARM:
                fn()
            started = time.perf_counter()
            for _ in range(count):
                fn()
            out.append((time.perf_counter() - started) / count * 1e3)
    return times


def _summary(ms: list[float]) -> dict[str, float]:
    return {"median": float(np.median(ms)), "min": min(ms), "max": max(ms)}


def _earlier(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """The rows of a file that this machine wrote, by model."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {row["model"]: row for row in found["models"]} if found["machine"] == machine else {}


def _save(path: Path, machine: dict[str, Any], rows: dict[str, Any]) -> None:
    result = {
        "machine": machine, "models": [rows[key] for key in MODELS if key in rows], "geometric_mean_ratio": _mean(rows),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _mean(rows: dict[str, Any]) -> float:
    """Geometric mean of the ratios."""
    return math.exp(sum(math.log(r["ratio"]) for r in rows.values()) / len(rows))


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['model']:12} {row['ms']['median']:9.3f} ms, onnxruntime {row['onnxruntime_ms']['median']:9.3f} ms, "
        f"ratio {row['ratio']:.2f}, error {row['relative_error']:.1e}, {row['onnx_nodes']} nodes in {row['steps']} "
        f"steps, built in {row['build_s']:.0f} s, load {row['after']['load']}"
    )


if __name__ == "__main__":
    main()
