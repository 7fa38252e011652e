"""bessemer compare MODEL --against onnxruntime"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bessemer.cli.feeds import load_feeds, random_feeds
from bessemer.cli.report import build_progress, console, say_json, table
from bessemer.cli.shapes import parse_shapes
from bessemer.core.errors import BessemerError, BuildError
from bessemer.runtime.session import Session, load

NAME = "compare"


def command(
    model: Annotated[Path, typer.Argument(help="An ONNX model.")],
    against: Annotated[str, typer.Option(help="onnxruntime, or reference (this package's numpy interpreter).")] = (
        "onnxruntime"
    ),
    engine: Annotated[Path | None, typer.Option(help="Compare this engine instead of building one.")] = None,
    target: Annotated[str, typer.Option(help="Target to build for.")] = "cpu",
    fp16: Annotated[bool, typer.Option("--fp16", help="Build in half precision.")] = False,
    mark: Annotated[str | None, typer.Option(help="'all' compares every tensor the engine stores.")] = None,
    inputs: Annotated[list[str] | None, typer.Option("-i", "--input", help="NAME=array.npy, or arrays.npz.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Shapes of random inputs.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Largest relative error (1e-4; 1e-2 with --fp16).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random inputs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare an engine's outputs with another implementation's; status 1 where they differ."""
    from bessemer.builder import build

    if against not in ("onnxruntime", "reference"):
        raise BuildError(f"unknown peer {against!r}", fix="use onnxruntime or reference")
    with build_progress(as_json) as progress:
        built = engine if engine is not None else build(
            model, target=target, precision="fp16" if fp16 else "fp32", progress=progress
        )
    session = load(built)
    feeds = {**random_feeds(session.engine, parse_shapes(shapes), seed), **load_feeds(inputs or [])}
    limit = tolerance if tolerance is not None else 1e-2 if fp16 else 1e-4
    mine = session.trace(feeds) if mark == "all" else session.run(feeds)
    names = list(mine)
    theirs = (_onnxruntime if against == "onnxruntime" else _reference)(model, feeds, names, mark == "all")
    rows = [_row(session, n, mine[n], theirs[n], limit) for n in names if n in theirs]
    bad = [r for r in rows if not r["ok"]]
    if as_json:
        say_json({"against": against, "tolerance": limit, "tensors": rows, "ok": not bad})
    else:
        shown = [(r["name"], r["dtype"], r["shape"], f"{r['relative_error']:.2e}", f"{r['largest_difference']:.2e}",
                  "ok" if r["ok"] else "differs") for r in rows]  # fmt: skip
        table(f"{model.name} against {against}, tolerance {limit:g}",
              ("tensor", "dtype", "shape", "relative error", "largest difference", ""), shown,
              numeric=(3, 4))  # fmt: skip
        console.print(f"{len(rows)} tensors compared, {len(bad)} differ", highlight=False)
    raise typer.Exit(1 if bad else 0)


def _row(session: Session, name: str, a: np.ndarray, b: np.ndarray, limit: float) -> dict[str, Any]:
    error = relative_error(a, b)
    comparable = a.size > 0 and a.shape == b.shape
    difference = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()) if comparable else 0.0
    return {"name": name, "dtype": str(a.dtype), "shape": list(a.shape), "relative_error": error,
            "largest_difference": difference, "ok": error <= limit}  # fmt: skip


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Norm of the difference over the norm; for integers 0 or inf; inf where shapes or NaNs differ."""
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind not in "fc":
        return 0.0 if np.array_equal(a, b) else float("inf")
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    x, y = np.where(same, 0, x), np.where(same, np.where(np.isfinite(y), y, 0), y)
    norm = float(np.linalg.norm(y))
    difference = float(np.linalg.norm(np.where(same, 0, x - y)))
    return difference / norm if norm > 0 else difference if np.isfinite(difference) else float("inf")


def _onnxruntime(
    model: Path, feeds: dict[str, np.ndarray], names: list[str], every: bool
) -> dict[str, np.ndarray]:
    try:
        import onnxruntime
    except ImportError as error:
        raise BessemerError("onnxruntime is not installed", fix="pip install onnxruntime") from error
    import onnx

    proto = onnx.load(str(model))
    if every:
        known = {o.name for o in proto.graph.output}
        produced = {o for node in proto.graph.node for o in node.output}
        names = [n for n in names if n in produced or n in known]
        proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    peer = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, peer.run(names, feeds), strict=True))


def _reference(model: Path, feeds: dict[str, np.ndarray], names: list[str], every: bool) -> dict[str, np.ndarray]:
    from bessemer.frontend.onnx import import_model
    from bessemer.ir.interp import run

    graph = import_model(model)
    outputs = run(graph, feeds)
    return {n: outputs[n] for n in names if n in outputs}
