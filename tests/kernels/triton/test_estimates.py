"""Estimates against times of an H200: what is chosen where nothing was measured depends on them alone."""

from __future__ import annotations

from typing import Any

import pytest

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Operand, Problem, Tactic
from bessemer.kernels.gpu.epilogue import element_us, moved
from bessemer.kernels.triton.attention import Attention
from bessemer.kernels.triton.conv_depthwise import ConvDepthwise
from bessemer.kernels.triton.gemm_tma import GemmTma
from bessemer.kernels.triton.gemv import Gemv
from bessemer.kernels.triton.group import Group
from bessemer.kernels.triton.layer_norm import LayerNorm
from bessemer.ops.activation import _gelu
from tests.kernels.triton.cases import group
from tests.kernels.triton.problems import H200

CONV = {"dilations": (1, 1), "layout": "NHWC", "pads": (0, 0, 0, 0), "strides": (1, 1), "groups": 1}
DEPTHWISE = {**CONV, "pads": (1, 1, 1, 1)}
MATMUL = {"transpose_a": False, "transpose_b": False}
HEADS = {"causal": False, "layout": "BSHD", "scale": 0.125}
NORM = {"axis": 2, "epsilon": 1e-6, "has_bias": True, "has_scale": True, "mode": "layer"}
ACC = ex.Acc(dt.f16)


def problem(
    op: str, shapes: list[tuple[int, ...]], out: tuple[int, ...], attrs: dict[str, Any],
    epilogue: ex.Expr | None = None, beside: tuple[tuple[int, ...], ...] = (),
) -> Problem:  # fmt: skip
    """A problem in f16 whose first operand alone is no constant; the epilogue loads what is `beside`."""
    operands = [Operand(TensorType(dt.f16, s), op != "attention" and k > 0) for k, s in enumerate(shapes)]
    others = [Operand(TensorType(dt.f16, s), len(s) == 1) for s in beside]
    result = TensorType(dt.f16, out)
    return Problem(op, (*operands, *others), (result,), tuple(sorted(attrs.items())), len(shapes), result, epilogue)


def heads(size: int, mask: bool) -> Problem:
    """BERT's attention over 32 sequences of 128."""
    shapes = [(32, 128, 12, size)] * 3 + [(32, 1, 1, 128)] * mask
    return problem("attention", shapes, shapes[0], {**HEADS, "has_mask": mask})


def gelu() -> Problem:
    """The wide product of BERT's feed-forward, for 4,096 tokens, and its activation."""
    bias = ex.load(2, (ex.out_axes(2)[1],), dt.f16)
    activation = ex.cast(_gelu(ex.cast(ex.call("add", ACC, bias), dt.f32), {"approximate": "none"}), dt.f16)
    return problem("matmul", [(4096, 768), (768, 3072)], (4096, 3072), MATMUL, activation, ((3072,),))


def residual() -> Problem:
    """A product of ResNet-50 that adds a tensor as large as its result, at batch 128."""
    out = (128, 56, 56, 256)
    total = ex.call(
        "add", ex.call("add", ACC, ex.load(2, ex.out_axes(4)[3:], dt.f16)), ex.load(3, ex.out_axes(4), dt.f16)
    )
    epilogue = ex.call("max", total, ex.lit(0.0, dt.f16))
    return problem("conv", [(128, 56, 56, 64), (256, 64, 1, 1)], out, CONV, epilogue, ((256,), out))


def depthwise(batch: int, high: int, wide: int, channels: int) -> Problem:
    """A depthwise convolution of three by three."""
    x = (batch, high, wide, channels)
    return problem("conv", [x, (channels, 1, 3, 3)], x, {**DEPTHWISE, "groups": channels})


