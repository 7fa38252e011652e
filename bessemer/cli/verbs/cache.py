"""bessemer cache show|merge|prune"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bessemer.cli.caches import check_cache
from bessemer.cli.kept import check_kept
from bessemer.cli.report import say, say_json, size, table
from bessemer.tune.cache import CACHES, WITHIN, Entry, Placed, Seen, TimingCache, read_lines

app = typer.Typer(help="Look into, merge and prune timing caches.", no_args_is_help=True)


@app.command("show")
def show(
    path: Annotated[
        Path | None, typer.Argument(metavar="[CACHE]", help="A timing cache; without one, those that the package has.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the entries by device, op and kernel."""
    if path is not None:
        check_cache(path)
    found = [_counts(p) for p in ([path] if path is not None else sorted(CACHES.glob("*.jsonl")))]
    if as_json:
        say_json([row for rows in found for row in rows])
        return
    if not any(found):
        say("no entries" if path is not None else "this installation brings no timing caches")
    for rows in filter(None, found):
        table(str(rows[0]["cache"]), COLUMNS, [[r[c] for c in COLUMNS] for r in rows], numeric=(3, 4))


COLUMNS = ("device", "op", "kernel", "entries", "failed")


def _counts(path: Path) -> list[dict[str, object]]:
    counts: dict[tuple[str, str, str], list[float | None]] = {}
    for line in read_lines(path):
        if isinstance(line, Entry):
            counts.setdefault((line.device, line.op, line.tactic), []).append(line.us)
        elif isinstance(line, Placed):
            counts.setdefault((line.device, "any", "chosen in their places"), []).extend([0.0] * len(line.chosen))
        elif isinstance(line, Seen):
            counts.setdefault(("any", "any", "ranges of graphs"), []).append(0.0)
        else:
            counts.setdefault((line.device, "any", "slower ones, untold"), []).extend([0.0] * len(line.keys))
    return [
        {"cache": str(path), "device": d, "op": o, "kernel": t, "entries": len(times),
         "failed": sum(us is None for us in times)}
        for (d, o, t), times in sorted(counts.items())
    ]  # fmt: skip


@app.command("merge")
def merge(
    inputs: Annotated[list[Path], typer.Argument(metavar="CACHE...", help="Timing caches.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The merged cache.")],
) -> None:
    """Merge caches; the order does not matter, the faster of two equal entries is kept."""
    for path in (*inputs, output):
        check_cache(path)
    cache = TimingCache(output)
    for path in inputs:
        cache.merge(read_lines(path))
    cache.save()
    say(f"{output}: {len(cache.entries)} entries")


@app.command("prune")
def prune(
    path: Annotated[Path, typer.Argument(metavar="CACHE", help="A timing cache.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The small cache.")],
    within: Annotated[
        float, typer.Option(min=0, help="Keep the times of rivals within this share of the fastest.")
    ] = WITHIN,
) -> None:
    """Write a small cache that chooses the same kernels: the winners with their close rivals, the others by name."""
    for cache in (path, output):
        check_cache(cache)
    check_kept("-o", output, [("the cache to prune", path)])  # which saving would merge with: nothing would be left out
    source, small = TimingCache(path, "read"), TimingCache()
    small.path = output
    small.merge(source.pruned(within))
    small.save()
    say(f"{output}: {len(small.entries)} of {len(source.entries)} entries, {size(output.stat().st_size)}")
