"""Layer and RMS norms by warps on the emulator (and the GPU), against float64: row sizes, tails, turns, epilogues."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.layer_norm import LayerNorm
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, Case, assert_right, reason, symbolic, with_bias_relu
from tests.kernels.triton.test_normalize import layer_norm

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]
SMALL = CudaTarget("sm_90", replace(ARCHS["sm_90"], sms=1))  # so that warps take several rows


def config(warps: int, turns: int = 1) -> Config:
    return {"warps": warps, "turns": turns}


def check(
    c: Case, chosen: Config, where: str, folder: Path, env: dict[str, int] | None = None, tolerance: float = 0.0
) -> None:
    tactic = LayerNorm()
    assert tactic.applicable(c.problem, SMALL) is None
    code = tactic.emit(c.problem, SMALL, chosen)
    if where == "gpu":
        (got,) = run_on_gpu(c.problem, code, c.operands, env)
    else:
        (got,) = emulate(c.problem, code, c.operands, folder, env)
    assert_right(c, [got], tolerance=tolerance)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("dtype", [dt.f32, dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("shape", [(7, 768), (3, 5, 96), (9, 8), (2, 1536), (5, 264)], ids=str)
def test_rows(dtype: DType, shape: tuple[int, ...], where: str, tmp_path: Path) -> None:
    check(layer_norm(shape, -1, "layer", dtype), config(2), where, tmp_path)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("mode", ["layer", "rms"])
def test_modes(mode: str, given: tuple[bool, bool], where: str, tmp_path: Path) -> None:
    check(layer_norm((37, 200), 1, mode, dt.f16, *given), config(1, 5), where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_far_from_zero(where: str, tmp_path: Path) -> None:
    """Squares are of centred values: what is lost is the rounding of the mean."""
    c = layer_norm((6, 96), -1, "layer", dt.f32)
    x = c.operands[0] + np.float32(1000)
    wide = x.astype(np.float64) - x.astype(np.float64).mean(1, keepdims=True)
    want = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * c.operands[1] + c.operands[2]
    check(replace(c, operands=(x, *c.operands[1:]), want=(want,)), config(1), where, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("where", ON)
def test_epilogues(where: str, tmp_path: Path) -> None:
    check(with_bias_relu(layer_norm((21, 72), -1, "layer", dt.bf16), -1), config(1, 3), where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_symbolic_rows(where: str, tmp_path: Path) -> None:
    n = sym("n")
    c = symbolic(layer_norm((50, 64), -1, "layer", dt.f16), {0: (n, 64)}, (n, 64), {"n": Range(1, 500, 20)})
    check(c, config(2, 2), where, tmp_path, {"n": 50})


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_configurations_compile() -> None:
    for dtype, size in ((dt.f16, 768), (dt.f32, 1536), (dt.f32, 40)):
        problem = layer_norm((300, size), -1, "layer", dtype).problem
        for chosen in LayerNorm().configs(problem, H200)[::4]:
            _, log = compile_text(LayerNorm().emit(problem, H200, chosen).text, "sm_90")
            assert max(int(b) for b in re.findall(r"(\d+) bytes spill", log)) == 0, log
            assert "warning" not in log, log


def test_reasons() -> None:
    c = layer_norm((6, 2, 8), 1, "layer", dt.f16)
    assert "the last axis alone" in reason(LayerNorm(), c.problem)
    assert "multiples of 8" in reason(LayerNorm(), layer_norm((6, 12), 1, "layer", dt.f16).problem)
    assert "up to 1536" in reason(LayerNorm(), layer_norm((2, 2048), 1, "layer", dt.f16).problem)
    found = LayerNorm().applicable(layer_norm((6, 8), 1, "layer", dt.f16).problem, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "is written for sm_90, not sm_80"
