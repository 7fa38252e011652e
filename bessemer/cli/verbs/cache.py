"""bessemer cache show|merge"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bessemer.cli.report import console, say_json, table
from bessemer.tune.cache import TimingCache, read_entries

app = typer.Typer(help="Look into and merge timing caches.", no_args_is_help=True)


@app.command("show")
def show(
    path: Annotated[Path, typer.Argument(help="A timing cache.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the entries by device, op and kernel."""
    counts: dict[tuple[str, str, str], list[float | None]] = {}
    for entry in read_entries(path):
        counts.setdefault((entry.device, entry.op, entry.tactic), []).append(entry.us)
    rows = [(d, o, t, len(times), sum(u is None for u in times)) for (d, o, t), times in sorted(counts.items())]
    if as_json:
        say_json([dict(zip(("device", "op", "kernel", "entries", "failed"), r)) for r in rows])
    else:
        table(str(path), ("device", "op", "kernel", "entries", "failed"), rows, numeric=(3, 4))


@app.command("merge")
def merge(
    inputs: Annotated[list[Path], typer.Argument(help="Timing caches.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The merged cache.")],
) -> None:
    """Merge caches; the order does not matter, the faster of two equal entries is kept."""
    cache = TimingCache(output)
    for path in inputs:
        cache.merge(read_entries(path))
    cache.save()
    console.print(f"{output}: {len(cache.entries)} entries", highlight=False)
