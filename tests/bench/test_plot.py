"""The plot of a measured profile."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import plot
from bessemer.cli.roofline import Ceilings

CEILINGS = Ceilings(flops_per_s=60e12, half_flops_per_s=1000e12, bytes_per_s=4.8e12)
PROFILES = sorted(Path("bench/results").glob("h200-*-profiles.json"))


def test_steps_have_rates_and_rooflines() -> None:
    steps = [
        {"name": "matmul", "kernel": "k", "times": 2, "us": 10.0, "bytes": 4_800_000, "flops": 5_000_000_000},
        {"name": "norm", "kernel": "n", "times": 1, "us": 4.0, "bytes": 9_600_000, "flops": 1_000},
    ]
    found = plot.profiled(steps, CEILINGS)
    assert [s.step for s in found] == [0, 1, 2]
    assert (found[0].bound, found[0].roofline_us, found[0].roofline_percent) == ("compute", 5.0, 50.0)
    assert (found[2].bound, found[2].roofline_us, found[2].roofline_percent) == ("memory", 2.0, 50.0)
    assert found[0].gflops == pytest.approx(500_000) and found[2].gbytes_per_s == pytest.approx(2400)


def test_a_row_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "row.svg"
    monkeypatch.setattr(sys, "argv", ["plot", "bert-base-b1-s128", "--from", str(PROFILES[-1]), "-o", str(out)])
    plot.main()
    drawn = ElementTree.parse(out).getroot()
    assert drawn.tag.endswith("svg") and "bert-base-b1-s128, cuda:sm_90" in "".join(drawn.itertext())


def test_a_row_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["plot", "no-row", "--from", str(PROFILES[-1]), "-o", str(tmp_path / "x.svg")])
    with pytest.raises(SystemExit, match="has no no-row; it has resnet50-b1"):
        plot.main()
