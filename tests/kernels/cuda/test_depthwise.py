"""Depthwise convolutions on the emulator, against float64: edges of tiles, filters, strides, dilations, epilogues."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.conv_depthwise import ConvDepthwise
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.problems import H200, Case, assert_right, reason, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def depthwise(
    x: tuple[int, ...], kernel: tuple[int, ...], dtype: DType = dt.f16, constant: bool = True, **given: Any
) -> Case:
    """Followed by a bias, a residual and a relu."""
    return with_bias_relu(conv(x, (x[1], 1, *kernel), dtype, constant=constant, groups=x[1], **given), -1)


def config(high: int, wide: int, threads: int = 64, repeat: int = 1) -> Config:
    return {"high": high, "wide": wide, "threads": threads, "repeat": repeat}


def check(c: Case, chosen: Config, folder: Path, env: dict[str, int] | None = None) -> None:
    assert ConvDepthwise().applicable(c.problem, H200) is None
    (got,) = emulate(c.problem, ConvDepthwise().emit(c.problem, H200, chosen), c.operands, folder, env)
    assert_right(c, [got])


TILES = [config(1, 1), config(1, 4, repeat=4), config(2, 2, 128), config(4, 2)]
WINDOWS = [((2, 2), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 3)), ((2, 3), (3, 2))]  # strides and dilations


# Every tile with every filter, and dtypes in turns, so that each has all of both; windows the same with two tiles.
@pytest.mark.parametrize(
    ("kernel", "chosen", "dtype"),
    [((k, k), c, (dt.f16, dt.bf16)[(i + j) % 2]) for i, k in enumerate((3, 5)) for j, c in enumerate(TILES)],
    ids=str,
)
def test_tiles(kernel: tuple[int, int], chosen: Config, dtype: DType, tmp_path: Path) -> None:
    pads = (kernel[0] // 2,) * 4
    check(depthwise((2, 24, 7, 10), kernel, dtype, pads=pads), chosen, tmp_path)


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "chosen"),
    [
        (kernel, *window, (config(1, 4), config(2, 2))[(i + j) % 2])
        for i, kernel in enumerate(((3, 3), (2, 5)))
        for j, window in enumerate(WINDOWS)
    ],
    ids=str,
)
def test_windows(
    kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], chosen: Config, tmp_path: Path
) -> None:
    c = depthwise((1, 16, 12, 15), kernel, strides=strides, dilations=dilations, pads=(2, 3, 1, 0))
    check(c, chosen, tmp_path)


def test_more_channels_than_a_block(tmp_path: Path) -> None:
    check(depthwise((1, 1088, 3, 3), (3, 3), pads=(1, 1, 1, 1)), config(1, 1), tmp_path)


def test_one_axis(tmp_path: Path) -> None:
    check(depthwise((2, 16, 21), (5,), pads=(2, 2)), config(1, 4), tmp_path)


def test_large_filters(tmp_path: Path) -> None:
    check(depthwise((1, 8, 9, 9), (9, 9), pads=(4, 4, 4, 4)), config(1, 4), tmp_path)


def test_symbolic_sizes(tmp_path: Path) -> None:
    n, h = sym("n"), sym("h")
    c = depthwise((2, 8, 6, 5), (3, 3), pads=(1, 1, 1, 1))
    shapes: dict[int, tuple[Dim, ...]] = {0: (n, h, 5, 8), 3: (n, h, 5, 8)}
    c = symbolic(c, shapes, (n, h, 5, 8), {"n": Range(1, 4, 2), "h": Range(3, 9, 6)})
    check(c, config(2, 2, repeat=4), tmp_path, {"n": 2, "h": 6})


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
@pytest.mark.parametrize("kernel,stride", [(3, 1), (3, 2), (5, 1), (7, 1)])
def test_every_configuration_compiles_almost_without_spills(kernel: int, stride: int) -> None:
    c = depthwise((1, 96, 20, 20), (kernel, kernel), pads=(kernel // 2,) * 4, strides=(stride, stride))
    for chosen in ConvDepthwise().configs(c.problem, H200):
        _, log = compile_text(ConvDepthwise().emit(c.problem, H200, chosen).text, "sm_90")
        assert all(int(n) <= 16 for n in re.findall(r"(\d+) bytes spill", log)), f"{chosen}: {log}"
        assert "warning" not in log, log


def test_reasons() -> None:
    plain = depthwise((1, 16, 5, 5), (3, 3))
    found = ConvDepthwise().applicable(plain.problem, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "is written for sm_90, not sm_80"
    assert "f16 and bf16" in reason(ConvDepthwise(), depthwise((1, 16, 5, 5), (3, 3), dt.f32).problem)
    assert "16 bytes" in reason(ConvDepthwise(), depthwise((1, 12, 5, 5), (3, 3)).problem)
    assert "constant" in reason(ConvDepthwise(), depthwise((1, 16, 5, 5), (3, 3), constant=False).problem)
    assert "per group" in reason(ConvDepthwise(), conv((1, 16, 5, 5), (16, 16, 3, 3), dt.f16).problem)
    assert "81 taps" in reason(ConvDepthwise(), depthwise((1, 8, 13, 13), (11, 11)).problem)
    wide = depthwise((1, 8, 3, 80), (1, 9), dilations=(1, 8))
    assert "32 columns" in reason(ConvDepthwise(), wide.problem)


def test_configurations_are_ordered_by_their_estimate() -> None:
    tactic, problem = ConvDepthwise(), depthwise((6, 240, 12, 80), (5, 5), pads=(2, 2, 2, 2)).problem
    times = [tactic.estimate(problem, H200, c) for c in tactic.configs(problem, H200)]
    assert times == sorted(times) and 5 < times[0] < 8  # 6.2 measured on an H200
