"""Products of a few rows on the emulator (and the GPU), against float64: lengths of the sum, layouts, rows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.cuda.gemv import Gemv
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, Case, assert_right, matmul, reason, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import conv

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]


def check(c: Case, where: str, folder: Path, env: dict[str, int] | None = None) -> None:
    """Every configuration."""
    assert Gemv().applicable(c.problem, H200) is None
    for chosen in Gemv().configs(c.problem, H200):
        code, emulated = Gemv().emit(c.problem, H200, chosen), where == "emulator"
        (got,) = (
            emulate(c.problem, code, c.operands, folder, env)
            if emulated
            else run_on_gpu(c.problem, code, c.operands, env)
        )
        assert_right(c, [got])


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("k,n,transposed", [(1280, 40, True), (520, 16, False), (24, 8, True), (4096, 8, True)])
def test_one_row(k: int, n: int, transposed: bool, dtype: DType, where: str, tmp_path: Path) -> None:
    check(with_bias_relu(matmul((1, k), (k, n), dtype, tb=transposed), -1), where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_a_few_rows_of_a_pointwise_convolution(where: str, tmp_path: Path) -> None:
    check(with_bias_relu(conv((3, 96, 1, 1), (24, 96, 1, 1), dt.f16), -1), where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_symbolic_rows(where: str, tmp_path: Path) -> None:
    rows = sym("n")
    shapes: dict[int, tuple[Dim, ...]] = {0: (rows, 128), 3: (rows, 64)}
    c = symbolic(with_bias_relu(matmul((2, 128), (128, 64), dt.f16), -1), shapes, (rows, 64), {"n": Range(1, 4, 1)})
    check(c, where, tmp_path, {"n": 2})


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
@pytest.mark.parametrize("k", [1280, 4096])
def test_every_configuration_compiles_without_spills(k: int) -> None:
    problem = with_bias_relu(matmul((1, k), (k, 1000), dt.bf16, tb=True), -1).problem
    for chosen in Gemv().configs(problem, H200):
        _, log = compile_text(Gemv().emit(problem, H200, chosen).text, "sm_90")
        assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{chosen}: {log}"
        assert "warning" not in log, log


def test_nothing_is_launched_without_rows() -> None:
    """The kernel loads its first row before it looks how many there are."""
    n = sym("n")
    c = symbolic(matmul((2, 128), (128, 64), dt.f16), {0: (n, 128)}, (n, 64), {"n": Range(0, 4, 1)})
    (grid,) = Gemv().emit(c.problem, H200, Gemv().configs(c.problem, H200)[0]).launches[0].grid
    assert [evaluate(grid, {"n": rows}) for rows in (0, 1, 4)] == [0, 8, 8]


def test_reasons() -> None:
    plain = matmul((1, 64), (64, 64), dt.f16).problem
    found = Gemv().applicable(plain, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "is written for sm_90, not sm_80"
    assert reason(Gemv(), plain) == ""
    assert "f16 and bf16" in reason(Gemv(), matmul((1, 64), (64, 64)).problem)
    assert "constant" in reason(Gemv(), matmul((1, 64), (64, 64), dt.f16, constant=False).problem)
    assert "runs of 8" in reason(Gemv(), matmul((1, 60), (60, 64), dt.f16).problem)
    assert "at most 4096" in reason(Gemv(), matmul((1, 4104), (4104, 8), dt.f16).problem)
    assert "at most 4 rows" in reason(Gemv(), matmul((5, 64), (64, 64), dt.f16).problem)


def test_configurations_are_ordered_by_their_estimate() -> None:
    problem = matmul((1, 1280), (1280, 1000), dt.f16, tb=True).problem
    times = [Gemv().estimate(problem, H200, c) for c in Gemv().configs(problem, H200)]
    assert times == sorted(times) and 1.5 < times[0] < 3
