"""Steps against their rooflines, and the picture of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bessemer.cli.main import app
from bessemer.cli.plot import roofline_svg
from bessemer.cli.roofline import Ceilings, Profiled, ceilings_of
from bessemer.engine.reader import read

GPU = Ceilings(flops_per_s=1e12, half_flops_per_s=16e12, bytes_per_s=1e11)
STEP = Profiled(
    0, 1, "matmul", "gemm", 10.0, 100_000, 1_000_000, False, "memory", 1.0, 10.0, 100.0, 10.0, ("MatMul_0",)
)


def test_a_roofline_is_the_longer_of_moving_and_computing() -> None:
    assert GPU.least_us(1e6, 1e5, half=False) == pytest.approx(1.0)
    assert GPU.least_us(1e8, 1e5, half=False) == pytest.approx(100.0)
    assert GPU.least_us(1e8, 1e5, half=True) == pytest.approx(6.25)
    assert GPU.least_us(0, 0, half=True) == 0


def test_ceilings_of_a_gpu_know_fp32_from_16_bits(engine: Path) -> None:
    cpu = read(engine)
    found = ceilings_of(cpu)
    assert found.flops_per_s == found.half_flops_per_s > 1e9 and found.bytes_per_s > 1e9
    target = {**cpu.manifest["target"], "name": "cuda", "arch": "sm_90"}
    gpu = ceilings_of(replace(cpu, manifest={**cpu.manifest, "target": target}))
    assert gpu.half_flops_per_s > 10 * gpu.flops_per_s > 0


def test_bench_profiles_every_step_and_draws_it(tmp_path: Path, engine: Path) -> None:
    svg = tmp_path / "new" / "roofline.svg"
    args = ["bench", str(engine), "--runs", "5", "--profile", "--plot", str(svg), "--json"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.exception
    steps = json.loads(result.stdout)["steps"]
    assert {"Product", "Rank"} <= {node for s in steps for node in s["onnx"]}
    for s in steps:
        assert s["us"] > 0 and s["bytes"] > 0 and s["bound"] in ("memory", "compute")
        assert s["roofline_percent"] == pytest.approx(100 * s["roofline_us"] / s["us"])
    root = ElementTree.parse(svg).getroot()
    assert root.tag.endswith("svg")
    assert "step 0" in svg.read_text()


def test_plots_need_a_profile(engine: Path) -> None:
    result = CliRunner().invoke(app, ["bench", str(engine), "--plot", "x.svg"])
    assert "--profile" in str(result.exception)


def test_a_picture_of_any_steps_is_xml() -> None:
    steps = [
        STEP,
        replace(STEP, step=1, name="a<b&c" * 30, kernel='"quoted"', half=True),
        replace(STEP, step=2, flops=0, gflops=0.0),
        replace(STEP, step=3, us=0.0),
        replace(STEP, step=4, bytes=0, bound=""),
    ]
    for some in ([], steps[3:], steps):
        ElementTree.fromstring(roofline_svg("a title <&>", some, GPU))
    assert roofline_svg("t", steps, GPU).count("<circle") == 2 + 2  # two dots, two kernels


def test_equal_steps_are_one_bar() -> None:
    steps = [STEP, replace(STEP, step=1, us=30.0), replace(STEP, step=2, flops=9)]
    picture = roofline_svg("t", steps, GPU)
    assert ">2 x matmul<" in picture and ">40.0 us, 5 %<" in picture and ">2 matmul<" in picture
