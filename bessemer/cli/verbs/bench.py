"""bessemer bench ENGINE"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from bessemer.cli.feeds import feeds_for, read_files
from bessemer.cli.kept import check_kept
from bessemer.cli.report import say, say_json, size, table
from bessemer.cli.shapes import parse_shapes
from bessemer.core.errors import InputError
from bessemer.core.files import replacing
from bessemer.runtime.session import Session, load

if TYPE_CHECKING:
    from bessemer.cli.roofline import Profiled

NAME = "bench"
PROFILED_RUNS = (5, 50)  # at least, and at most


def command(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="An engine file.")],
    inputs: Annotated[list[str] | None, typer.Option("-i", "--input", help="NAME=array.npy, or arrays.npz.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Shapes of random inputs: x:1x3x224x224")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 100,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before timing.")] = 10,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; at most those the engine was built for.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Time every step, against its own roofline.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="With --profile: write achieved against roofline to this .svg file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure latency and throughput, and with --profile every step."""
    if plot is not None and not profile:
        raise InputError("--plot shows what --profile measures", fix="add --profile")
    session = load(engine, threads=threads)
    check_kept("--plot", plot, [("the engine", engine), *read_files(session.engine, inputs or [])])
    feeds = feeds_for(session.engine, inputs or [], parse_shapes(shapes), seed)
    latency = _latency(session, feeds, warmup, runs)
    result: dict[str, Any] = {
        "engine": str(engine), "target": session.engine.target, "runs": runs,
        "shapes": {name: list(array.shape) for name, array in feeds.items()}, "latency_ms": latency,
        "throughput_per_s": 1e3 / latency["mean"], "memory": session.engine.memory,
    }  # fmt: skip
    device = _device_ms(session, feeds, runs)
    if device is not None:
        result["device_ms"] = device
    steps = _profile(session, feeds, runs, plot, engine.name) if profile else []
    if as_json:
        say_json({**result, "steps": [s.json() for s in steps]} if profile else result)
        return
    times = {"whole run": latency} if device is None else {"whole run, with copies": latency, "on the device": device}
    rows = [(name, *(f"{v:.3f}" for v in found.values())) for name, found in times.items()]
    table(f"{engine}, ms", ("", *latency), rows, numeric=range(1, len(latency) + 1))
    say(f"{result['throughput_per_s']:.1f} runs per second, one after the other")
    if profile:
        _print_profile(steps)
    if plot is not None:
        say(f"{plot}: achieved against roofline")


def _latency(session: Session, feeds: Mapping[str, np.ndarray], warmup: int, runs: int) -> dict[str, float]:
    for _ in range(warmup):
        session.run(feeds)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        session.run(feeds)
        times.append((time.perf_counter() - started) * 1e3)
    return _summary(times)


def _device_ms(session: Session, feeds: Mapping[str, np.ndarray], runs: int) -> dict[str, float] | None:
    """Times between two events on the GPU, inputs already there; None for the CPU."""
    if session.engine.manifest["target"]["name"] != "cuda":
        return None
    from bessemer.runtime.cuda import CudaSession

    assert isinstance(session, CudaSession)
    return _summary(session.device_ms(feeds, runs))


def _summary(ms: Sequence[float]) -> dict[str, float]:
    median, p90, p95, p99 = (float(p) for p in np.percentile(ms, [50, 90, 95, 99]))
    return {"min": min(ms), "mean": sum(ms) / len(ms), "median": median, "p90": p90, "p95": p95, "p99": p99,
            "max": max(ms)}  # fmt: skip


def _profile(
    session: Session, feeds: Mapping[str, np.ndarray], runs: int, plot: Path | None, name: str
) -> list[Profiled]:
    from bessemer.cli.plot import roofline_svg
    from bessemer.cli.roofline import ceilings_of, profile

    least, most = PROFILED_RUNS
    steps = profile(session, feeds, max(least, min(runs, most)))
    if plot is not None:
        title = f"{name}, {session.engine.target}"
        with replacing(plot) as file:
            file.write(roofline_svg(title, steps, ceilings_of(session.engine)).encode())
    return steps


def _print_profile(steps: Sequence[Profiled]) -> None:
    total = sum(s.us for s in steps)
    rows = [
        (s.step, s.name, s.kernel, f"{s.us:.1f}", f"{100 * s.us / max(total, 1e-3):.1f}", f"{s.flops / 1e6:.1f}",
         f"{s.gflops:.1f}", size(s.bytes), f"{s.gbytes_per_s:.1f}",
         f"{s.roofline_percent:.0f} {s.bound}" if s.bound else "", ", ".join(s.onnx[:2]))
        for s in sorted(steps, key=lambda s: -s.us)
    ]  # fmt: skip
    columns = ("step", "ops", "kernel", "us", "%", "MFLOP", "GFLOP/s", "bytes", "GB/s", "% of roofline", "ONNX nodes")
    table(f"{len(steps)} steps, {total:.1f} us", columns, rows, numeric=(0, 3, 4, 5, 6, 7, 8, 9))
    least = sum(s.roofline_us for s in steps)
    say(f"rooflines add up to {least:.1f} us, {100 * least / max(total, 1e-3):.0f} % of the time")
