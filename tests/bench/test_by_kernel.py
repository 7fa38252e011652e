"""Where the time of a row goes, by kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import by_kernel


def step(kernel: str, times: int, us: float, floor_us: float) -> dict[str, object]:
    return {"name": "n", "kernel": kernel, "times": times, "us": us, "floor_us": floor_us}


STEPS = [step("b", 10, 2.0, 0.5), step("a", 1, 60.0, 30.0), step("c", 2, 0.5, 0.1), step("b", 1, 10.0, 5.0)]
STEPS += [step("d", 1, 4.0, 0.1)]


def test_steps_are_added_up_by_kernel_and_small_ones_are_others() -> None:
    sums = by_kernel.by_kernel(STEPS)
    assert {k: (s.steps, s.us, s.floor_us) for k, s in sums.items()} == {
        "a": (1, 60.0, 30.0), "b": (11, 30.0, 10.0), "others": (3, 5.0, pytest.approx(0.3)),
    }  # fmt: skip
    assert list(sums) == ["a", "b", "others"]


def test_the_table_goes_into_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, document = tmp_path / "p.json", tmp_path / "d.md"
    source.write_text(json.dumps({"rows": {"r": {"steps": STEPS}, "q": {"steps": STEPS[:1]}}}))
    document.write_text(f"ahead\n{by_kernel.BEGIN}\nold\n{by_kernel.END}\nbehind\n")
    monkeypatch.setattr(sys, "argv", ["by_kernel", "--from", str(source), "r", "--into", str(document)])
    by_kernel.main()
    assert document.read_text().splitlines()[2:] == [
        "| row | kernel | steps | us | of the row | floor, us | floor of it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| r | a | 1 | 60.0 | 63% | 30.0 | 50% |",
        "|  | b | 11 | 30.0 | 32% | 10.0 | 33% |",
        "|  | others | 3 | 5.0 | 5% | 0.3 | 6% |",
        by_kernel.END,
        "behind",
    ]


def test_a_row_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "p.json"
    source.write_text(json.dumps({"rows": {"r": {"steps": STEPS}}}))
    monkeypatch.setattr(sys, "argv", ["by_kernel", "--from", str(source), "s"])
    with pytest.raises(SystemExit, match="has no s; it has r"):
        by_kernel.main()
