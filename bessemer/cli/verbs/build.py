"""bessemer build MODEL -o ENGINE"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bessemer.cli.caches import check_cache, needed
from bessemer.cli.feeds import load_arrays
from bessemer.cli.kept import check_kept, files_of
from bessemer.cli.report import build_progress, errors, say, say_json, size
from bessemer.cli.shapes import parse_profile, parse_shapes
from bessemer.core.errors import BuildError
from bessemer.engine.engine import Engine
from bessemer.options import STAGES
from bessemer.tune.cache import TimingCache

NAME = "build"


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The engine file to write.")] = None,
    target: Annotated[str, typer.Option(help="cpu, cpu:avx2, cuda, cuda:sm_90, ...")] = "cpu",
    fp16: Annotated[bool, typer.Option("--fp16", help="Run in half precision where that is safe.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Run in bfloat16 where that is safe.")] = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="Allow TF32 in fp32 products (GPUs).")] = False,
    shapes: Annotated[str | None, typer.Option(help="Fix dynamic inputs: x:1x3x224x224,y:1x8")] = None,
    min_shapes: Annotated[str | None, typer.Option(help="Least shapes of dynamic inputs: x:1x3x64x64")] = None,
    opt_shapes: Annotated[str | None, typer.Option(help="Usual shapes of dynamic inputs: tuned for.")] = None,
    max_shapes: Annotated[str | None, typer.Option(help="Greatest shapes of dynamic inputs.")] = None,
    workspace: Annotated[int | None, typer.Option(min=0, help="Most MiB of scratch memory for one kernel.")] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="Timing cache file, read and extended.")] = None,
    cache_mode: Annotated[str, typer.Option(help="Of the timing cache: off, read, append, require.")] = "append",
    tune: Annotated[str, typer.Option(help="Choose kernels by: device (time them), cache, off (model).")] = "device",
    build_budget: Annotated[float | None, typer.Option(min=0, help="Seconds that the build may take.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads to tune for.")] = None,
    calibration: Annotated[
        list[str] | None, typer.Option(help="Inputs that show --fp16 how large values become: one .npz file each.")
    ] = None,
    stop_after: Annotated[
        str | None, typer.Option(help="End after import, fuse, layout, precision, lower, tune or plan.")
    ] = None,
    dump: Annotated[Path | None, typer.Option(help="Folder for the text of each stage.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tell what is dropped and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON summary.")] = False,
) -> None:
    """Compile a model into an engine file."""
    from bessemer.builder import run
    from bessemer.options import BuildOptions

    if output is None and stop_after is None:
        raise BuildError("no output was named", fix="add -o model.engine (or --stop-after STAGE)")
    if fp16 and bf16:
        raise BuildError("--fp16 and --bf16 exclude each other", fix="give one of them")
    if output is not None:
        _check_output(output, model, calibration or (), timing_cache)
    if timing_cache is not None:
        check_cache(timing_cache)
    started = time.perf_counter()
    with build_progress(as_json) as progress, needed(timing_cache, cache_mode):
        engine = run(
            model,
            BuildOptions(
                target=target, precision="fp16" if fp16 else "bf16" if bf16 else "fp32", tf32=tf32,
                shapes=parse_shapes(shapes) or None, profiles=parse_profile(min_shapes, opt_shapes, max_shapes),
                tune=tune, timing_cache=TimingCache(timing_cache, cache_mode),
                workspace=None if workspace is None else workspace << 20, build_budget=build_budget, threads=threads,
                calibration=[load_arrays(file) for file in calibration or ()],
                stop_after=stop_after, dump=dump, progress=progress,
                log=lambda line: errors.print(line, markup=False, highlight=False, soft_wrap=True) if verbose else None,
            ),
        )  # fmt: skip
    seconds = time.perf_counter() - started
    if engine is None or output is None:
        if as_json:
            say_json({"engine": None, "seconds": seconds, "stopped_after": stop_after})
        else:
            say(f"stopped after {stop_after or STAGES[-1]} ({seconds:.1f} s): no engine was written")
        return
    engine.save(output)
    _tell(engine, output, seconds, as_json)


def _check_output(output: Path, model: Path, calibration: Sequence[str], timing_cache: Path | None) -> None:
    """BuildError for a folder, InputError for a file that the build reads."""
    if output.is_dir():
        raise BuildError(f"{output} is a folder", fix=f"name a file: -o {output / model.with_suffix('.engine').name}")
    if output.exists():
        check_kept("-o", output, files_of(model))
    check_kept("-o", output, [("calibration inputs", file) for file in calibration])
    check_kept("-o", output, [("the timing cache", timing_cache)] if timing_cache is not None else ())


def _tell(engine: Engine, output: Path, seconds: float, as_json: bool) -> None:
    """What was built, and its notes."""
    slow, nodes = engine.manifest["slow_paths"], engine.manifest["model"]["nodes"]
    chosen = [engine.program.kernels[s.kernel].chosen_by for s in engine.program.steps if s.kernel >= 0]
    guessed = chosen.count("model")
    if as_json:
        say_json({"engine": str(output), "seconds": seconds, "bytes": output.stat().st_size, "target": engine.target,
                  "onnx_nodes": nodes, "steps": len(engine.program.steps), "timed": len(chosen) - guessed,
                  "by_model": guessed, "slow_paths": slow, "notes": engine.manifest["notes"],
                  **engine.memory})  # fmt: skip
        return
    say(
        f"{output}: {size(output.stat().st_size)}, {nodes} ONNX nodes in {len(engine.program.steps)} steps "
        f"for {engine.target}, built in {seconds:.1f} s; weights {size(engine.memory['weights'])}, "
        f"arena {size(engine.memory['arena'])}; {len(chosen) - guessed} kernels chosen by time, "
        f"{guessed} by the roofline model or for want of others"
    )
    for line in slow:
        say(f"slow path: {line}", style="yellow")
    for line in engine.manifest["notes"]:
        say(f"note: {line}", style="yellow")
