"""Group norms on the emulator (and the GPU), against float64: uneven rows, clusters, odd groups, epilogues, types."""

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
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Operand
from bessemer.kernels.cuda.group_norm import CudaGroupNorm
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import (
    H200,
    RNG,
    Array,
    Case,
    assert_right,
    case,
    normal,
    reason,
    rounded,
    symbolic,
    with_bias_relu,
)

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]


def norm(
    shape: tuple[int, ...], groups: int, dtype: DType, mean: float = 0.0, epsilon: float = 1e-5, layout: str = "NHWC"
) -> Case:
    """Rows that differ in size from channel to channel, far from zero by `mean`."""
    x = rounded(RNG.standard_normal(shape).astype(np.float32) * np.exp(RNG.standard_normal(shape[-1])) + mean, dtype)
    scale, bias = normal((shape[-1],)), normal((shape[-1],))
    grouped = x.astype(np.float64).reshape(shape[0], -1, groups, shape[-1] // groups)
    off = grouped - grouped.mean((1, 3), keepdims=True)
    want = (off / np.sqrt((off * off).mean((1, 3), keepdims=True) + epsilon)).reshape(shape) * scale + bias
    attrs = {"groups": groups, "epsilon": epsilon, "layout": layout}
    return case("group_norm", [x, scale, bias], [want], dtype, attrs, (1, 2), {1: dt.f32, 2: dt.f32})


def config(width: int, lanes: int, cluster: int = 1) -> Config:
    return {"width": width, "lanes": lanes, "cluster": cluster}


def check(c: Case, chosen: Config, where: str, folder: Path, env: dict[str, int] | None = None) -> None:
    assert reason(CudaGroupNorm(), c.problem) == ""
    code = CudaGroupNorm().emit(c.problem, H200, chosen)
    emulated = where == "emulator"
    got: list[Array] = (
        emulate(c.problem, code, c.operands, folder, env) if emulated else run_on_gpu(c.problem, code, c.operands, env)
    )
    assert_right(c, got)


CONFIGS = [config(8, 32), config(16, 32, 2), config(48, 16), config(24, 32, 4), config(8, 128, 8)]


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16, dt.f32], ids=str)
@pytest.mark.parametrize("chosen", CONFIGS, ids=str)
def test_instance_norms(chosen: Config, dtype: DType, where: str, tmp_path: Path) -> None:
    check(with_bias_relu(norm((2, 9, 11, 48), 48, dtype), 3), chosen, where, tmp_path)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("channels,groups,chosen", [
    (48, 16, config(24, 32)), (48, 16, config(48, 16, 2)), (40, 8, config(40, 32, 2)), (64, 2, config(32, 16, 4)),
    (64, 1, config(64, 32)), (80, 8, config(40, 64, 8)),
])  # fmt: skip
def test_groups_of_several_channels(channels: int, groups: int, chosen: Config, where: str, tmp_path: Path) -> None:
    check(norm((2, 5, 7, channels), groups, dt.f16), chosen, where, tmp_path)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("chosen", [config(8, 32), config(16, 64, 8)])
