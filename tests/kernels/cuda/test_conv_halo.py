"""Convolutions of few channels on the emulator, against float64: tiles, filters, padding, steps, epilogues, walks."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.conv_halo import ConvHalo, Tile
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.problems import H200, Case, assert_right, reason, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

HALO = ConvHalo()
SMALL = CudaTarget("sm_90", replace(ARCHS["sm_90"], sms=2))  # so that CTAs walk


def config(wide: int, blocks: int = 1, groups: int = 2, stages: int = 2) -> Config:
    t = Tile(wide, blocks, groups, stages)
    return {f.name: getattr(t, f.name) for f in fields(t)}


def check(c: Case, chosen: Config, folder: Path, env: dict[str, int] | None = None) -> None:
    assert HALO.applicable(c.problem, SMALL) is None
    assert_right(c, emulate(c.problem, HALO.emit(c.problem, SMALL, chosen), c.operands, folder, env))


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("channels", [8, 16, 24, 32, 40, 64])
def test_channels(channels: int, dtype: DType, tmp_path: Path) -> None:
    """Those that copies swizzle, and others; even and odd numbers of units."""
    c = conv((2, channels, 19, 21), (32, channels, 3, 3), dtype, pads=(1, 1, 1, 1))
    check(with_bias_relu(c, -1), config(8), tmp_path)


@pytest.mark.parametrize("outputs", [8, 40, 64, 72, 136])
def test_outputs(outputs: int, tmp_path: Path) -> None:
    c = conv((1, 16, 11, 17), (outputs, 16, 3, 3), dt.f16, pads=(1, 1, 1, 1))
    check(with_bias_relu(c, -1), config(16), tmp_path)


@pytest.mark.parametrize(
    "chosen", [config(8, 2, 3), config(16, 2, 1, 3), config(32, 1, 4), config(64, 1, 2, 4)], ids=str
)
@pytest.mark.parametrize("channels", [24, 32])
def test_tiles(channels: int, chosen: Config, tmp_path: Path) -> None:
    """Walks over more tiles than there are warpgroups and stages, and beyond the last line and column."""
    c = conv((3, channels, 37, 70), (64, channels, 3, 3), dt.f16, pads=(1, 1, 1, 1))
    check(with_bias_relu(c, -1), chosen, tmp_path)


@pytest.mark.parametrize(
    "kernel,strides,gaps,pads",
    [
        ((7, 7), (2, 2), (1, 1), (3, 3, 3, 3)),
        ((7, 7), (2, 2), (1, 1), (0, 0, 0, 0)),
        ((3, 2), (1, 2), (2, 1), (0, 1, 2, 0)),
        ((1, 5), (1, 1), (1, 3), (0, 6, 0, 6)),
        ((2, 2), (2, 1), (1, 1), (0, 0, 0, 0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [8, 16])
def test_windows(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    gaps: tuple[int, int],
    pads: tuple[int, ...],
    channels: int,
    tmp_path: Path,
) -> None:
    c = conv((2, channels, 33, 25), (16, channels, *kernel), dt.f16, strides=strides, dilations=gaps, pads=pads)
    check(with_bias_relu(c, -1), config(8), tmp_path)


def test_along_one_axis(tmp_path: Path) -> None:
    c = conv((3, 24, 150), (40, 24, 5), dt.bf16, strides=(1,), dilations=(2,), pads=(4, 4))
    check(with_bias_relu(c, -1), config(64), tmp_path)


def test_sizes_that_are_known_while_running(tmp_path: Path) -> None:
    n, h, w = sym("n"), sym("h"), sym("w")
    c = conv((2, 32, 19, 21), (32, 32, 3, 3), dt.f16, pads=(1, 1, 1, 1))
    ranges = {"n": Range(1, 9, 4), "h": Range(8, 64, 32), "w": Range(8, 64, 32)}
    seen = symbolic(c, {0: (n, h, w, 32)}, (n, h, w, 32), ranges)
    check(seen, config(8), tmp_path, {"n": 2, "h": 19, "w": 21})


def test_images_smaller_than_a_tile(tmp_path: Path) -> None:
    c = conv((5, 16, 3, 4), (24, 16, 3, 3), dt.f16, pads=(1, 1, 1, 1))
    check(with_bias_relu(c, -1), config(16, 2), tmp_path)


def test_what_does_not_fit_is_refused() -> None:
    found = HALO.applicable(conv((1, 16, 9, 9), (16, 16, 3, 3), dt.f16).problem, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "needs the warpgroup products of sm_90, not sm_80"

    def said(*shapes: tuple[int, ...], **attrs: object) -> str:
        return reason(HALO, conv(shapes[0], shapes[1], dt.f16, **attrs).problem)

    assert "one tap" in said((1, 64, 9, 9), (64, 64, 1, 1))
    assert "in shared memory" in said((1, 128, 9, 9), (128, 128, 3, 3))
    assert "of whole 16 bytes" in said((1, 12, 9, 9), (16, 12, 3, 3))


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
@pytest.mark.parametrize("shape", [(64, 64, 3, 3), (64, 8, 7, 7), (32, 32, 3, 3), (96, 32, 3, 3)], ids=str)
def test_every_configuration_compiles_without_spills(shape: tuple[int, ...]) -> None:
    steps = (2, 2) if shape[1] == 8 else (1, 1)
    problem = conv((2, shape[1], 56, 56), shape, dt.f16, strides=steps, pads=(1, 1, 1, 1)).problem
    configs = HALO.configs(problem, H200)
    assert len(configs) > 3
    for chosen in configs:
        _, log = compile_text(HALO.emit(problem, H200, chosen).text, "sm_90")
        assert not re.search(r"[1-9]\d* bytes spill|C75\d\d|warning", log), (chosen, log)
