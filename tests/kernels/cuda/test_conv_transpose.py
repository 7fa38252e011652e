"""Transposed convolutions without overlap on the emulator (and the GPU), against float64."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.conv_transpose import ConvTranspose
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, Case, assert_right, reason, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import transposed

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]


def upsampling(
    x: tuple[int, ...], oc: int, stride: tuple[int, ...], dtype: DType = dt.f16, extra: int = 0, **given: Any
) -> Case:
    """Followed by a bias, a residual and a relu."""
    rank = len(stride)
    w = (x[1], oc, *given.pop("kernel", stride))
    return with_bias_relu(transposed(x, w, (extra,) * rank, dtype, "NHWC", strides=stride, **given), -1)


def check(c: Case, chosen: Config, where: str, folder: Path, env: dict[str, int] | None = None) -> None:
    assert ConvTranspose().applicable(c.problem, H200) is None
    code = ConvTranspose().emit(c.problem, H200, chosen)
    emulated = where == "emulator"
    (got,) = (
        emulate(c.problem, code, c.operands, folder, env) if emulated else run_on_gpu(c.problem, code, c.operands, env)
    )
    assert_right(c, [got])


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("pixels", [1, 4])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (2,)])
def test_channels(stride: tuple[int, ...], pixels: int, dtype: DType, where: str, tmp_path: Path) -> None:
    x = (2, 24, 5, 7)[: 2 + len(stride)]
    check(upsampling(x, 16, stride, dtype), {"pixels": pixels, "threads": 128}, where, tmp_path)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("stride", [(2, 2), (3, 4), (1, 1)])
def test_one_channel(stride: tuple[int, int], dtype: DType, where: str, tmp_path: Path) -> None:
    c = upsampling((2, 40, 5, 8), 1, stride, dtype)
    check(c, ConvTranspose().configs(c.problem, H200)[0], where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_symbolic_sizes(where: str, tmp_path: Path) -> None:
    n, h = sym("n"), sym("h")
    c = upsampling((2, 8, 6, 5), 8, (2, 2))
    c = symbolic(c, {0: (n, h, 5, 8), 3: (n, h * 2, 10, 8)}, (n, h * 2, 10, 8),
                 {"n": Range(1, 4, 2), "h": Range(3, 9, 6)})  # fmt: skip
    check(c, {"pixels": 2, "threads": 128}, where, tmp_path, {"n": 2, "h": 6})


@pytest.mark.gpu
@pytest.mark.parametrize("x,oc", [((1, 24, 160, 160), 24), ((1, 24, 80, 80), 1)])
def test_every_configuration_on_a_gpu(x: tuple[int, ...], oc: int, tmp_path: Path) -> None:
    c = upsampling(x, oc, (2, 2))
    for chosen in ConvTranspose().configs(c.problem, H200):
        check(c, chosen, "gpu", tmp_path)


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
@pytest.mark.parametrize("ic,oc", [(24, 24), (64, 1), (64, 32)])
def test_every_configuration_compiles_without_spills(ic: int, oc: int) -> None:
    problem = upsampling((1, ic, 8, 8), oc, (2, 2), dt.bf16).problem
    for chosen in ConvTranspose().configs(problem, H200):
        _, log = compile_text(ConvTranspose().emit(problem, H200, chosen).text, "sm_90")
        assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{chosen}: {log}"
        assert "warning" not in log, log


def test_reasons() -> None:
    x = (1, 16, 4, 4)
    found = ConvTranspose().applicable(upsampling(x, 8, (2, 2)).problem, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "is written for sm_90, not sm_80"
    assert "f16 and bf16" in reason(ConvTranspose(), upsampling(x, 8, (2, 2), dt.f32).problem)
    assert "do not overlap" in reason(ConvTranspose(), upsampling(x, 8, (2, 2), kernel=(3, 3)).problem)
    assert "do not overlap" in reason(ConvTranspose(), upsampling(x, 8, (2, 2), pads=(1, 0, 0, 0)).problem)
    assert "do not overlap" in reason(ConvTranspose(), upsampling(x, 8, (2, 2), extra=1).problem)
    assert "one group" in reason(ConvTranspose(), upsampling(x, 8, (2, 2), groups=2).problem)
    assert "runs of 8" in reason(ConvTranspose(), upsampling(x, 12, (2, 2)).problem)
    assert "runs of 8" in reason(ConvTranspose(), upsampling((1, 16, 4, 3), 1, (2, 2)).problem)
    assert "holds all weights" in reason(ConvTranspose(), upsampling((1, 128, 4, 4), 64, (2, 2)).problem)


def test_configurations_are_ordered_by_their_estimate() -> None:
    tactic, problem = ConvTranspose(), upsampling((1, 24, 160, 160), 24, (2, 2)).problem
    times = [tactic.estimate(problem, H200, c) for c in tactic.configs(problem, H200)]
    assert times == sorted(times) and 2 < times[0] < 8
