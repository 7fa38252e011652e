"""Convolutions of few channels on the GPU against float64: every configuration, walks over many tiles, filters."""

from __future__ import annotations

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.kernels.cuda.conv_halo import ConvHalo
from tests.kernels.cuda.test_skinny_gpu import check, with_gelu
from tests.kernels.triton.problems import with_bias_relu
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("channels,outputs", [(64, 64), (32, 32), (16, 48), (24, 40), (8, 96)])
def test_configurations(channels: int, outputs: int, dtype: DType) -> None:
    """More tiles than there are warpgroups and stages on a GPU."""
    c = conv((9, channels, 75, 101), (outputs, channels, 3, 3), dtype, pads=(1, 1, 1, 1))
    check(ConvHalo(), with_bias_relu(c, -1))


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (3, 3, 3, 3)])
def test_large_filters_with_steps(pads: tuple[int, ...]) -> None:
    c = conv((5, 8, 150, 141), (64, 8, 7, 7), dt.f16, strides=(2, 2), pads=pads)
    check(ConvHalo(), with_bias_relu(c, -1))


def test_images_smaller_than_a_tile() -> None:
    check(ConvHalo(), with_bias_relu(conv((300, 16, 5, 3), (24, 16, 3, 3), dt.f16, pads=(1, 1, 1, 1)), -1))


@pytest.mark.parametrize("channels", [32, 40])
def test_gaps_and_an_epilogue_of_many_operations(channels: int) -> None:
    c = conv((4, channels, 61, 45), (32, channels, 3, 5), dt.f16, dilations=(2, 1), pads=(2, 2, 2, 2))
    check(ConvHalo(), with_gelu(c))
