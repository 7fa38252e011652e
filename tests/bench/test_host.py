"""What stands beside a CPU's figures, what their files are called, and the table of steps."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from bench.__main__ import _earlier, _save
from bench.document import markdown, put
from bench.host import fingerprint, result_name, state
from bench.steps import BEGIN, END, HEAD, Counted
from bessemer.targets.cpu import cpu_target


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("AMD EPYC 9R45", "amd-epyc-9r45"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c"),
        ("AMD Ryzen 9 9950X 16-Core Processor", "amd-ryzen-9-9950x"),
        ("", "cpu"),
    ],
)
def test_results_are_named_by_machine_and_day(cpu: str, name: str) -> None:
    assert result_name(cpu, date(2026, 11, 21)) == f"{name}-2026-11-21.json"


def test_a_fingerprint_is_json_and_the_state_tells_the_load() -> None:
    pytest.importorskip("onnxruntime")
    found = json.loads(json.dumps(fingerprint(cpu_target())))
    assert found["cpu"] and found["threads"] >= 1 and "onnxruntime" in found["packages"]
    assert state()["load"] >= 0


def test_rows_of_this_machine_stay(tmp_path: Path) -> None:
    path, rows = tmp_path / "new" / "r.json", {k: {"model": k, "ratio": r} for k, r in (("h2", 4.0), ("a1-det", 1.0))}
    _save(path, {"cpu": "x"}, rows)
    found = json.loads(path.read_text())
    assert [row["model"] for row in found["models"]] == ["a1-det", "h2"] and found["geometric_mean_ratio"] == 2
    assert _earlier(path, {"cpu": "x"}) == rows
    assert _earlier(path, {"cpu": "y"}) == _earlier(tmp_path / "none.json", {}) == {}


def test_the_table_of_steps_goes_between_its_marks() -> None:
    table = markdown(HEAD, [Counted("h2", "b1", 90, 20, 22, ("nonzero",)).cells()])
    assert table.splitlines()[-1] == "| h2 | b1 | 90 | 20 | 22 | nonzero |"
    once = put(f"before\n{BEGIN}\nold\n{END}\nafter\n", BEGIN, END, table)
    assert once.startswith("before\n") and once.endswith("after\n") and "old" not in once
    assert put(once, BEGIN, END, table) == once
    with pytest.raises(ValueError, match="has no"):
        put("no marks", BEGIN, END, table)