def test_far_from_zero(chosen: Config, where: str, tmp_path: Path) -> None:
    check(norm((1, 13, 17, 16), 16, dt.f32, mean=1e4), chosen, where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_constant_channels_and_scaled_epsilon(where: str, tmp_path: Path) -> None:
    c = norm((1, 6, 6, 8), 8, dt.f16, epsilon=1e-5 / 4.0**24)
    x = c.operands[0].copy()
    x[..., 3] = 0.5
    want = c.want[0].copy()
    want[..., 3] = c.operands[2][3]
    check(replace(c, operands=(x, *c.operands[1:]), want=(want,)), config(8, 32, 2), where, tmp_path)


@pytest.mark.parametrize("where", ON)
def test_symbolic_sizes(where: str, tmp_path: Path) -> None:
    n, h = sym("n"), sym("h")
    ranges = {"n": Range(1, 4, 2), "h": Range(1, 9, 8)}
    for rows in (7, 1):
        c = symbolic(norm((3, rows, 5, 16), 16, dt.f16), {0: (n, h, 5, 16)}, (n, h, 5, 16), ranges)
        check(c, config(16, 16, 2), where, tmp_path, {"n": 3, "h": rows})


@pytest.mark.gpu
@pytest.mark.parametrize(
    "size,channels,groups", [(128, 32, 32), (64, 64, 32), (16, 160, 32), (8, 256, 32), (32, 96, 32)]
)
def test_every_configuration_on_a_gpu(size: int, channels: int, groups: int, tmp_path: Path) -> None:
    c = norm((2, size, size, channels), groups, dt.f16)
    for chosen in CudaGroupNorm().configs(c.problem, H200):
        check(c, chosen, "gpu", tmp_path)


def with_scale_and_shift(c: Case) -> Case:
    """Each image's channels times the first half of a row of its own, plus the second half."""
    n, *_, channels = c.problem.outputs[0].shape
    assert isinstance(n, int) and isinstance(channels, int)
    film = rounded(normal((n, 1, 1, 2 * channels)), dt.f16)
    image, _, _, channel = ex.out_axes(4)
    zero = ex.lit(0, dt.i64)
    scale, shift = (
        ex.cast(ex.load(3, (image, zero, zero, ex.call("add", channel, ex.lit(k, dt.i64))), dt.f16), dt.f32)
        for k in (0, channels)
    )
    acc = ex.cast(ex.Acc(dt.f16), dt.f32)
    epilogue = ex.cast(ex.call("add", ex.call("mul", acc, scale), shift), dt.f16)
    operand = Operand(TensorType(dt.f16, film.shape), False)
    problem = replace(c.problem, operands=(*c.problem.operands, operand), epilogue=epilogue)
    own = film.astype(np.float64)
    want = c.want[0] * own[..., :channels] + own[..., channels:]
    return Case(problem, (*c.operands, film), (want,))


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("chosen", [config(16, 32), config(16, 16, 4)], ids=str)
def test_what_an_image_has_in_columns_is_read_once(chosen: Config, where: str, tmp_path: Path) -> None:
    c = with_scale_and_shift(norm((3, 6, 7, 32), 8, dt.f16))
    check(c, chosen, where, tmp_path)
    text = CudaGroupNorm().emit(c.problem, H200, chosen).text
    cells = text.split("inline void load_cells(")[1].split("\n}")[0]
    assert "load_run" not in cells and text.count("columns.v") >= 2


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
@pytest.mark.parametrize("dtype", [dt.f16, dt.f32], ids=str)
def test_configurations_compile_without_spills(dtype: DType) -> None:
    problem = with_bias_relu(norm((1, 128, 128, 32), 32, dtype), 3).problem
    for chosen in CudaGroupNorm().configs(problem, H200):
        _, log = compile_text(CudaGroupNorm().emit(problem, H200, chosen).text, "sm_90")
        assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{chosen}: {log}"
        assert "warning" not in log, log


def test_reasons() -> None:
    def why(*shape: int, groups: int = 8, layout: str = "NHWC") -> str:
        return reason(CudaGroupNorm(), norm(shape, groups, dt.f16, layout=layout).problem)

    found = CudaGroupNorm().applicable(norm((1, 4, 4, 16), 8, dt.f16).problem, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "is written for sm_90, not sm_80"
    assert why(1, 4, 4, 16) == ""
    assert "channels last" in why(1, 4, 4, 16, layout="NCHW")
    assert "runs of 8 channels" in why(1, 4, 4, 12, groups=4)
    assert "holds an image" in why(1, 700, 700, 16)
    assert "holds an image" in why(1, 4, 4, 1024, groups=1)


def test_configurations_are_ordered_by_their_estimate() -> None:
    tactic, problem = CudaGroupNorm(), norm((1, 64, 64, 64), 32, dt.f16).problem
    configs = tactic.configs(problem, H200)
    times = [tactic.estimate(problem, H200, c) for c in configs]
    assert times == sorted(times) and 1 < times[0] < 6 and len(configs) <= 24
    assert all(int(c["width"]) % 8 == 0 and 64 % int(c["width"]) == 0 for c in configs)


def test_data_is_held_in_bytes_of_its_type() -> None:
    for dtype in (dt.f16, dt.f32):
        problem = norm((1, 128, 128, 32), 32, dtype).problem
        assert TensorType(dtype, (1, 128, 128, 32)) == problem.operands[0].type
        for c in CudaGroupNorm().configs(problem, H200):
            runs = -(-128 * 128 // (int(c["cluster"]) * int(c["lanes"])))
            threads = int(c["lanes"]) * int(c["width"]) // 8
            assert runs * 8 * dtype.itemsize <= 4 * (min(255, 65536 // threads) - 72)
