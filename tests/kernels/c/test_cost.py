"""What the C tactics say that they cost: never nothing, and in the order that the field knows."""

from __future__ import annotations

import pytest

from bessemer.kernels.base import TACTICS, Problem
from bessemer.kernels.c import cost
from tests.kernels.c.harness import Machine, conv_problem, f32, matmul_problem
from tests.kernels.c.problems import anchors, groups

C_TACTICS = {name: t for name, t in TACTICS.discover().items() if t.language == "c"}
ANCHORS = ("softmax", "layer_norm", "group_norm", "pool", "attention", "lstm", "gru", "conv", "conv_transpose")


def estimates(problem: Problem, arch: str = "avx512") -> dict[str, float]:
    """The least estimate of each tactic that applies."""
    target, out = Machine(arch), {}
    for name, tactic in C_TACTICS.items():
        if tactic.applicable(problem, target) is None:
            configs = tactic.configs(problem, target)
            out[name] = min(tactic.estimate(problem, target, c) for c in configs)  # type: ignore[attr-defined]
    return out


@pytest.mark.parametrize("op", ANCHORS)
@pytest.mark.parametrize("arch", ["avx512", "avx2", "scalar"])
def test_every_anchor_costs_something(op: str, arch: str) -> None:
    for asked in anchors(op, 1):
        assert all(0 < us < 1e6 for us in estimates(asked.problem, arch).values()), asked.label


@pytest.mark.parametrize("op", ["exp", "reduce", "transpose", "gather"])
def test_every_group_costs_something(op: str) -> None:
    for asked in groups(op, 1):
        assert all(0 < us < 1e6 for us in estimates(asked.problem).values()), asked.label


def conv(size: int, channels: int, outputs: int, kernel: int, groups: int = 1) -> Problem:
    """A convolution of one square image that keeps its size, with a constant filter."""
    x, out = f32(1, size, size, channels), f32(1, size, size, outputs)
    w = f32(outputs, channels // groups, kernel, kernel)
    pads = (kernel // 2,) * 4
    return conv_problem(x, w, out, strides=(1, 1), dilations=(1, 1), pads=pads, groups=groups)


def test_the_definition_is_far_behind() -> None:
    for problem in (conv(56, 64, 64, 3), conv(56, 64, 64, 3, groups=64)):
        found = estimates(problem)
        slow = found.pop("c_conv_direct")
        assert slow > 10 * min(found.values())


def test_winograd_leads_where_channels_are_many_and_lines_where_they_are_few() -> None:
    many = estimates(conv(28, 128, 128, 3))
    assert min(many, key=lambda n: many[n]) == "c_conv_winograd"
    few = estimates(conv(224, 3, 32, 7))
    assert min(few, key=lambda n: few[n]) == "c_conv_lines"


def test_more_work_costs_more() -> None:
    times = [
        min(estimates(matmul_problem(f32(m, 256), f32(256, 512), f32(m, 512))).values()) for m in (1, 16, 256, 4096)
    ]
    assert times == sorted(times) and times[-1] > 10 * times[1]


def test_pieces_are_even_and_complete() -> None:
    assert cost.pieces(14, 8) == [(7, 2)]
    assert sorted(cost.pieces(13, 4)) == [(3, 3), (4, 1)]
    assert cost.pieces(0, 4) == []
    for total in range(1, 50):
        assert sum(size * n for size, n in cost.pieces(total, 6)) == total
