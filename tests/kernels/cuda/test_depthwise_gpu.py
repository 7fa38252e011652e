"""Depthwise convolutions on the GPU against float64: every configuration, filters, strides, maps smaller than tiles."""

from __future__ import annotations

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.kernels.cuda.conv_depthwise import ConvDepthwise
from tests.kernels.cuda.test_depthwise import depthwise
from tests.kernels.triton.harness import run_on_gpu
from tests.kernels.triton.problems import H200, assert_right

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("kernel,stride,gap", [(3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (3, 1, 2)])
@pytest.mark.parametrize("x", [(1, 16, 67, 45), (2, 240, 12, 21), (1, 1088, 7, 7)], ids=str)
def test_every_configuration(x: tuple[int, ...], kernel: int, stride: int, gap: int, dtype: DType) -> None:
    pads = (kernel // 2 * gap,) * 4
    c = depthwise(x, (kernel, kernel), dtype, pads=pads, strides=(stride, stride), dilations=(gap, gap))
    tactic = ConvDepthwise()
    for config in tactic.configs(c.problem, H200):
        (got,) = run_on_gpu(c.problem, tactic.emit(c.problem, H200, config), c.operands)
        assert_right(c, [got], str(dict(config)))
