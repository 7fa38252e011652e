"""The GPU table's figures: floors from an engine's steps, a row's verdict, and the lines that are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.document import markdown
from bench.rows import ROWS, Row
from bessemer.core.dim import Dim
from bessemer.engine.engine import Engine

BYTES_PER_S, FLOPS_PER_S = 4.26e12, 728e12  # what an H200 was measured to copy, and to multiply in fp16
ERROR = 1e-2  # largest relative error of fp16
SPREAD = 1.05  # largest 99th percentile over the median
PEERS = 3  # where all of them were measured


def load_rows(path: Path, machine: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The rows of a file, those of this boot of this machine where one is given; none where there is no file."""
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
    return {name: row for name, row in rows.items() if machine is None or row["machine"] == machine}


def number(d: Dim) -> int:
    """A size of an engine with fixed shapes; 0 where it depends on data."""
    return d if isinstance(d, int) else 0


def floors(engine: Engine) -> dict[str, float]:
    """The least ms by the GPU's measured ceilings: of the whole net, and of its steps one by one.

    The net: its weights, inputs and outputs move once, or all its operations at peak. The steps: each moves its own
    operands and outputs, or computes, whichever takes longer."""
    program, tensors = engine.program, engine.program.tensors
    nbytes = program.weights_bytes + sum(tensors[n].nbytes for n in (*program.inputs, *program.outputs))
    flops = sum(number(s.flops) for s in program.steps)
    steps = [max(number(s.nbytes) / BYTES_PER_S, number(s.flops) / FLOPS_PER_S) for s in program.steps]
    return {
        "floor_ms": max(nbytes / BYTES_PER_S, flops / FLOPS_PER_S) * 1e3, "floor_by_step_ms": sum(steps) * 1e3,
        "gflops": flops / 1e9,
    }  # fmt: skip


def verdict(row: Row, data: Mapping[str, Any]) -> dict[str, Any]:
    """The best peer, the bar, and what holds."""
    best = min(data["peers_ms"], key=lambda name: data["peers_ms"][name]["median"], default=None)
    ours, peer = data["ours_ms"]["median"], data["peers_ms"][best]["median"] if best else None
    bar = row.bar_ms if row.bar_ms is not None else peer / row.times if peer else None
    return {
        "best_peer": best, "best_peer_ms": peer, "bar_ms": bar, "then_ms": row.then_ms,
        "passes": {
            "bar": bar is not None and ours <= bar, "peer": peer is not None and ours <= peer,
            "error": data["relative_error"] <= ERROR,
            "steady": data["steady_ms"]["p99"] <= SPREAD * data["steady_ms"]["median"],
        },
    }  # fmt: skip


HEAD = (
    f"{'row':18}{'ours ms':>9}{'p99':>8}{'best peer':>10}{'faster':>8}{'bar':>8}{'floor':>8}{'by step':>8}"
    f"{'error':>9}{'steps':>6}{'build s':>8}{'SM MHz':>8}  fails"
)


def line(name: str, data: Mapping[str, Any]) -> str:
    """A row of the table."""
    failed = ", ".join(k for k, ok in data["passes"].items() if not ok) or "-"
    peer, bar = data["best_peer_ms"], data["bar_ms"]
    mhz = data["clocks"].get("sm_mhz", ["", "?", ""])[1]
    return (
        f"{name:18}{data['ours_ms']['median']:9.3f}{data['steady_ms']['p99']:8.3f}"
        f"{peer if peer else float('nan'):10.3f}{peer / data['ours_ms']['median'] if peer else float('nan'):7.2f}x"
        f"{bar if bar else float('nan'):8.3f}{data['floor_ms']:8.3f}{data['floor_by_step_ms']:8.3f}"
        f"{data['relative_error']:9.1e}{data['steps']:6d}{data['build_s']:8.1f}{mhz:>8}  {failed}"
        f"{'' if len(data['peers_ms']) == PEERS else '  (without torch.compile)'}"
        f"{'  (peers of an earlier run)' if 'peers_from' in data else ''}"
    )


def show(path: Path) -> None:
    """Print the table of a file, in the order of bench.rows."""
    rows = load_rows(path)
    print(HEAD)
    for name in ROWS:
        if name in rows:
            print(line(name, rows[name]))


BEGIN, END = "<!-- gpu: written by python -m bench.gpu --show FILE --into -->", "<!-- end of gpu -->"
COLUMNS = ("row", "ours, ms", "graph", "compile", "faster", "bar", "floor", "error", "steps", "built in", "fails")
GRAPH, COMPILE = "eager in a CUDA graph", "compile max-autotune"  # peers, as bench.torch_peers calls them


def document(path: Path) -> str:
    """The table of a file for a document: ours, the peers of the same run, and what fails."""
    rows = load_rows(path)
    return markdown(COLUMNS, [_cells(name, rows[name]) for name in ROWS if name in rows])


def _cells(name: str, data: Mapping[str, Any]) -> tuple[str, ...]:
    def peer(kind: str) -> str:
        return f"{data['peers_ms'][kind]['median']:.3f}" if kind in data["peers_ms"] else "not run"

    failed = ", ".join(k for k, ok in data["passes"].items() if not ok) or "-"
    best, ours = data["best_peer_ms"], data["ours_ms"]["median"]
    return (
        name, f"{ours:.3f}", peer(GRAPH), peer(COMPILE), f"{best / ours:.2f}x" if best else "?",
        f"{data['bar_ms']:.3f}" if data["bar_ms"] else "?", f"{data['floor_ms']:.3f}", f"{data['relative_error']:.1e}",
        str(data["steps"]), f"{data['build_s']:.0f} s", failed,
    )  # fmt: skip
