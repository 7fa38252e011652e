"""Sums over rows on the emulator (and the GPU), against float64: uneven rows, clusters, terms, epilogues, types."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Operand, Problem
from bessemer.kernels.cuda.column_sums import ColumnSums
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, Array, Case, assert_right, normal, reason

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]
I0, I1, I2, I3 = ex.out_axes(4)
ZERO = ex.lit(0, dt.i64)
Y, X = ex.Axis("y"), ex.Axis("x")


def problem_of(
    e: ex.Expr, operands: list[TensorType], out: TensorType, ranges: tuple[tuple[str, Range], ...] = ()
) -> Problem:
    body = ex.ComputeDef(out.shape, out.dtype, e)
    return Problem("group", tuple(Operand(t, k > 0) for k, t in enumerate(operands)), (out,), body=body, ranges=ranges)


def pool(n: int, h: int, w: int, c: int, dtype: DType, out: DType | None = None) -> Case:
    """hard_sigmoid(mean over h and w of relu(x + bias))."""
    x, bias = normal((n, h, w, c), dtype), normal((c,), dtype)
    value = ex.call("add", ex.load(0, (I0, Y, X, I3), dtype), ex.load(1, (I3,), dtype))
    value = ex.cast(ex.call("max", value, ex.lit(0.0, dtype)), dt.f32)
    total = ex.Reduce("sum", (("y", h), ("x", w)), value, dt.f32)
    mean = ex.call("div", total, ex.lit(float(h * w), dt.f32))
    gate = ex.call("add", ex.call("mul", mean, ex.lit(0.25, dt.f32)), ex.lit(0.5, dt.f32))
    e = ex.cast(ex.call("min", gate, ex.lit(1.0, dt.f32)), out or dtype)
    types = [TensorType(dtype, x.shape), TensorType(dtype, (c,))]
    want = np.minimum(np.maximum(x.astype(np.float64) + bias, 0).mean((1, 2), keepdims=True) * 0.25 + 0.5, 1)
    return Case(problem_of(e, types, TensorType(out or dtype, (n, 1, 1, c))), (x, bias), (want,))


def config(runs: int, threads: int = 128, cluster: int = 1) -> Config:
    return {"runs": runs, "threads": threads, "cluster": cluster}


def check(c: Case, chosen: Config, where: str, folder: Path, env: dict[str, int] | None = None) -> None:
    assert ColumnSums().applicable(c.problem, H200) is None
    code = ColumnSums().emit(c.problem, H200, chosen)
    emulated = where == "emulator"
    got: list[Array] = (
        emulate(c.problem, code, c.operands, folder, env) if emulated else run_on_gpu(c.problem, code, c.operands, env)
    )
    assert_right(c, got)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16, dt.f32], ids=str)
@pytest.mark.parametrize("chosen", [config(1), config(4, 256), config(2, 128, 4), config(8, 128, 8), config(16)])
def test_pools(chosen: Config, dtype: DType, where: str, tmp_path: Path) -> None:
    check(pool(2, 13, 17, 40, dtype), chosen, where, tmp_path)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("chosen", [config(4), config(16, 512, 2)])
def test_another_type_and_few_rows(chosen: Config, where: str, tmp_path: Path) -> None:
    check(pool(1, 3, 3, 136, dt.f16, dt.f32), chosen, where, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("size,channels", [(7, 1280), (20, 384), (160, 96)])
def test_every_configuration_on_a_gpu(size: int, channels: int, tmp_path: Path) -> None:
    c = pool(1, size, size, channels, dt.f16)
    for chosen in ColumnSums().configs(c.problem, H200):
        check(c, chosen, "gpu", tmp_path)


@pytest.mark.parametrize("where", ON)
def test_symbolic_sizes(where: str, tmp_path: Path) -> None:
    n, h = sym("n"), sym("h")
    shape: tuple[Dim, ...] = (n, h, 5, 16)
    value = ex.cast(ex.load(0, (I0, Y, X, I3), dt.f16), dt.f32)
    e = ex.cast(ex.Reduce("sum", (("y", h), ("x", 5)), value, dt.f32), dt.f16)
    ranges = (("h", Range(2, 9, 6)), ("n", Range(1, 4, 2)))
    problem = problem_of(e, [TensorType(dt.f16, shape)], TensorType(dt.f16, (n, 1, 1, 16)), ranges)
    x = normal((3, 7, 5, 16), dt.f16)
    c = Case(problem, (x,), (x.astype(np.float64).sum((1, 2), keepdims=True),))
    check(c, config(2, 128, 2), where, tmp_path, {"n": 3, "h": 7})


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_every_configuration_compiles_without_spills() -> None:
    problem = pool(1, 160, 160, 96, dt.bf16).problem
    for chosen in ColumnSums().configs(problem, H200)[::3]:
        _, log = compile_text(ColumnSums().emit(problem, H200, chosen).text, "sm_90")
        assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{chosen}: {log}"
        assert "warning" not in log, log


def test_reasons() -> None:
    def reduced(kind: str = "sum", c: int = 16, h: int = 8, index: tuple[ex.Expr, ...] = (I0, Y, I2)) -> Problem:
        value = ex.cast(ex.load(0, index, dt.f16), dt.f32)
        e = ex.cast(ex.Reduce(kind, (("y", h),), value, dt.f32), dt.f16)
        return problem_of(e, [TensorType(dt.f16, (2, 32, 32))], TensorType(dt.f16, (2, 1, c)))

    found = ColumnSums().applicable(reduced(), CudaTarget("sm_80", ARCHS["sm_80"]))
    assert reason(ColumnSums(), reduced()) == ""
    assert found is not None and found.text == "is written for sm_90, not sm_80"
    assert "does not compute max" in reason(ColumnSums(), reduced("max"))
    assert "runs of 8 channels" in reason(ColumnSums(), reduced(c=12))
    assert "at least 8 rows" in reason(ColumnSums(), reduced(h=4))
    assert "in runs of channels" in reason(ColumnSums(), reduced(index=(I0, I2, Y)))
    plain = problem_of(ex.load(0, (I0,), dt.f16), [TensorType(dt.f16, (16,))], TensorType(dt.f16, (16,)))
    assert "one reduction, not 0" in reason(ColumnSums(), plain)


def test_configurations_are_ordered_by_their_estimate() -> None:
    tactic, problem = ColumnSums(), pool(1, 160, 160, 96, dt.f16).problem
    times = [tactic.estimate(problem, H200, c) for c in tactic.configs(problem, H200)]
    assert times == sorted(times) and 2 < times[0] < 6
