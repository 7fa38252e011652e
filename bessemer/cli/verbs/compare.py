"""bessemer compare MODEL --against onnxruntime"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from bessemer.cli.caches import check_cache
from bessemer.cli.feeds import feeds_for, load_feeds
from bessemer.cli.match import as_stored, matches
from bessemer.cli.peers import PEERS, values_of
from bessemer.cli.report import build_progress, say, say_json, table
from bessemer.cli.shapes import parse_shapes
from bessemer.core.dtype import from_bf16
from bessemer.core.errors import BuildError
from bessemer.runtime.session import Session, load

if TYPE_CHECKING:
    from onnx import ModelProto

NAME = "compare"
TO_BUILD = ("target", "fp16", "bf16", "tune", "timing_cache")  # options of a build alone
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}  # of relative errors, by the engine's precision
Row = dict[str, Any]


def command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.")],
    against: Annotated[str, typer.Option(help="onnxruntime, or reference (this package's numpy interpreter).")] = (
        "onnxruntime"
    ),
    engine: Annotated[Path | None, typer.Option(help="Compare this engine instead of building one.")] = None,
    target: Annotated[str, typer.Option(help="Target to build for.")] = "cpu",
    fp16: Annotated[bool, typer.Option("--fp16", help="Build in half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Build in bfloat16.")] = False,
    tune: Annotated[str, typer.Option(help="How to build: off, cache or device.")] = "device",
    timing_cache: Annotated[Path | None, typer.Option(help="Timing cache of the build.")] = None,
    mark: Annotated[str | None, typer.Option(help="'all' compares every tensor the engine stores.")] = None,
    inputs: Annotated[list[str] | None, typer.Option("-i", "--input", help="NAME=array.npy, or arrays.npz.")] = None,
    shapes: Annotated[
        str | None, typer.Option(help="Shapes of random inputs, x:1x3x224x224; also what is built for.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest relative error; 1e-4, 1e-2 in fp16, 1e-1 in bf16.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare an engine's outputs with another implementation's; status 1 where they differ."""
    from bessemer.builder import build

    if against not in PEERS:
        raise BuildError(f"unknown peer {against!r}", fix=f"use {' or '.join(PEERS)}")
    if mark not in (None, "all"):
        raise BuildError(f"--mark is {mark!r}", fix="use --mark all, or leave it out")
    if fp16 and bf16:
        raise BuildError("--fp16 and --bf16 exclude each other", fix="give one of them")
    if engine is not None:
        _check_nothing_to_build(context, engine)
    if timing_cache is not None:
        check_cache(timing_cache)
    asked = parse_shapes(shapes)
    given = load_feeds(inputs, [i.name for i in _load(model).graph.input]) if inputs and engine is None else {}
    with build_progress(as_json) as progress:
        built = engine if engine is not None else build(
            model, target=target, precision="fp16" if fp16 else "bf16" if bf16 else "fp32", tune=tune,
            shapes={**{k: v.shape for k, v in given.items()}, **asked} or None,
            timing_cache=timing_cache, progress=progress,
        )  # fmt: skip
    session = load(built)
    _check_same_model(model, session)
    feeds = feeds_for(session.engine, inputs or [], asked, seed)
    precision = session.engine.manifest["precision"]
    limit = tolerance if tolerance is not None else TOLERANCE[precision]
    rows, left = (
        _layers(session, model, against, feeds, limit) if mark else _outputs(session, model, against, feeds)
    )
    for row in rows:
        row["ok"] = row["relative_error"] <= limit
    bad = sum(not r["ok"] for r in rows)
    if as_json:
        say_json({"against": against, "precision": precision, "tolerance": limit, "tensors": rows,
                  "not_compared": left, "ok": not bad})  # fmt: skip
    else:
        _print(f"{model.name} in {precision} against {against}, tolerance {limit:g}", rows, left, bool(mark))
    raise typer.Exit(1 if bad else 0)


def _check_nothing_to_build(context: typer.Context, engine: Path) -> None:
    """BuildError where options were given that say how to build."""
    sources = {n: context.get_parameter_source(n) for n in TO_BUILD}
    given = [n for n, source in sources.items() if source is not None and source.name != "DEFAULT"]
    if given:
        options = ", ".join(f"--{n.replace('_', '-')}" for n in given)
        raise BuildError(
            f"{options} would say how to build, and --engine is built", where=str(engine), fix="leave out either"
        )


def _load(model: Path) -> ModelProto:
    """The model without its external data and its large weights."""
    from bessemer.frontend import loading

    return loading.load(model).proto


def _check_same_model(model: Path, session: Session) -> None:
    """BuildError where the engine takes or gives other names than the model has."""
    graph = _load(model).graph
    mine = {"inputs": {t.name for t in session.inputs}, "outputs": {t.name for t in session.outputs}}
    theirs = {"inputs": {i.name for i in graph.input}, "outputs": {o.name for o in graph.output}}
    for side, names in mine.items():
        unknown = sorted(names - theirs[side])
        if unknown:
            raise BuildError(
                f"the engine was built from another model: it has the {side} {', '.join(unknown)}, "
                f"the model has {', '.join(sorted(theirs[side]))}",
                where=str(model), fix="give the model that the engine was built from",
            )  # fmt: skip


