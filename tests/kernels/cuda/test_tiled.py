"""Products of many tokens on the emulator, against float64: tails, walks, shared sums, windows, epilogues."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Map, Operand, Problem, Tactic
from bessemer.kernels.cuda.conv_tma import ConvTma
from bessemer.kernels.cuda.gemm_tma import GemmTma
from bessemer.kernels.cuda.tile import KEEP, Tile, every_tile
from bessemer.kernels.cuda.weights import swizzled_blocks
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.problems import (
    H200,
    Case,
    assert_right,
    matmul,
    normal,
    reason,
    rounded,
    symbolic,
    with_bias_relu,
)  # fmt: skip
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SMALL = CudaTarget("sm_90", replace(ARCHS["sm_90"], sms=2))  # so that CTAs walk


def config(*tile: int) -> Config:
    """blocks, groups, columns, stages, resident, split, down."""
    t = Tile(*tile)
    return {f.name: getattr(t, f.name) for f in fields(t)}


def check(tactic: Tactic, c: Case, chosen: Config, folder: Path, env: dict[str, int] | None = None) -> None:
    assert tactic.applicable(c.problem, SMALL) is None
    assert_right(c, emulate(c.problem, tactic.emit(c.problem, SMALL, chosen), c.operands, folder, env))


@pytest.mark.parametrize(
    "dtype,tile",
    [
        (dt.f16, (1, 1, 64, 3, 1)),
        (dt.bf16, (1, 2, 96, 2, 1)),
        (dt.bf16, (2, 1, 64, 2, 1)),
        (dt.f16, (2, 2, 128, 2, 1)),
        (dt.bf16, (1, 3, 256, 2, 1)),
    ],
    ids=str,
)
def test_products(dtype: DType, tile: tuple[int, ...], tmp_path: Path) -> None:
    check(GemmTma(), with_bias_relu(matmul((270, 200), (200, 136), dtype), -1), config(*tile), tmp_path)


@pytest.mark.parametrize(
    "tile", [(1, 2, 64, 2, 1, 2), (1, 1, 192, 2, 1, 4), (1, 2, 96, 2, 1, 2), (1, 3, 96, 3, 1, 3)], ids=str
)
def test_sums_shared_by_a_cluster(tile: tuple[int, ...], tmp_path: Path) -> None:
    """Into equal parts and others, of the sum and of the tile."""
    check(GemmTma(), with_bias_relu(matmul((90, 968), (968, 136), dt.f16), -1), config(*tile), tmp_path)


@pytest.mark.parametrize("k", [72, 328])
@pytest.mark.parametrize(
    "tile", [(1, 2, 96, 2, 1, 1, 2), (2, 1, 64, 3, 1, 1, 4), (1, 3, 128, 2, 1, 1, 2), (1, 2, 128, 2, 1, 1, 3)], ids=str
)
def test_weights_copied_to_a_cluster(tile: tuple[int, ...], k: int, tmp_path: Path) -> None:
    """In walks over more tiles than there are clusters, and runs of tokens beyond the last."""
    check(GemmTma(), with_bias_relu(matmul((590, k), (k, 136), dt.f16), -1), config(*tile), tmp_path)


@pytest.mark.parametrize("tile", [(1, 1, 64, 2, 1, 2, 2), (1, 1, 128, 2, 1, 4, 2), (1, 1, 64, 3, 1, 2, 3)], ids=str)
def test_weights_and_sums_shared_by_a_cluster(tile: tuple[int, ...], tmp_path: Path) -> None:
    check(GemmTma(), with_bias_relu(matmul((150, 1032), (1032, 136), dt.bf16), -1), config(*tile), tmp_path)


def test_stored_transposed_over_batches(tmp_path: Path) -> None:
    c = with_bias_relu(matmul((3, 30, 64), (64, 40), dt.f16, tb=True), -1)
    check(GemmTma(), c, config(1, 1, 64, 3, 1), tmp_path)


@pytest.mark.parametrize("a", [(1, 150, 200), (150, 200)], ids=str)
@pytest.mark.parametrize(
    "tile", [(1, 1, 64, 3, 1), (1, 1, 96, 2, 1), (1, 2, 64, 2, 1, 2), (1, 1, 96, 2, 1, 1, 2)], ids=str
)
def test_batches_of_weights(a: tuple[int, ...], tile: tuple[int, ...], tmp_path: Path) -> None:
    check(GemmTma(), with_bias_relu(matmul(a, (3, 200, 136), dt.f16, tb=len(a) == 2), -1), config(*tile), tmp_path)


def with_bias_of_batches(c: Case, shape: tuple[int, ...]) -> Case:
    """The product plus a bias of its own for each batch of weights."""
    out, bias = c.problem.outputs[0], rounded(normal(shape), dt.f16)
    axes = ex.out_axes(len(shape))
    index = (*axes[:-2], ex.lit(0, dt.i64), axes[-1])
    problem = replace(
        c.problem, operands=(*c.problem.operands, Operand(TensorType(dt.f16, shape), True)),
        epilogue=ex.call("add", ex.Acc(out.dtype), ex.load(2, index, dt.f16)),
    )  # fmt: skip
    return Case(problem, (*c.operands, bias), (c.want[0] + bias.astype(np.float64),))


@pytest.mark.parametrize("tile", [(1, 1, 64, 3, 1), (1, 1, 96, 2, 1, 1, 2), (1, 1, 160, 2, 1)], ids=str)
def test_what_a_batch_has_in_columns_is_read_ahead_as_columns_are(tile: tuple[int, ...], tmp_path: Path) -> None:
    c = with_bias_of_batches(matmul((1, 150, 200), (3, 200, 136), dt.f16), (3, 1, 136))
    check(GemmTma(), c, config(*tile), tmp_path)
    assert "columns.v0 = load_run(x2 + (batch * " in GemmTma().emit(c.problem, H200, config(*tile)).text


def test_batches_along_two_axes_read_their_columns_as_cells(tmp_path: Path) -> None:
    c = with_bias_of_batches(matmul((1, 1, 150, 200), (2, 3, 200, 136), dt.f16), (2, 3, 1, 136))
    check(GemmTma(), c, config(1, 1, 64, 3, 1), tmp_path)
    assert "cells.v0 = load_run(x2 + " in GemmTma().emit(c.problem, H200, config(1, 1, 64, 3, 1)).text


def test_columns_of_a_batch_beyond_32_bits_are_read_as_cells() -> None:
    c = with_bias_of_batches(matmul((1, 150, 200), (3, 200, 136), dt.f16), (3, 1, 136))
    large = Operand(TensorType(dt.f16, (3, 1 << 23, 136)), True)
    problem = replace(c.problem, operands=(*c.problem.operands[:2], large))
    text = GemmTma().emit(problem, H200, config(1, 1, 64, 3, 1)).text
    assert "cells.v0 = load_run(x2 + (" in text and "columns.v0" not in text
    assert "batch * static_cast<int>" not in text


def test_symbolic_tokens(tmp_path: Path) -> None:
    rows = sym("n")
    c = symbolic(matmul((210, 128), (128, 64), dt.f16), {0: (rows, 128)}, (rows, 64), {"n": Range(1, 5000, 640)})
    check(GemmTma(), c, config(1, 1, 64, 2, 1), tmp_path, {"n": 210})


@pytest.mark.parametrize("channels,kernel", [(64, (3, 3)), (40, (3, 2)), (72, (5,))], ids=str)
@pytest.mark.parametrize("step,gap", [(1, 1), (2, 1), (1, 2)])
def test_windows(channels: int, kernel: tuple[int, ...], step: int, gap: int, tmp_path: Path) -> None:
    rank = len(kernel)
    attrs = {"strides": (step,) * rank, "dilations": (gap,) * rank, "pads": (1, 2, 2, 1) if rank == 2 else (2, 1)}
    c = conv((3, channels, *(11, 9)[:rank]), (16, channels, *kernel), dt.f16, **attrs)
    check(ConvTma(), with_bias_relu(c, -1), config(1, 1, 64, 3, 1), tmp_path)


@pytest.mark.parametrize(
    "image,kernel,attrs",
    [
        ((2, 8, 23, 25), (7, 7), {"strides": (2, 2)}),
        ((3, 8, 14, 11), (3, 3), {"strides": (2, 2)}),
        ((2, 40, 9, 8), (2, 3), {"strides": (1, 2), "dilations": (2, 1)}),
        ((2, 8, 36, 24), (12, 12), {"strides": (12, 12)}),
        ((3, 24, 31), (5,), {"strides": (3,)}),
    ],
    ids=["stem", "small stem", "more channels", "patches", "one axis"],
)
def test_rows_of_taps_without_padding(
    image: tuple[int, ...], kernel: tuple[int, ...], attrs: dict[str, Any], tmp_path: Path
) -> None:
    c = with_bias_relu(conv(image, (24, image[1], *kernel), dt.f16, **attrs), -1)
    code = ConvTma().emit(c.problem, SMALL, config(1, 1, 64, 3, 1))
    assert code.packs[0].params[0] == "whole_rows"
    check(ConvTma(), c, config(1, 1, 64, 3, 1), tmp_path)


def test_no_row_of_taps_reads_what_is_beside_it(tmp_path: Path) -> None:
    """Not even to multiply it by zero: NaN in a column that no window covers stays there."""
    c = conv((2, 8, 9, 12), (16, 8, 3, 3), dt.f16, strides=(2, 2))
    c.operands[0][:, :, -1] = np.nan
    check(ConvTma(), c, config(1, 1, 64, 3, 1), tmp_path)


def test_windows_whose_weights_are_copied_to_a_cluster(tmp_path: Path) -> None:
    c = conv((5, 64, 17, 15), (200, 64, 3, 3), dt.f16, strides=(2, 1), pads=(1, 1, 1, 1))
    check(ConvTma(), with_bias_relu(c, -1), config(1, 2, 64, 2, 1, 1, 2), tmp_path)


def test_windows_of_a_symbolic_batch(tmp_path: Path) -> None:
    n = sym("n")
    c = conv((3, 64, 7, 7), (24, 64, 3, 3), dt.f16, pads=(1, 1, 1, 1))
    c = symbolic(c, {0: (n, 7, 7, 64)}, (n, 7, 7, 24), {"n": Range(1, 8, 4)})
    check(ConvTma(), c, config(1, 1, 64, 3, 1), tmp_path, {"n": 3})


def test_pointwise_convolutions_read_rows(tmp_path: Path) -> None:
    c = with_bias_relu(conv((2, 72, 9, 8), (24, 72, 1, 1), dt.bf16), -1)
    launch = ConvTma().emit(c.problem, H200, config(1, 1, 64, 3, 1)).launches[0]
    assert isinstance(launch.args[0], Map) and launch.args[0].map.window is None
    check(ConvTma(), c, config(1, 1, 64, 3, 1), tmp_path)


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_configurations_compile() -> None:
    gemm = with_bias_relu(matmul((1024, 768), (768, 768), dt.bf16), -1).problem
    window = with_bias_relu(conv((1, 256, 14, 14), (256, 256, 3, 3), dt.f16, pads=(1, 1, 1, 1)), -1).problem
    for tactic, problem in ((GemmTma(), gemm), (ConvTma(), window)):
        for t in [*every_tile(H200)][::9]:
            _, log = compile_text(tactic.emit(problem, H200, config(*vars(t).values())).text, "sm_90")
            assert max(int(b) for b in re.findall(r"(\d+) bytes spill", log)) < 256, f"{t}: {log}"
            assert "C75" not in log, f"{t}: products wait for each other"
            assert "warning" not in log, log
            if t.take:  # more than there are would be waited for, for ever
                used = re.search(r"Used (\d+) registers", log)
                assert used is not None
                assert 128 * (t.take * t.groups + KEEP) <= int(used[1]) * 32 * t.warps, f"{t}: {log}"


def test_tiles_fit() -> None:
    for t in every_tile(H200):
        assert (t.shared + 1024) * t.resident <= 228 << 10 and t.blocks * t.columns // 32 >= t.split
        assert 32 * t.warps * t.resident <= 2048 and t.cluster <= 8
        assert t.columns % t.piece == 0 and t.columns >= t.down * t.piece
        assert not t.take or 128 * (t.take * t.groups + KEEP) <= 65536


def test_reasons() -> None:
    plain = matmul((1280, 64), (64, 64), dt.f16).problem
    found = GemmTma().applicable(plain, CudaTarget("sm_80", ARCHS["sm_80"]))
    assert found is not None and found.text == "needs the warpgroup products of sm_90, not sm_80"
    assert "not constant" in reason(GemmTma(), matmul((80, 64), (64, 64), dt.f16, constant=False).problem)
    assert "f16 and bf16" in reason(GemmTma(), matmul((80, 64), (64, 64)).problem)
    assert "16 bytes" in reason(GemmTma(), matmul((80, 60), (60, 64), dt.f16).problem)
    assert "16 bytes" in reason(GemmTma(), matmul((80, 64), (64, 60), dt.f16).problem)
    assert "all of one a" in reason(GemmTma(), matmul((2, 80, 64), (2, 64, 64), dt.f16).problem)
    few = conv((1, 24, 5, 5), (16, 24, 3, 3), dt.f16, pads=(1, 1, 1, 1)).problem
    assert "32 channels of a padded image, not 24" in reason(ConvTma(), few)
    long = conv((1, 32, 300, 3), (16, 32, 3, 1), dt.f16, dilations=(128, 1)).problem
    assert "reaches over 255 pixels" in reason(ConvTma(), long)
    wide = conv((1, 32, 30, 30), (16, 32, 3, 3), dt.f16, strides=(9, 1)).problem
    assert "impossible Window" in reason(ConvTma(), wide)


def product(m: int, k: int, n: int) -> Problem:
    """A problem whose result nobody needs."""
    return symbolic(matmul((1, 8), (8, 8), dt.f16), {0: (m, k), 1: (k, n)}, (m, n), {}).problem


@pytest.mark.parametrize(
    "m,k,n,measured",
    [(4096, 768, 2304, 23.4), (4096, 3072, 768, 30.2), (1024, 3072, 768, 10.9), (6304, 3072, 768, 43.2)],
)
def test_configurations_are_ordered_by_their_estimate(m: int, k: int, n: int, measured: float) -> None:
    tactic, problem = GemmTma(), product(m, k, n)
    times = [tactic.estimate(problem, H200, c) for c in tactic.configs(problem, H200)]
    assert times == sorted(times) and 0.8 * measured < times[0] < 1.2 * measured


@pytest.mark.parametrize("m,k,n,split", [(384, 4096, 1024, True), (197, 3072, 768, True), (4096, 768, 3072, False)])
def test_sums_are_split_where_tiles_are_few(m: int, k: int, n: int, split: bool) -> None:
    best = GemmTma().configs(product(m, k, n), H200)[:4]
    assert all((int(c["split"]) > 1) == split for c in best), best


def test_runs_of_weights_are_permuted_rows() -> None:
    w = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    runs = swizzled_blocks(w, "nk", 1, 1)[0, 0]
    assert [int(r[0]) // 64 for r in runs[[0, 8, 16, 24, 32]]] == [0, 2, 4, 6, 32]
    j, q, e = 3, 1, 1  # row 8 j + 2 q + e is channel 8 q + 2 j + e, its units at their places of that row
    unit = np.arange(8)
    want = w[8 * q + 2 * j + e].reshape(8, 8)[unit ^ (8 * j + 2 * q + e) % 8]
    assert np.array_equal(runs[8 * j + 2 * q + e].reshape(8, 8), want)


def test_taps_of_whole_chunks() -> None:
    w = np.ones((64, 40, 3), np.float32)
    packed = swizzled_blocks(w, "whole_taps", 1, 3)
    assert packed.shape == (1, 3, 64, 64) and packed.sum(axis=(0, 2, 3)).tolist() == [64 * 40] * 3
