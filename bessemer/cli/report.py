"""How the command line speaks: JSON for scripts, tables for people, errors as what, where and fix, progress bars."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bessemer.core.errors import BessemerError

PIPED_WIDTH = 200  # of tables that no terminal shows, in characters
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
errors = Console(stderr=True)


def fail(error: BessemerError) -> None:
    """Print an error to stderr."""
    errors.print(f"error: {error.what}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    for label, text in (("where", error.where), ("fix", error.fix)):
        if text:
            errors.print(f"  {label}: {text}", markup=False, highlight=False, soft_wrap=True)


def say(line: str, style: str | None = None) -> None:
    """Print a line to stdout as it is: no markup, and not broken where the terminal ends."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def say_json(data: Any) -> None:
    """Print data as JSON to stdout; a number that is not finite, for which JSON has no word, as null."""
    print(json.dumps(_finite(data), indent=2, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[int] = ()) -> None:
    """Print a table; `numeric` columns are aligned right."""
    out = Table(title=title, title_justify="left")
    for k, name in enumerate(columns):
        out.add_column(name, justify="right" if k in numeric else "left", overflow="fold")
    for row in rows:
        out.add_row(*(str(cell) for cell in row))
    console.print(out)


def size(nbytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(nbytes) < 1000 or unit == "GB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    raise AssertionError


@contextmanager
def build_progress(quiet: bool) -> Iterator[Callable[[str, int, int, str], None]]:
    """A progress bar with an estimate, on stderr, as a build's `progress` callback."""
    if quiet:
        yield lambda stage, done, total, what: None
        return
    columns = (
        TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[what]}"),
    )  # fmt: skip
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int, what: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, what=what)
            bar.update(tasks[stage], completed=done, total=total, what=what)

        yield update
