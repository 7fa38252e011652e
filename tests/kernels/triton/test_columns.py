"""Kernels that write columns of wider tensors, which start and end anywhere: their values, and what lies beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Problem, Tactic
from bessemer.kernels.triton.conv_depthwise import ConvDepthwise
from bessemer.kernels.triton.conv_igemm import ConvIgemm
from bessemer.kernels.triton.conv_splitk import ConvSplitK
from bessemer.kernels.triton.conv_transpose import ConvTranspose
from bessemer.kernels.triton.gemm import Gemm
from bessemer.kernels.triton.gemm_splitk import GemmSplitK
from bessemer.kernels.triton.gemm_tma import GemmTma
from bessemer.kernels.triton.gemv import Gemv
from bessemer.kernels.triton.group import Group
from bessemer.kernels.triton.group_norm import GroupNorm
from bessemer.kernels.triton.layer_norm import LayerNorm
from bessemer.kernels.triton.pool import Pool
from bessemer.kernels.triton.softmax import Softmax
from bessemer.lower.columns import copying
from bessemer.targets.cuda import CompiledKernel
from tests.kernels.triton.cases import expected, group, reduce, values
from tests.kernels.triton.harness import compile_for, instructions, interpret, run_on_gpu
from tests.kernels.triton.problems import (
    H200,
    RNG,
    Case,
    assert_right,
    in_columns,
    matmul,
    symbolic,
    with_bias_relu,
)
from tests.kernels.triton.test_conv import conv, transposed
from tests.kernels.triton.test_normalize import group_norm, layer_norm, softmax
from tests.kernels.triton.test_pool import pool

pytestmark = [pytest.mark.triton, pytest.mark.torch]

ON = ["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)]
PLACES = ((0, 3), (5, 0), (8, 24), (13, 7))  # columns before and after
SAME = (1, 1, 1, 1)


def window(dtype: DType, layout: str) -> Case:
    axis = -1 if layout == "NHWC" else 1
    return with_bias_relu(conv((2, 16, 7, 9), (20, 16, 3, 3), dtype, layout, pads=SAME), axis)


def upsampling(layout: str) -> Case:
    return transposed((2, 12, 5, 6), (12, 10, 3, 2), (1, 0), dt.f32, layout, strides=(2, 2))


def pooled(layout: str) -> Case:
    return pool("max", (2, 20, 9, 11), (5, 6), layout, dt.f16, (3, 3), strides=(2, 2), pads=SAME)


def long_sum() -> Case:
    return conv((1, 96, 7, 7), (40, 96, 3, 3), dt.f16, pads=SAME)


TEMPLATES: dict[str, tuple[Tactic, Callable[[], Case]]] = {
    "window": (ConvIgemm(), lambda: window(dt.f16, "NHWC")),
    "window, channels first": (ConvIgemm(), lambda: window(dt.f32, "NCHW")),
    "parts of a window": (ConvSplitK(), long_sum),
    "depthwise": (ConvDepthwise(), lambda: conv((2, 21, 7, 9), (21, 1, 3, 3), dt.f16, groups=21, pads=SAME)),
    "transposed": (ConvTranspose(), lambda: upsampling("NHWC")),
    "transposed, channels first": (ConvTranspose(), lambda: upsampling("NCHW")),
    "product": (Gemm(), lambda: with_bias_relu(matmul((2, 20, 24), (2, 24, 30), constant=False), -1)),
    "parts of a product": (GemmSplitK(), lambda: matmul((33, 512), (512, 40), dt.f16)),
    "product by the copy engine": (GemmTma(), lambda: with_bias_relu(matmul((150, 64), (64, 72), dt.f16), -1)),
    "two rows": (Gemv(), lambda: matmul((2, 300), (300, 37))),
    "pool": (Pool(), lambda: with_bias_relu(pooled("NHWC"), -1)),
    "pool, channels first": (Pool(), lambda: with_bias_relu(pooled("NCHW"), 1)),
    "softmax": (Softmax(), lambda: softmax((5, 7, 33), 2)),
    "softmax along another axis": (Softmax(), lambda: softmax((5, 33, 7), 1)),
    "layer norm": (LayerNorm(), lambda: layer_norm((9, 45), -1, "layer", dt.f16)),
    "layer norm of two axes": (LayerNorm(), lambda: layer_norm((9, 5, 9), 1, "layer", dt.f16)),
    "group norm": (GroupNorm(), lambda: group_norm((2, 12, 5, 6), 3, "NHWC", dt.f16)),
    "group norm, channels first": (GroupNorm(), lambda: group_norm((2, 12, 5, 6), 3, "NCHW", dt.f16)),
}  # fmt: skip


def check(tactic: Tactic, c: Case, where: str, env: Mapping[str, int] | None = None) -> None:
    assert tactic.applicable(c.problem, H200) is None
    run = interpret if where == "interpreter" else run_on_gpu
    code = tactic.emit(c.problem, H200, tactic.configs(c.problem, H200)[0])
    assert_right(c, run(c.problem, code, c.operands, env))


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize(("name", "place"), [(n, PLACES[k % len(PLACES)]) for k, n in enumerate(TEMPLATES)], ids=str)
def test_templates(name: str, place: tuple[int, int], where: str) -> None:
    tactic, made = TEMPLATES[name]
    check(tactic, in_columns(made(), *place), where)


@pytest.mark.gpu
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_place_on_a_gpu(name: str) -> None:
    tactic, made = TEMPLATES[name]
    for place in PLACES:
        check(tactic, in_columns(made(), *place), "gpu")


@pytest.mark.parametrize("where", ON)
def test_symbolic_rows(where: str) -> None:
    n = sym("n")
    c = symbolic(matmul((21, 24), (24, 30)), {0: (n, 24)}, (n, 30), {"n": Range(1, 64, 16)})
    check(Gemm(), in_columns(c, 5, 2), where, {"n": 21})


def flat() -> Problem:
    return copying(TensorType(dt.f16, (2, 3, 5, 21)), False, None, {})


def one_column() -> Problem:
    return copying(TensorType(dt.f32, (30, 1)), False, None, {})


def turned() -> Problem:
    i, j, k = ex.out_axes(3)
    return group([(dt.f32, (3, 40, 33))], (3, 33, 40), dt.f32, ex.load(0, (i, k, j), dt.f32))


def summed() -> Problem:
    i, j = ex.out_axes(2)
    total = reduce("sum", [("r", 45)], ex.load(0, (i, ex.Axis("r")), dt.f32))
    return group([(dt.f32, (9, 45))], (9, 45), dt.f32, ex.call("div", ex.load(0, (i, j), dt.f32), total))


def bools() -> Problem:
    i, j = ex.out_axes(2)
    return group([(dt.f32, (9, 45))], (9, 45), dt.bool_, ex.call("lt", ex.load(0, (i, j), dt.f32), ex.lit(0.0, dt.f32)))


GROUPS: dict[str, Callable[[], Problem]] = {
    "flat": flat, "one column": one_column, "tile": turned, "rows": summed, "bool": bools
}  # fmt: skip


@pytest.mark.parametrize("where", ON)
@pytest.mark.parametrize("name", GROUPS)
def test_groups_in_every_form(name: str, where: str) -> None:
    plain = GROUPS[name]()
    operands = [values(RNG, o.type, {}) for o in plain.operands]
    want = expected(plain, operands, {})
    for place in PLACES:
        c = in_columns(Case(plain, tuple(operands), (want,)), *place)
        for chosen in _one_of_each_form(Group().configs(c.problem, H200)):
            run = interpret if where == "interpreter" else run_on_gpu
            (got,) = run(c.problem, Group().emit(c.problem, H200, chosen), operands)
            assert np.allclose(got.astype(np.float64), want, 1e-3, 1e-5), (place, chosen)


def _one_of_each_form(configs: list[Config]) -> list[Config]:
    return list({c["form"]: c for c in reversed(configs)}.values())


def test_columns_are_stored_as_widely_as_whole_tensors(tmp_path: Path) -> None:
    """Where they lie at multiples of 8, whether that is told at launch or in the text."""
    for tactic, whole in (
        (ConvIgemm(), conv((2, 64, 16, 16), (24, 64, 3, 3), dt.f16, pads=SAME)),
        (Group(), Case(copying(TensorType(dt.f16, (64, 64, 24)), False, None, {}), (), ())),
    ):
        problems = (whole.problem, in_columns(whole, 40, 8).problem)
        chosen = tactic.configs(problems[0], H200)[0]
        codes = [(p, tactic.emit(p, H200, chosen)) for p in problems]
        stores = [_stores(kernel) for (kernel,) in compile_for("sm_90", codes, tmp_path)]
        assert stores[0] == stores[1] and stores[0], (tactic.name, stores)


def _stores(kernel: CompiledKernel) -> dict[str, int]:
    return {name: count for name, count in instructions(kernel).items() if name.startswith("STG")}