WIDE = {"bm": 128, "bn": 256, "bk": 64, "stages": 3, "warps": 8, "swap": 0, "split": 1, "flatten": 1, "b": "kn"}
ROWS = problem("layer_norm", [(32, 128, 384), (384,), (384,)], (32, 128, 384), NORM)
CLASSES = problem("matmul", [(1, 1280), (1000, 1280)], (1, 1000), {**MATMUL, "transpose_b": True})
ROW = {"rows": 1, "stages": 3, "warps": 4, "b": "nk"}
MEASURED: list[tuple[Tactic, Problem, Config, float]] = [
    (GemmTma(), gelu(), WIDE, 62.9),
    (GemmTma(), residual(), WIDE, 159.2),
    (ConvDepthwise(), depthwise(6, 24, 160, 32), {"bm": 16, "bn": 32, "warps": 4}, 30.6),
    (ConvDepthwise(), depthwise(6, 24, 160, 32), {"bm": 64, "bn": 32, "warps": 4}, 7.5),
    (ConvDepthwise(), depthwise(128, 112, 112, 32), {"bm": 16, "bn": 32, "warps": 4}, 1524.0),
    (LayerNorm(), ROWS, {"br": 1, "bn": 512, "warps": 4, "whole": 1}, 5.5),
    (LayerNorm(), ROWS, {"br": 4, "bn": 512, "warps": 4, "whole": 1}, 3.0),
    (Attention(), heads(64, False), {"bm": 64, "bn": 128, "stages": 2, "warps": 4}, 8.7),
    (Attention(), heads(32, True), {"bm": 64, "bn": 128, "stages": 2, "warps": 4}, 17.0),
    (Gemv(), CLASSES, {**ROW, "bn": 1, "bk": 1024}, 4.1),
    (Gemv(), CLASSES, {**ROW, "bn": 8, "bk": 512}, 2.7),
]


@pytest.mark.parametrize(
    ("tactic", "asked", "config", "us"), MEASURED, ids=[f"{t.name}-{us}" for t, _, _, us in MEASURED]
)
def test_an_estimate_is_near_the_time(tactic: Tactic, asked: Problem, config: Config, us: float) -> None:
    assert tactic.applicable(asked, H200) is None
    assert us / 1.4 < tactic.estimate(asked, H200, config) < us * 1.4  # type: ignore[attr-defined]


def test_an_epilogue_counts_what_it_loads_and_computes() -> None:
    plain = problem("matmul", [(4096, 768), (768, 3072)], (4096, 3072), MATMUL)
    out, few = 4096 * 3072 * 2, (4096 + 3072) * 768 * 2
    assert moved(plain) == few + out and moved(gelu()) == few + out + 3072 * 2
    assert moved(residual()) == (128 * 56 * 56 * (64 + 2 * 256) + 256 * 64 + 256) * 2
    assert element_us(plain) < element_us(gelu()) / 3


def test_what_an_epilogue_gathers_counts_as_it_is_loaded() -> None:
    row = ex.call("add", ACC, ex.load(2, ex.out_axes(2), dt.f16))
    asked = problem("matmul", [(8, 64), (64, 32)], (8, 32), MATMUL, row, ((30522, 32),))
    assert moved(asked) == (8 * 64 + 64 * 32 + 2 * 8 * 32) * 2


def test_groups_start_few_programs_where_there_is_plenty() -> None:
    axes = ex.out_axes(3)
    copied = {n: group([(dt.f16, (n, 64, 64))], (n, 64, 64), dt.f16, ex.load(0, axes, dt.f16)) for n in (4, 1024)}
    assert [Group().configs(p, H200)[0].get("block") for p in copied.values()] == [128, 2048]


def test_groups_take_tiles_that_are_not_thin_first() -> None:
    def turned(images: int, channels: int) -> Problem:
        axes = ex.out_axes(3)
        body = ex.load(0, (axes[0], axes[2], axes[1]), dt.f16)
        return group([(dt.f16, (images, channels, 3136))], (images, 3136, channels), dt.f16, body)

    firsts = [Group().configs(p, H200)[0] for p in (turned(32, 8), turned(1, 64), turned(32, 64))]
    assert [(c["form"], c.get("by"), c.get("bx")) for c in firsts] == [
        ("flat", None, None), ("tile", 32, 32), ("tile", 64, 64),
    ]  # fmt: skip
