"""Convolution tactics against float64, at the ISA levels that this processor runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.kernels.base import Tactic
from bessemer.kernels.c.conv_depthwise import ConvDepthwise
from bessemer.kernels.c.conv_direct import ConvDirect
from bessemer.kernels.c.conv_igemm import ConvIgemm
from bessemer.kernels.c.conv_lines import ConvLines
from bessemer.kernels.c.conv_transpose import ConvTransposeIgemm
from bessemer.kernels.c.conv_transpose_patches import ConvTransposePatches
from bessemer.kernels.c.conv_winograd import ConvWinograd
from tests.kernels.c.cases import (
    DENSE,
    DEPTHWISE,
    GROUPED,
    LINES,
    OTHER_RANKS,
    PATCHES,
    TRANSPOSED,
    WINOGRAD,
    Case,
    check,
)
from tests.kernels.c.harness import Machine, at_levels, supported


def tilings(tactic: Tactic, cases: list[Case], case: Case, arch: str) -> list[dict[str, int | str]]:
    """Two of the tactic's, and others for the next of `cases`: at the best ISA level all tilings are run."""
    found = sorted(map(dict, tactic.configs(case.build()[0], Machine(arch))), key=lambda c: (*c.values(),))
    first = 2 * cases.index(case)
    return [found[k % len(found)] for k in (first, first + 1)]


@pytest.mark.parametrize(("arch", "case"), at_levels(DENSE + GROUPED[:2] + OTHER_RANKS), ids=str)
def test_igemm(arch: str, case: Case) -> None:
    check(ConvIgemm(), case, arch)


@pytest.mark.parametrize("arch", supported())
def test_igemm_tile_shapes(arch: str) -> None:
    case = Case((1, 600, 7, 7), 100, (3, 3), pads=(1, 1, 1, 1), bias=True)
    for config in ConvIgemm().configs(case.build()[0], Machine(arch)):
        check(ConvIgemm(), case, arch, dict(config))


@pytest.mark.parametrize(("arch", "case"), at_levels(DEPTHWISE), ids=str)
def test_depthwise(arch: str, case: Case) -> None:
    for config in ConvDepthwise().configs(case.build()[0], Machine(arch)):
        check(ConvDepthwise(), case, arch, dict(config))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", DENSE[:6] + GROUPED + OTHER_RANKS + DEPTHWISE, ids=str)
def test_direct(case: Case, layout: str) -> None:
    check(
        ConvDirect(), replace(case, layout=layout, constant=False, bias=case.bias and layout == "NHWC"), supported()[0]
    )


@pytest.mark.parametrize(("arch", "case"), at_levels(TRANSPOSED), ids=str)
def test_transposed(arch: str, case: Case) -> None:
    for config in tilings(ConvTransposeIgemm(), TRANSPOSED, case, arch):
        check(ConvTransposeIgemm(), case, arch, config)


@pytest.mark.parametrize(("arch", "case"), at_levels(LINES), ids=str)
def test_lines(arch: str, case: Case) -> None:
    check(ConvLines(), case, arch)


@pytest.mark.parametrize(("arch", "case"), at_levels(WINOGRAD), ids=str)
def test_winograd(arch: str, case: Case) -> None:
    for config in tilings(ConvWinograd(), WINOGRAD, case, arch):
        check(ConvWinograd(), case, arch, config, tolerance=1e-5)


@pytest.mark.parametrize(("arch", "case"), at_levels(PATCHES), ids=str)
def test_patches(arch: str, case: Case) -> None:
    for config in tilings(ConvTransposePatches(), PATCHES, case, arch):
        check(ConvTransposePatches(), case, arch, config)
