"""bessemer bench ENGINE"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bessemer.cli.feeds import load_feeds, random_feeds
from bessemer.cli.report import console, say_json, size, table
from bessemer.cli.shapes import parse_shapes
from bessemer.runtime.session import Session, load

NAME = "bench"


def command(
    engine: Annotated[Path, typer.Argument(help="An engine file.")],
    inputs: Annotated[list[str] | None, typer.Option("-i", "--input", help="NAME=array.npy, or arrays.npz.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Shapes of random inputs: x:1x3x224x224")] = None,
    runs: Annotated[int, typer.Option(help="Timed runs.")] = 100,
    warmup: Annotated[int, typer.Option(help="Runs before timing.")] = 10,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Time every step.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of random inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure latency and throughput, and with --profile every step."""
    session = load(engine, threads=threads)
    given = load_feeds(inputs or [])
    feeds = {**random_feeds(session.engine, parse_shapes(shapes), seed), **given}
    latency = _latency(session, feeds, warmup, runs)
    result = {"engine": str(engine), "target": session.engine.target, "runs": runs, "latency_ms": latency,
              "throughput_per_s": 1e3 / latency["mean"], "memory": session.engine.memory}  # fmt: skip
    steps = _profile(session, feeds, max(5, min(runs, 50))) if profile else []
    if as_json:
        say_json({**result, "steps": steps} if profile else result)
        return
    columns = tuple(latency)
    table(str(engine), columns, [[f"{latency[c]:.3f}" for c in columns]], numeric=range(len(columns)))
    console.print(f"{result['throughput_per_s']:.1f} runs per second (latency in ms)", highlight=False)
    if profile:
        _print_profile(steps)


def _latency(session: Session, feeds: dict[str, np.ndarray], warmup: int, runs: int) -> dict[str, float]:
    for _ in range(warmup):
        session.run(feeds)
    times = np.empty(runs)
    for k in range(runs):
        started = time.perf_counter()
        session.run(feeds)
        times[k] = (time.perf_counter() - started) * 1e3
    p90, p95, p99 = np.percentile(times, [90, 95, 99])
    return {"min": float(times.min()), "mean": float(times.mean()), "median": float(np.median(times)),
            "p90": float(p90), "p95": float(p95), "p99": float(p99), "max": float(times.max())}  # fmt: skip


def _profile(session: Session, feeds: dict[str, np.ndarray], runs: int) -> list[dict[str, Any]]:
    steps = []
    for number, (step, us) in enumerate(session.profile(feeds, runs)):
        kernel = session.engine.program.kernels[step.kernel].tactic if step.kernel >= 0 else step.kind
        flops, nbytes = session.evaluate(step.flops, feeds), session.evaluate(step.nbytes, feeds)
        steps.append({"step": number, "name": step.name, "kernel": kernel, "us": us,
                      "gflops": flops / max(us, 1e-3) / 1e3,
                      "gbytes_per_s": nbytes / max(us, 1e-3) / 1e3, "bytes": nbytes, "flops": flops,
                      "onnx": list(step.origin)})  # fmt: skip
    return steps


def _print_profile(steps: list[dict[str, Any]]) -> None:
    total = sum(s["us"] for s in steps)
    rows = []
    for s in sorted(steps, key=lambda s: -s["us"]):
        us, onnx = s["us"], s["onnx"]
        rows.append((s["step"], s["name"], s["kernel"], f"{us:.1f}", f"{100 * us / total:.1f}", f"{s['gflops']:.1f}",
                     f"{s['gbytes_per_s']:.1f}", size(s["bytes"]), ", ".join(onnx[:2])))  # fmt: skip
    columns = ("step", "ops", "kernel", "us", "%", "GFLOP/s", "GB/s", "bytes", "ONNX nodes")
    table(f"{len(steps)} steps, {total:.1f} us", columns, rows, numeric=(0, 3, 4, 5, 6, 7))
