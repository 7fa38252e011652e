"""Convolution tactics against float64 on every ISA level that this processor runs."""

from __future__ import annotations

import pytest

from bessemer.kernels.c.conv_igemm import ConvIgemm
from tests.kernels.c.cases import DENSE, DEPTHWISE, GROUPED, OTHER_RANKS, Case, check
from tests.kernels.c.harness import Machine, supported


@pytest.mark.parametrize("arch", supported())
@pytest.mark.parametrize("case", DENSE + GROUPED + OTHER_RANKS + DEPTHWISE[:2], ids=str)
def test_igemm(arch: str, case: Case) -> None:
    check(ConvIgemm(), case, arch)


@pytest.mark.parametrize("arch", supported())
def test_igemm_tile_shapes(arch: str) -> None:
    case = Case((1, 600, 7, 7), 100, (3, 3), pads=(1, 1, 1, 1), bias=True)
    for config in ConvIgemm().configs(case.build()[0], Machine(arch)):
        check(ConvIgemm(), case, arch, dict(config))
