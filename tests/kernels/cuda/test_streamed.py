"""Products whose weights stream into registers on the emulator, and the text of all their configurations by NVRTC."""

from __future__ import annotations

import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.streamed import GemmStreamed, Tile
from bessemer.kernels.cuda.weights import fragments
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.cuda.test_row_sums import normalised, with_sums
from tests.kernels.triton.problems import H200, RNG, Case, assert_right, matmul, reason, symbolic, with_bias_relu

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

STREAMED = GemmStreamed()


def config(*tile: int) -> Config:
    """tokens, blocks, stages, depth, split, across."""
    return {f.name: getattr(Tile(*tile), f.name) for f in fields(Tile)}


def check(c: Case, chosen: Config, folder: Path) -> None:
    assert STREAMED.applicable(c.problem, H200) is None
    assert_right(c, emulate(c.problem, STREAMED.emit(c.problem, H200, chosen), c.operands, folder))


@pytest.mark.parametrize(
    "dtype,tile",
    [(dt.f16, (96, 1, 2, 2)), (dt.bf16, (32, 2, 3, 4)), (dt.f16, (192, 1, 3, 3)), (dt.bf16, (64, 1, 2, 2, 1, 2)),
     (dt.f16, (128, 2, 2, 2, 1, 4))],
    ids=str,
)  # fmt: skip
def test_products(dtype: DType, tile: tuple[int, ...], tmp_path: Path) -> None:
    """With tokens, channels and elements of the sum beyond the last."""
    k = 328 if tile[3] != 4 else 200  # 6 chunks, or 4
    check(with_bias_relu(matmul((150, k), (k, 200), dtype), -1), config(*tile), tmp_path)


@pytest.mark.parametrize("tile", [(96, 1, 2, 2, 2), (160, 2, 3, 2, 3), (64, 1, 2, 2, 2, 2), (128, 1, 2, 3, 4)], ids=str)
def test_sums_shared_by_a_cluster(tile: tuple[int, ...], tmp_path: Path) -> None:
    """Into equal parts of the tile and others."""
    check(with_bias_relu(matmul((150, 760), (760, 136), dt.f16), -1), config(*tile), tmp_path)


@pytest.mark.parametrize("a", [(1, 150, 200), (150, 200)], ids=str)
@pytest.mark.parametrize("tile", [(96, 1, 2, 2), (64, 2, 2, 2, 2), (64, 1, 2, 2, 1, 2)], ids=str)
def test_batches_of_weights(a: tuple[int, ...], tile: tuple[int, ...], tmp_path: Path) -> None:
    c = with_bias_relu(matmul(a, (3, 200, 136), dt.f16, tb=len(a) == 2), -1)
    check(c, config(*tile), tmp_path)


@pytest.mark.parametrize("tile", [(96, 1, 2, 2), (96, 2, 2, 2, 3), (64, 1, 2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
def test_rows_are_added_up_where_they_are_made(tile: tuple[int, ...], dtype: DType, tmp_path: Path) -> None:
    check(with_sums(with_bias_relu(matmul((150, 760), (760, 256), dtype), -1)), config(*tile), tmp_path)


@pytest.mark.parametrize("tile", [(96, 1, 2, 2), (96, 2, 2, 2, 3), (64, 1, 2, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("size", [128, 1024])
def test_rows_are_normalised_behind(tile: tuple[int, ...], size: int, tmp_path: Path) -> None:
    check(normalised(matmul((150, 376), (376, 136), dt.f16), size), config(*tile), tmp_path)


def test_fragments_hold_every_weight_once() -> None:
    w = RNG.permutation(3 * 64 * 128).reshape(3, 64, 128).astype(np.int32)
    held = fragments(w, "nk", 1, 2)
    assert held.shape == (3, 2, 64, 64) and np.array_equal(np.sort(held, axis=None), np.arange(w.size))
    step, thread = held[1, 1].reshape(4, 128, 8)[2], 32 * 3 + 4 * 5 + 1  # of the second block, chunk, third step
    channel, k = 16 * 3 + 5, 64 + 2 * 16 + 2
    want = [w[1, channel + 8 * h, k + 8 * u + b] for u in (0, 1) for h in (0, 1) for b in (0, 1)]
    assert step[thread].tolist() == want


def test_only_few_tokens_of_a_fixed_number() -> None:
    many = matmul((2048, 64), (64, 64), dt.f16)
    assert "at most 1024 tokens" in reason(STREAMED, many.problem)
    n = sym("n")
    some = symbolic(matmul((6, 64), (64, 64), dt.f16), {0: (n, 64)}, (n, 64), {"n": Range(1, 8, 6)})
    assert "a fixed number" in reason(STREAMED, some.problem)


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_configurations_compile() -> None:
    cases = with_bias_relu(matmul((384, 1024), (1024, 4096), dt.bf16), -1), matmul((197, 3072), (3072, 768), dt.f16)
    for problem in (c.problem for c in cases):
        configs = STREAMED.configs(problem, H200)
        assert len(configs) > 8
        for chosen in configs:
            code = STREAMED.emit(problem, H200, chosen)
            _, log = compile_text(code.text, "sm_90")
            assert "0 bytes spill" in log and "C75" not in log and "warning" not in log, f"{chosen}: {log}"
            assert int(re.findall(r"Used (\d+) registers", log)[0]) * 32 * code.launches[0].options[0][1] <= 65536
            assert dict(code.launches[0].options)["shared"] <= 227 << 10
