"""Real models to engines for this CPU, run on real input beside onnxruntime.

    python -m examples.demo

Reads the text of a photographed page, ranks sentences, rates photos. Fetches what it needs on the first run. Ends
with status 1 when an engine's answer is not onnxruntime's.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import bessemer
from examples import ocr, rank, rate
from examples.running import Arrays, Recorder, Run, with_onnxruntime
from examples.wordpiece import Tokenizer
from zoo import data
from zoo.models import MODELS

Bounds = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
Runs = dict[str, Run]
LIMIT = 1e-4  # of norm(difference) / norm(onnxruntime's output)
BUDGET = 75.0  # seconds for each build: all six and the rest end within ten minutes on two cores
BLOCK = 8  # timed runs in a row of one runtime before the other's turn
PAUSE = 0.1  # seconds


@dataclass(frozen=True)
class Part:
    """An application: its models with the shapes their engines are built for, and what it prints of its input."""

    title: str
    bounds: dict[str, Bounds]
    answer: Callable[[Runs], list[str]]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    model: str
    shapes: str
    build_s: float
    engine_mb: float
    ours_ms: float
    theirs_ms: float
    error: float


@dataclass(frozen=True)
class Outcome:
    """What became of one application: its rows of the table, and the lines it printed by either runtime."""

    rows: list[Row]
    answer: list[str]
    expected: list[str]


def text_bounds(*sizes: tuple[int, int]) -> Bounds:
    low, opt, high = sizes
    return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (low, opt, high))


def fixed(name: str, *dims: int) -> Bounds:
    return {name: (dims, dims, dims)}


def read_page(runs: Runs) -> list[str]:
    characters = ocr.characters_of(MODELS["a1-rec"].path())
    reader = ocr.Reader(runs["a1-det"], runs["a1-cls"], runs["a1-rec"], characters)
    return [line.text for line in reader.read(data.page())]


def rank_sentences(runs: Runs) -> list[str]:
    ranker = rank.Ranker(runs["c2"], Tokenizer(data.vocabulary()))
    best = ranker.rank(rank.QUESTION, data.sentences())[:3]
    return [f"{score:.3f}  {text}" for score, text in best]


def rate_photos(runs: Runs) -> list[str]:
    lines = []
    for photo in data.photos():
        a = rate.rate(runs["d1-a"], "input:0", photo.pixels)
        b = rate.rate(runs["d1-b"], "input_0", photo.pixels)
        lines.append(f"{a:.4f} {b:.4f}  {photo.name}")
    return lines


PARTS = (
    Part(
        "text on scikit-image's page.png",
        {
            "a1-det": fixed("x", 1, 3, 736, 1472),
            "a1-cls": {"x": ((1, 3, 48, 192), (6, 3, 48, 192), (ocr.PIECES, 3, 48, 192))},
            "a1-rec": {"x": ((1, 3, 48, 320), (6, 3, 48, 1152), (ocr.BATCH, 3, 48, 1536))},
        },
        read_page,
    ),
    Part(
        f"sentences of the Lee corpus nearest to: {rank.QUESTION}",
        {"c2": text_bounds((1, 8), (8, 64), (8, 256))},
        rank_sentences,
    ),
    Part(
        "photos, 0 fit for work to 1 (two exports of one network)",
        {"d1-a": fixed("input:0", 1, 224, 224, 3), "d1-b": fixed("input_0", 1, 224, 224, 3)},
        rate_photos,
    ),
)


def build(key: str, bounds: Bounds, engine: Path, threads: int, console: Console) -> float:
    """Build and save one engine with a progress bar; returns the seconds.

    What was timed is kept beside the engines: another run goes on from there."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"building {key}", total=None)

        def show(stage: str, done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=f"building {key}: {stage} {what}")

        profile = bessemer.Profile(bounds)
        built = bessemer.build(
            MODELS[key].path(), target="cpu", profiles=[profile], threads=threads, progress=show,
            timing_cache=engine.with_name("times.jsonl"), build_budget=BUDGET,
        )  # fmt: skip
        built.save(engine)
    seconds = time.perf_counter() - start
    for line in (f"built {key} in {seconds:.1f} s", *(f"  note: {note}" for note in built.manifest["notes"])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return seconds


def relative_error(found: Arrays, expected: Arrays) -> float:
    """The largest norm(difference) / norm(expected) of all outputs; infinite where one is not finite."""
    worst = 0.0
    for name, reference in expected.items():
        exact = np.asarray(reference, np.float64)
        error = float(np.linalg.norm(np.asarray(found[name], np.float64) - exact) / (np.linalg.norm(exact) or 1.0))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def in_turns(runs: Sequence[Run], feed: dict[str, NDArray[Any]], seconds: float = 2.0) -> list[float]:
    """Median milliseconds of each runtime on one feed, block by block in turns.

    Each block starts with a pause, for threads of the runtime before spin on for a while, and with an untimed run, for
    caches hold its data.
    """
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 * BLOCK or (time.perf_counter() < end and len(times[0]) < 60 * BLOCK):
        for run, taken in zip(runs, times, strict=True):
            time.sleep(PAUSE)
            run(feed)
            for _ in range(BLOCK):
                start = time.perf_counter()
                run(feed)
                taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(taken) for taken in times]


