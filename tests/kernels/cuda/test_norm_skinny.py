"""Norms and the products behind them, against float64: on the emulator, and on the GPU."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.kernels.base import Config, Operand
from bessemer.kernels.cuda.norm_skinny import NormSkinny
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, RNG, TOLERANCE, Array, Case, case, normal, reason, rounded

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]
EPSILON = 1e-5


def config(tokens: int, blocks: int = 1, slices: int = 1, step: int = 1) -> Config:
    return {"tokens": tokens, "blocks": blocks, "slices": slices, "cluster": 1, "step": step}


def normed(
    m: int, k: int, n: int, dtype: DType = dt.f16, mode: str = "layer", keep: bool = False, offset: float = 0.0,
    batches: tuple[int, ...] = (), tb: bool = False,
) -> Case:  # fmt: skip
    """norm(x) * scale + shift, times w: tokens of deviation about one around `offset`, and exact results."""
    x = rounded(normal((m, k)) * np.exp(RNG.standard_normal((m, 1)) / 2) + offset, dtype).astype(np.float32)
    scale, shift = normal((k,)) + 1, normal((k,))
    w = rounded(normal((*batches, k, n)) / k**0.5 * scale[:, None], dtype).astype(np.float32)
    wide, heavy = x.astype(np.float64), w.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True) if mode == "layer" else wide
    y = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    by_shift = normal((*batches, 1, n))
    sums = np.concatenate([heavy.sum(axis=-2, keepdims=True), by_shift], axis=-2).astype(np.float32)
    arrays: list[Array] = [x.reshape(*(1 for _ in batches), m, k), np.swapaxes(w, -1, -2) if tb else w, sums]
    wants = [y @ heavy + by_shift]
    if keep:
        arrays.append(np.stack([scale, shift]).astype(np.float32))
        wants.append((y * scale + shift).reshape(arrays[0].shape))
    attrs = {"epsilon": EPSILON, "mode": mode, "transpose_b": tb, "keep": keep}
    return case("norm_matmul", [np.ascontiguousarray(a) for a in arrays], wants, dtype, attrs, range(1, len(arrays)),
                {2: dt.f32, 3: dt.f32})  # fmt: skip


def with_residual(c: Case) -> Case:
    """The case and a residual behind its product."""
    out, n = c.problem.outputs[0], len(c.operands)
    e = ex.call("add", ex.Acc(out.dtype), ex.load(n, ex.out_axes(out.rank), out.dtype))
    residual = normal(c.want[0].shape, out.dtype)
    problem = replace(c.problem, operands=(*c.problem.operands, Operand(out)), epilogue=e)
    return Case(problem, (*c.operands, residual), (c.want[0] + residual, *c.want[1:]))


def check(c: Case, chosen: Config, on: str, folder: Path) -> None:
    code = NormSkinny().emit(c.problem, H200, chosen)
    got = emulate(c.problem, code, c.operands, folder) if on == "emulator" else run_on_gpu(c.problem, code, c.operands)
    for values, want, out in zip(got, c.want, c.problem.outputs, strict=True):
        error = np.linalg.norm((values - want).ravel()) / float(np.linalg.norm(want.ravel()))
        assert error < TOLERANCE[out.dtype.name], f"{error} with {dict(chosen)}"


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("mode", ["layer", "rms"])
@pytest.mark.parametrize("chosen", [config(16), config(32, 2), config(16, 1, 2, 2)])
def test_products_of_norms(dtype: DType, mode: str, chosen: Config, on: str, tmp_path: Path) -> None:
    check(normed(21, 256, 72, dtype, mode), chosen, on, tmp_path)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("batches,tb", [((), False), ((), True), ((3,), False)])
def test_norms_that_are_outputs_too(batches: tuple[int, ...], tb: bool, on: str, tmp_path: Path) -> None:
    """Fewer CTAs than chunks, and a residual behind the product."""
    check(with_residual(normed(21, 320, 72, keep=True, batches=batches, tb=tb)), config(16, 1, 1, 2), on, tmp_path)


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("offset", [1.0, 30.0])
def test_large_means_cost_no_digits(offset: float, on: str, tmp_path: Path) -> None:
    check(normed(21, 256, 64, keep=True, offset=offset), config(16), on, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("m,k,n,batches", [(128, 768, 768, (3,)), (128, 768, 3072, ()), (197, 768, 768, (3,))])
def test_every_configuration(m: int, k: int, n: int, batches: tuple[int, ...], tmp_path: Path) -> None:
    c = normed(m, k, n, keep=True, offset=2.0, batches=batches)
    for chosen in NormSkinny().configs(c.problem, H200):
        check(c, chosen, "gpu", tmp_path)


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_every_configuration_compiles_without_spills() -> None:
    problem = with_residual(normed(128, 768, 768, keep=True)).problem
    for chosen in NormSkinny().configs(problem, H200)[::3]:
        _, log = compile_text(NormSkinny().emit(problem, H200, chosen).text, "sm_90")
        assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{chosen}: {log}"
        assert "C7517" not in log, f"{chosen}: products wait for each other"


def test_reasons() -> None:
    assert reason(NormSkinny(), normed(128, 768, 768).problem) == ""
    assert "whole chunks" in reason(NormSkinny(), normed(128, 96, 768).problem)
    assert "by itself" in reason(NormSkinny(), normed(4096, 768, 768).problem)
