"""Products of many tokens and convolutions on the GPU against float64: every tile, tails, walks, windows, epilogues."""

from __future__ import annotations

from dataclasses import fields

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config
from bessemer.kernels.cuda.conv_tma import ConvTma
from bessemer.kernels.cuda.gemm_tma import GemmTma
from bessemer.kernels.cuda.tile import Tile, every_tile
from tests.kernels.cuda.test_skinny_gpu import check, check_one, with_gelu
from tests.kernels.triton.problems import H200, matmul, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("m,k,n", [(1024, 768, 768), (1000, 200, 136), (6272, 256, 1024), (3000, 72, 264)])
def test_products(dtype: DType, m: int, k: int, n: int) -> None:
    check(GemmTma(), with_bias_relu(matmul((m, k), (k, n), dtype), -1))


@pytest.mark.parametrize("tile", [*every_tile(H200)][::8], ids=str)
def test_every_tile(tile: Tile) -> None:
    chosen: Config = {f.name: getattr(tile, f.name) for f in fields(tile)}
    check_one(GemmTma(), with_bias_relu(matmul((3001, 1032), (1032, 1032), dt.f16), -1), chosen, None)
    c = conv((5, 64, 17, 15), (200, 64, 3, 3), dt.f16, strides=(2, 1), pads=(1, 1, 1, 1))
    check_one(ConvTma(), with_bias_relu(c, -1), chosen, None)


@pytest.mark.parametrize("tb", [False, True])
def test_gelu_over_batches(tb: bool) -> None:
    check(GemmTma(), with_gelu(matmul((3, 400, 256), (256, 192), dt.f16, tb=tb)))


@pytest.mark.parametrize("tb", [False, True])
def test_batches_of_weights(tb: bool) -> None:
    check(GemmTma(), with_bias_relu(matmul((1, 1000, 768), (3, 768, 776), dt.f16, tb=tb), -1))


def test_symbolic_tokens() -> None:
    rows = sym("n")
    c = symbolic(matmul((2100, 512), (512, 320), dt.f16), {0: (rows, 512)}, (rows, 320), {"n": Range(1, 5000, 640)})
    check(GemmTma(), c, env={"n": 2100})


@pytest.mark.parametrize("kernel,stride", [(7, 2), (3, 2), (3, 1), (16, 16)])
def test_rows_of_taps_without_padding(kernel: int, stride: int) -> None:
    c = conv((4, 8, 64, 70), (72, 8, kernel, kernel), dt.f16, strides=(stride, stride))
    check(ConvTma(), with_bias_relu(c, -1))


@pytest.mark.parametrize("channels", [64, 40, 128])
@pytest.mark.parametrize("stride,dilation", [(1, 1), (2, 1), (1, 2)])
def test_convolutions(channels: int, stride: int, dilation: int) -> None:
    c = conv(
        (4, channels, 15, 13), (72, channels, 3, 3), dt.f16, strides=(stride, stride), dilations=(dilation, 1),
        pads=(1, 1, 1, 1),
    )  # fmt: skip
    check(ConvTma(), with_bias_relu(c, -1))
