"""Every zoo model as an engine on one NVIDIA GPU: accuracy, repeatability, device time, build time; one JSON per run.

    python -m bench.gpu_models --precision fp16 bf16 -o bench/results/gpu-models.json a1-det f1

Accuracy is against onnxruntime on the CPU in fp32, at each of the model's shapes. The peers are in bench.gpu.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import bessemer
from bench.machine import fingerprint
from bessemer.cli.verbs.compare import relative_error
from zoo.models import MODELS

RUNS = 100


def reference(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime's outputs on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def summary(times: list[float]) -> dict[str, float]:
    """Median, least and 99th percentile."""
    return {"median": float(np.median(times)), "min": min(times), "p99": float(np.percentile(times, 99))}


def _same_classes(got: np.ndarray, want: np.ndarray) -> float:
    """The share of rows whose greatest element is the same one."""
    return float((got.argmax(-1) == want.argmax(-1)).mean())


def measure(key: str, precision: str, cache: Path, tune: str, count: int, static: bool) -> list[dict[str, Any]]:
    """Build one model and run it at each of its shapes."""
    model = MODELS[key]
    bounds = model.bounds()
    profiles = [bessemer.Profile(bounds)] if bounds and not static else None
    shapes = dict(model.shapes[0].dims) if bounds and static else None
    started = time.perf_counter()
    engine = bessemer.build(
        model.path(), target="cuda", precision=precision, profiles=profiles, shapes=shapes,
        timing_cache=cache, tune=tune, log=print,
    )
    built = time.perf_counter() - started
    session = bessemer.load(engine)
    rows: list[dict[str, Any]] = []
    for wanted in model.shapes[: 1 if static else count]:
        feeds = model.make_inputs(wanted, np.random.default_rng(7))
        want = reference(Path(model.path()), feeds)
        got, again = session.run(feeds), session.run(feeds)
        times = session.device_ms(feeds, RUNS)  # type: ignore[attr-defined]
        rows.append(
            {
                "model": key, "precision": precision, "shapes": {k: list(v.shape) for k, v in feeds.items()},
                "relative_error": max(relative_error(got[k], want[k]) for k in want),
                "classes": {k: _same_classes(got[k], want[k]) for k in model.tolerance.classes},
                "integers_equal": all(np.array_equal(got[k], want[k]) for k in want if want[k].dtype.kind in "biu"),
                "repeatable": all(got[k].tobytes() == again[k].tobytes() for k in got),
                "device_ms": summary(times),
                "build_s": built, "steps": len(engine.program.steps), "memory": engine.memory,
                "slow_paths": engine.manifest["slow_paths"],
            }
        )  # fmt: skip
        last = rows[-1]
        print(
            f"{key:12} {precision} {last['shapes']} err {last['relative_error']:.1e} same {last['repeatable']} "
            f"classes {min(last['classes'].values(), default=1.0):.3f} integers {last['integers_equal']} "
            f"{last['device_ms']['median']:.3f} ms, {last['steps']} steps, built in {built:.0f} s",
            flush=True,
        )
    if rows:
        feeds = model.make_inputs(model.shapes[0], np.random.default_rng(7))
        steps = sorted(session.profile(feeds, 10), key=lambda s: -s[1])
        rows[0]["top_steps"] = [
            [s.name, engine.program.kernels[s.kernel].tactic if s.kernel >= 0 else s.kind,
             dict(engine.program.kernels[s.kernel].config) if s.kernel >= 0 else {}, us] for s, us in steps[:12]
        ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--precision", nargs="+", default=["fp16"])
    parser.add_argument("--cache", type=Path, default=Path("h200.jsonl"))
    parser.add_argument("--tune", default="device")
    parser.add_argument("--shapes", type=int, default=1, help="how many of each model's shapes")
    parser.add_argument("--static", action="store_true", help="fix the first shape instead of a dynamic range")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/gpu-models.json"))
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": fingerprint(), "engines": [], "failures": []}
    for key in args.models:
        for precision in args.precision:
            try:
                results["engines"] += measure(key, precision, args.cache, args.tune, args.shapes, args.static)
            except bessemer.BessemerError as error:
                print(f"{key} {precision} FAILED {error}"[:1500], flush=True)
                results["failures"].append({"model": key, "precision": precision, "error": str(error)})
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
