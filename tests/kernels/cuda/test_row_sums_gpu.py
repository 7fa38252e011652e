"""Sums of rows on the GPU against float64: products that add up their rows, and that finish those of others."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.gemm_tma import GemmTma
from bessemer.kernels.cuda.tile import Tile, every_tile
from tests.kernels.cuda.test_row_sums import normalised, with_sums
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, Case, assert_right, matmul, with_bias_relu

pytestmark = pytest.mark.gpu
SUMS = 1e-4  # relative error of sums, whose products the tensor cores add up with less than 24 bits


def check(c: Case) -> None:
    """The best configurations by their estimates."""
    for config in GemmTma().configs(c.problem, H200)[:4]:
        check_one(c, config)


def check_one(c: Case, config: Config) -> None:
    got = run_on_gpu(c.problem, GemmTma().emit(c.problem, H200, config), c.operands, None)
    for k, limit in ((0, None), (1, SUMS))[: len(got)]:
        one = Case(replace(c.problem, outputs=c.problem.outputs[k : k + 1]), c.operands, c.want[k : k + 1])
        assert_right(one, got[k : k + 1], f"{dict(config)} for {c.problem.key}", limit)


def residual(c: Case, size: int) -> Case:
    """A product, a bias and the normalised rows of another tensor."""
    biased = with_bias_relu(c, -1)
    want = c.operands[0].astype(np.float64) @ c.operands[1]
    plain = Case(replace(biased.problem, epilogue=None), biased.operands, (want,))
    return with_sums(normalised(plain, size, number=3))


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("m,k,n", [(384, 1024, 1024), (1000, 200, 192), (12288, 256, 1024)])
def test_rows_are_added_up(dtype: DType, m: int, k: int, n: int) -> None:
    check(with_sums(with_bias_relu(matmul((m, k), (k, n), dtype), -1)))


@pytest.mark.parametrize("m,k,n", [(384, 1024, 4096), (1000, 200, 136), (12288, 256, 1024)])
def test_rows_are_normalised(m: int, k: int, n: int) -> None:
    check(normalised(matmul((m, k), (k, n), dt.f16), 1024))
    check(residual(matmul((m, k), (k, 1024), dt.f16), 1024))


def test_batches_of_weights() -> None:
    check(normalised(matmul((1, 384, 1024), (3, 1024, 1024), dt.f16), 1024))


@pytest.fixture(scope="module")
def many() -> Case:
    return normalised(matmul((4096, 512), (512, 3072), dt.f16), 768)


@pytest.mark.parametrize(
    "tile", [t for t in every_tile(H200) if t.split == t.resident == 1 and t.groups > 1 and t.down < 3][::2], ids=str
)
def test_walking_ctas_read_all_sums_before_the_next_copies(tile: Tile, many: Case) -> None:
    """Copies that came before all warps had read made some of several runs wrong."""
    for _ in range(4):
        check_one(many, {f.name: getattr(tile, f.name) for f in fields(tile)})


@pytest.mark.parametrize("tile", [*every_tile(H200)][::5], ids=str)
def test_every_tile(tile: Tile) -> None:
    chosen: Config = {f.name: getattr(tile, f.name) for f in fields(tile)}
    if tile.adds_up_runs:
        check_one(residual(matmul((3001, 1032), (1032, 1024), dt.f16), 1024), chosen)
    check_one(normalised(matmul((1, 1001, 1032), (3, 1032, 136), dt.f16), 768), chosen)
