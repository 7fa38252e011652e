"""Kernels that write columns of wider tensors, on the emulator (and the GPU): their values, and what lies beside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Tactic
from bessemer.kernels.cuda.column_sums import ColumnSums
from bessemer.kernels.cuda.conv_depthwise import ConvDepthwise
from bessemer.kernels.cuda.conv_skinny import ConvSkinny
from bessemer.kernels.cuda.conv_tma import ConvTma
from bessemer.kernels.cuda.conv_transpose import ConvTranspose
from bessemer.kernels.cuda.gemm_skinny import GemmSkinny
from bessemer.kernels.cuda.gemm_tma import GemmTma
from bessemer.kernels.cuda.gemv import Gemv
from bessemer.kernels.cuda.group_norm import CudaGroupNorm
from bessemer.kernels.cuda.layer_norm import LayerNorm
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.cuda.test_column_sums import config as sums
from tests.kernels.cuda.test_column_sums import pool
from tests.kernels.cuda.test_conv_transpose import upsampling
from tests.kernels.cuda.test_depthwise import config as pixels
from tests.kernels.cuda.test_depthwise import depthwise
from tests.kernels.cuda.test_group_norm import config as lanes
from tests.kernels.cuda.test_group_norm import norm
from tests.kernels.cuda.test_layer_norm import config as warps
from tests.kernels.cuda.test_skinny import config as tokens
from tests.kernels.cuda.test_tiled import config as tile
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import (
    Case,
    assert_right,
    in_columns,
    matmul,
    reason,
    symbolic,
    with_bias_relu,
)
from tests.kernels.triton.test_conv import conv
from tests.kernels.triton.test_normalize import layer_norm

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]
SMALL = CudaTarget("sm_90", replace(ARCHS["sm_90"], sms=2))  # so that CTAs walk
PLACES = ((0, 8), (16, 0), (8, 24))  # columns before and after
SAME = (1, 1, 1, 1)


def product(*shapes: tuple[int, ...]) -> Case:
    return with_bias_relu(matmul(*shapes, dt.f16), -1)


def window(channels: int, to: int) -> Case:
    return with_bias_relu(conv((2, channels, 9, 7), (to, channels, 3, 3), dt.f16, pads=SAME), -1)


def wide(c: Case) -> Case:
    """The case with its f16 result stored as f32."""
    out = TensorType(dt.f32, c.problem.outputs[0].shape)
    epilogue = c.problem.epilogue if c.problem.epilogue is not None else ex.Acc(dt.f16)
    return replace(c, problem=replace(c.problem, outputs=(out,), epilogue=ex.cast(epilogue, dt.f32)))


CASES: dict[str, tuple[Tactic, Config, Callable[[], Case]]] = {
    "tiled product": (GemmTma(), tile(1, 1, 64, 3, 1), lambda: product((150, 200), (200, 136))),
    "shared sums": (GemmTma(), tile(1, 1, 192, 2, 1, 2, 2), lambda: product((150, 1032), (1032, 136))),
    "batches of weights": (GemmTma(), tile(1, 1, 64, 3, 1), lambda: product((1, 150, 200), (3, 200, 136))),
    "tiled window": (ConvTma(), tile(1, 1, 64, 3, 1), lambda: window(40, 24)),
    "tiled window, f32": (ConvTma(), tile(1, 1, 64, 3, 1), lambda: wide(window(40, 24))),
    "small product": (GemmSkinny(), tokens(16, 1, 1, 2), lambda: product((21, 504), (504, 72))),
    "small window": (ConvSkinny(), tokens(32, 1, 1, 2), lambda: window(24, 16)),
    "one row": (Gemv(), {"threads": 64}, lambda: product((2, 520), (520, 16))),
    "depthwise": (ConvDepthwise(), pixels(2, 2, 128), lambda: depthwise((2, 24, 7, 10), (3, 3), pads=SAME)),
    "upsampling": (ConvTranspose(), {"pixels": 4, "threads": 128}, lambda: upsampling((2, 24, 5, 7), 16, (2, 2))),
    "sums": (ColumnSums(), sums(2, cluster=2), lambda: pool(2, 9, 8, 40, dt.f16)),
    "layer norm": (LayerNorm(), warps(2), lambda: layer_norm((3, 5, 96), -1, "layer", dt.f16)),
    "group norm": (CudaGroupNorm(), lanes(16, 16, 2), lambda: norm((2, 5, 7, 32), 4, dt.f16)),
}  # fmt: skip


def check(tactic: Tactic, chosen: Config, c: Case, where: str, folder: Path, env: dict[str, int] | None = None) -> None:
    assert tactic.applicable(c.problem, SMALL) is None
    code = tactic.emit(c.problem, SMALL, chosen)
    emulated = where == "emulator"
    got = (
        emulate(c.problem, code, c.operands, folder, env) if emulated else run_on_gpu(c.problem, code, c.operands, env)
    )
    assert_right(c, got)


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize(
    ("name", "place"), [(name, PLACES[k % len(PLACES)]) for k, name in enumerate(CASES)], ids=str
)  # fmt: skip
def test_columns(name: str, place: tuple[int, int], where: str, tmp_path: Path) -> None:
    tactic, chosen, made = CASES[name]
    check(tactic, chosen, in_columns(made(), *place), where, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_every_place_on_a_gpu(name: str, tmp_path: Path) -> None:
    tactic, chosen, made = CASES[name]
    for place in PLACES:
        check(tactic, chosen, in_columns(made(), *place), "gpu", tmp_path)


@pytest.mark.parametrize("where", ON)
def test_columns_of_symbolic_rows(where: str, tmp_path: Path) -> None:
    n = sym("n")
    c = conv((3, 64, 7, 7), (24, 64, 3, 3), dt.f16, pads=SAME)
    c = symbolic(c, {0: (n, 7, 7, 64)}, (n, 7, 7, 24), {"n": Range(1, 8, 4)})
    check(ConvTma(), tile(1, 1, 64, 3, 1), in_columns(c, 8, 16), where, tmp_path, {"n": 3})


@pytest.mark.parametrize("name", CASES)
def test_all_columns_have_one_text(name: str) -> None:
    """Where they lie is told at launch: parts of concatenations share kernels."""
    tactic, chosen, made = CASES[name]
    c = made()
    texts = {tactic.emit(in_columns(c, *place).problem, SMALL, chosen).text for place in ((1000, 48), (2000, 80))}
    assert len(texts) == 1 and tactic.emit(c.problem, SMALL, chosen).text not in texts


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
@pytest.mark.parametrize("name", CASES)
def test_columns_compile_without_spills(name: str) -> None:
    tactic, chosen, made = CASES[name]
    _, log = compile_text(tactic.emit(in_columns(made(), 8, 16).problem, SMALL, chosen).text, "sm_90")
    assert max(int(b) for b in re.findall(r"(\d+) bytes spill", log)) == 0 and "warning" not in log, log


@pytest.mark.parametrize("name", CASES)
def test_runs_lie_at_whole_runs(name: str) -> None:
    tactic, _, made = CASES[name]
    assert "runs of 8 elements, not those from column 4 on" in reason(tactic, in_columns(made(), 4, 4).problem)
    assert "runs of 8 elements, not those from column 8 on" in reason(tactic, in_columns(made(), 8, 4).problem)


def test_one_channel_along_the_width_is_no_run_of_columns() -> None:
    assert "along the width" in reason(ConvTranspose(), in_columns(upsampling((2, 40, 5, 8), 1, (2, 2)), 8, 7).problem)