def measure(key: str, build_s: float, engine: Path, ours: Run, theirs: Run, feeds: list[dict[str, Any]]) -> Row:
    """Errors over all the application's feeds, times on the largest."""
    largest = max(feeds, key=lambda feed: sum(value.size for value in feed.values()))
    error = max(relative_error(ours(feed), theirs(feed)) for feed in feeds)
    ours_ms, theirs_ms = in_turns([ours, theirs], largest)
    shapes = "x".join(map(str, next(iter(largest.values())).shape))
    return Row(key, shapes, build_s, engine.stat().st_size / 1e6, ours_ms, theirs_ms, error)


def run_part(part: Part, folder: Path, threads: int, console: Console) -> Outcome:
    """Run one application by onnxruntime, keeping its networks' inputs, then build engines and run it by those."""
    theirs: Runs = {key: with_onnxruntime(MODELS[key].path(), threads) for key in part.bounds}
    recorders = {key: Recorder(run) for key, run in theirs.items()}
    expected = part.answer({**recorders})
    rows = []
    ours: Runs = {}
    for key, bounds in part.bounds.items():
        engine = folder / f"{key}.engine"
        seconds = build(key, bounds, engine, threads, console)
        ours[key] = bessemer.load(engine, threads=threads).run
        rows.append(measure(key, seconds, engine, ours[key], theirs[key], recorders[key].feeds))
    return Outcome(rows, part.answer(ours), expected)


def print_outcome(title: str, outcome: Outcome, console: Console) -> None:
    console.print(f"\n[bold]{title}[/]")
    for line in outcome.answer:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if outcome.answer != outcome.expected:
        console.print("[red]onnxruntime's answer is another one:[/]")
        for line in outcome.expected:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def print_table(rows: Sequence[Row], threads: int, console: Console) -> None:
    title = f"\nfp32 on this CPU, {threads} threads, medians of runs in turns"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("input", no_wrap=True)
    for heading in ("build s", "engine\nMB", "ms", "onnxruntime\nms", "ratio", "largest\nerror"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = (f"{row.build_s:.1f}", f"{row.engine_mb:.1f}", f"{row.ours_ms:.2f}", f"{row.theirs_ms:.2f}")
        table.add_row(row.model, row.shapes, *times, f"{row.theirs_ms / row.ours_ms:.2f}", f"{row.error:.1e}")
    console.print(table)


def main(
    folder: Annotated[Path, typer.Option(help="where the engines are written")] = Path("build/demo"),
    threads: Annotated[int, typer.Option(help="of either runtime")] = min(2, os.cpu_count() or 1),
) -> None:
    """Read a page, rank sentences and rate photos with engines built here, beside onnxruntime."""
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for part in PARTS:
        outcomes.append(run_part(part, folder, threads, console))
        print_outcome(part.title, outcomes[-1], console)
    rows = [row for outcome in outcomes for row in outcome.rows]
    print_table(rows, threads, console)
    letters = sum(len("".join(line.split())) for line in data.PAGE_TEXT)
    wrong = ocr.character_errors("".join(outcomes[0].answer), "".join(data.PAGE_TEXT))
    console.print(f"page.png: {wrong} of {letters} characters wrong, spaces not counted", highlight=False)
    same = all(outcome.answer == outcome.expected for outcome in outcomes)
    if not same or any(not row.error <= LIMIT for row in rows):
        console.print(f"[red]an answer differs from onnxruntime's, or an error is above {LIMIT:.0e}[/]")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
