"""The GPU table's verdicts, lines and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.rows import ROWS
from bench.table import document, line, load_rows, verdict


def _data(ours: float, peers: dict[str, float], error: float = 1e-3, p99: float | None = None) -> dict[str, Any]:
    return {
        "ours_ms": {"median": ours}, "peers_ms": {k: {"median": v} for k, v in peers.items()},
        "relative_error": error, "steady_ms": {"median": ours, "p99": p99 or ours}, "clocks": {}, "floor_ms": 0.1,
        "floor_by_step_ms": 0.2, "steps": 70, "build_s": 20.0, "machine": {"boot": "1"},
    }  # fmt: skip


def test_bar_of_a_figure_and_of_a_peer() -> None:
    found = verdict(ROWS["resnet50-b1"], _data(0.24, {"eager": 2.0, "compile": 0.5}))
    assert (found["best_peer"], found["bar_ms"]) == ("compile", 0.25) and all(found["passes"].values())
    found = verdict(ROWS["d0-b1"], _data(0.24, {"eager": 2.0, "compile": 0.4}))
    assert found["bar_ms"] == pytest.approx(0.2)
    assert found["passes"] == {"bar": False, "peer": True, "error": True, "steady": True}


def test_errors_spread_and_missing_peers_fail() -> None:
    found = verdict(ROWS["d0-b1"], _data(0.24, {}, error=float("nan"), p99=0.3))
    assert not any(found["passes"].values())


def test_a_line_names_what_fails_and_where_peers_are_from() -> None:
    data = _data(0.3, {"eager": 0.5})
    text = line("resnet50-b1", {**data, **verdict(ROWS["resnet50-b1"], data), "peers_from": "x"})
    assert "bar" in text and "without torch.compile" in text and "earlier run" in text and "1.67x" in text


def test_a_table_for_a_document_names_the_peers_that_were_not_run(tmp_path: Path) -> None:
    data = _data(0.3, {"eager": 0.9, "eager in a CUDA graph": 0.6})
    rows = {"resnet50-b1": {**data, **verdict(ROWS["resnet50-b1"], data)}}
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    cells = document(tmp_path / "rows.json").splitlines()[-1].strip("| ").split(" | ")
    assert cells[:5] == ["resnet50-b1", "0.300", "0.600", "not run", "2.00x"] and cells[-1] == "bar"


def test_rows_of_another_machine_are_no_peers(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": {"a": {"machine": {"boot": "1"}}, "b": {"machine": {"boot": "2"}}}}))
    assert set(load_rows(path)) == {"a", "b"}
    assert set(load_rows(path, {"boot": "2"})) == {"b"}
    assert load_rows(tmp_path / "none.json") == {}