def _outputs(
    session: Session, model: Path, peer: str, feeds: Mapping[str, np.ndarray]
) -> tuple[list[Row], list[str]]:
    """A row for each output."""
    mine, theirs = session.run(feeds), values_of(peer, model, feeds, ())
    dtypes = {t.name: t.dtype.name for t in session.outputs}
    return [_row(n, n, *(_as_float(side[n], dtypes[n]) for side in (mine, theirs))) for n in mine], []


def _layers(
    session: Session, model: Path, peer: str, feeds: Mapping[str, np.ndarray], limit: float
) -> tuple[list[Row], list[str]]:
    """A row for each stored tensor that stands for a value of the model; the names of the other tensors."""
    found = matches(session.engine.program, _load(model))
    inner = dict.fromkeys(v for m in found for v in (*m.values, *m.others))
    mine, theirs = session.trace(feeds), values_of(peer, model, feeds, tuple(inner))
    dtypes = {t.name: t.dtype.name for t in session.engine.program.tensors}
    rows: dict[str, Row] = {}
    for m in reversed(found):  # what is made of a tensor first: see below
        if m.tensor not in mine:
            continue  # in a branch that was not taken
        a = _as_float(mine[m.tensor], dtypes[m.tensor])
        stored = [
            (v, b)
            for v in (*m.values, *m.others)
            if v in theirs
            for b in as_stored(_as_float(np.asarray(theirs[v]), "bf16" if a.dtype.kind == "f" else ""), a.shape, m.sure)
        ]
        best = min((_row(m.tensor, v, a, b) for v, b in stored), key=lambda r: r["relative_error"], default=None)
        if best is None:
            continue
        right = best["relative_error"] <= limit
        fine = any(r in rows and rows[r]["relative_error"] <= limit for r in m.readers)
        if right or m.sure or (best["stands_for"] in m.values and not fine):
            rows[m.tensor] = {"step": m.step, **best}
    return list(reversed(rows.values())), [name for name in mine if name not in rows]


def _row(name: str, value: str, a: np.ndarray, b: np.ndarray) -> Row:
    difference = 0.0
    if a.size > 0 and a.shape == b.shape:
        x, y = a.astype(_wide(a, b)), b.astype(_wide(a, b))
        difference = float(np.abs(np.where(x == y, 0, x) - np.where(x == y, 0, y)).max())
    return {"name": name, "stands_for": value, "dtype": str(a.dtype), "shape": list(a.shape),
            "relative_error": relative_error(a, b), "largest_difference": difference}  # fmt: skip


def _as_float(a: np.ndarray, dtype: str) -> np.ndarray:
    """bf16 is held as its bits: as fp32. Any other dtype as it is."""
    return from_bf16(a) if dtype == "bf16" and a.dtype == np.uint16 else a


def _wide(a: np.ndarray, b: np.ndarray) -> type[np.generic]:
    """The dtype to compare two arrays in."""
    return np.complex128 if "c" in a.dtype.kind + b.dtype.kind else np.float64


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Norm of the difference over the norm; for integers 0 or inf; inf where shapes or NaNs differ."""
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind not in "fc":
        return 0.0 if np.array_equal(a, b) else float("inf")
    x, y = a.astype(_wide(a, b)), b.astype(_wide(a, b))
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    x, y = np.where(same, 0, x), np.where(same, np.where(np.isfinite(y), y, 0), y)
    norm = float(np.linalg.norm(y))
    difference = float(np.linalg.norm(np.where(same, 0, x - y)))
    return difference / norm if norm > 0 else difference if np.isfinite(difference) else float("inf")


def _print(title: str, rows: list[Row], left: list[str], layers: bool) -> None:
    columns = ("step", "value", "dtype", "shape", "relative error", "largest difference", "")
    shown = [(r.get("step", ""), r["stands_for"], r["dtype"], "x".join(map(str, r["shape"])) or "scalar",
              f"{r['relative_error']:.2e}", f"{r['largest_difference']:.2e}", "ok" if r["ok"] else "differs")
             for r in rows]  # fmt: skip
    first = 0 if layers else 1
    numeric = (0, 4, 5) if layers else (3, 4)
    table(title, columns[first:], [row[first:] for row in shown], numeric=numeric)
    bad = [r for r in rows if not r["ok"]]
    say(f"{len(rows)} tensors compared, {len(bad)} differ")
    if left:
        say(f"{len(left)} other tensors hold parts of results or copies, and have no counterpart in the model")
    if bad and layers:
        say(f"the first that differs: step {bad[0]['step']}, {bad[0]['stands_for']}")
