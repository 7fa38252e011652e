"""bessemer run ENGINE"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bessemer.cli.feeds import feeds_for, read_files
from bessemer.cli.kept import check_kept
from bessemer.cli.report import say_json, table
from bessemer.cli.shapes import parse_shapes
from bessemer.core.files import replacing
from bessemer.runtime.session import load

NAME = "run"


def command(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="An engine file.")],
    inputs: Annotated[list[str] | None, typer.Option("-i", "--input", help="NAME=array.npy, or arrays.npz.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs to this .npz file.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Shapes of random inputs: x:1x3x224x224")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; at most those the engine was built for.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run an engine once, on given or random inputs."""
    session = load(engine, threads=threads)
    check_kept("-o", output, [("the engine", engine), *read_files(session.engine, inputs or [])])
    outputs = session.run(feeds_for(session.engine, inputs or [], parse_shapes(shapes), seed))
    if output is not None:
        with replacing(output) as file, zipfile.ZipFile(file, "w") as archive:  # savez takes no output named "file"
            for name, array in outputs.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.save(member, array)
    rows = [(name, str(a.dtype), list(a.shape), _summary(a)) for name, a in outputs.items()]
    if as_json:
        say_json([{"name": n, "dtype": d, "shape": s, "summary": v} for n, d, s, v in rows])
    else:
        table(f"{engine}", ("output", "dtype", "shape", "values"), rows)


def _summary(a: np.ndarray) -> str:
    if a.size == 0 or a.dtype == object:
        return f"{a.size} elements"
    if a.dtype.kind == "f":
        return f"min {a.min():.4g}, mean {a.mean():.4g}, max {a.max():.4g}, {int(np.isnan(a).sum())} NaN"
    return f"min {a.min()}, max {a.max()}"
