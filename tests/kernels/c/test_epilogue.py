"""Epilogues of the tiled kernels, from the registers where they can be and row by row otherwise, on every path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Operand, Tactic
from bessemer.kernels.c.conv_depthwise import ConvDepthwise
from bessemer.kernels.c.conv_direct import ConvDirect
from bessemer.kernels.c.conv_igemm import ConvIgemm
from bessemer.kernels.c.conv_lines import ConvLines
from bessemer.kernels.c.conv_transpose import ConvTransposeIgemm
from bessemer.kernels.c.conv_transpose_patches import ConvTransposePatches
from bessemer.kernels.c.conv_winograd import ConvWinograd
from bessemer.kernels.c.epilogue import literal, store_code
from bessemer.kernels.c.gemm import Gemm
from tests.kernels.c.cases import Case
from tests.kernels.c.harness import compute, f32, matmul_problem, supported

Apply = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
ACC = ex.Acc(dt.f32)


def number(value: float) -> ex.Expr:
    return ex.lit(value, dt.f32)


def clip6(e: ex.Expr) -> ex.Expr:
    return ex.call("min", ex.call("max", e, number(0.0)), number(6.0))


def column(rank: int) -> ex.Expr:
    return ex.load(2, (ex.Axis(f"i{rank - 1}"),), dt.f32)


def same(rank: int) -> ex.Expr:
    return ex.load(3, ex.out_axes(rank), dt.f32)


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


# (expression by the output's rank, its numpy twin over sum, columns and same-shape operand, whether it is vectors)
EPILOGUES: dict[str, tuple[Callable[[int], ex.Expr], Apply, bool]] = {
    "residual": (
        lambda r: ex.call("max", ex.call("add", ex.call("add", ACC, column(r)), same(r)), number(0.0)),
        lambda v, c, s: np.maximum(v + c + s, 0), True,
    ),
    "relu6": (
        lambda r: clip6(ex.call("add", ACC, column(r))),
        lambda v, c, s: np.clip(v + c, 0, 6), True,
    ),
    "hard-swish": (
        lambda r: ex.call("mul", ACC, ex.call("div", clip6(ex.call("add", ACC, number(3.0))), number(6.0))),
        lambda v, c, s: v * np.clip(v + 3, 0, 6) / 6, True,
    ),
    "silu": (
        lambda r: ex.call("mul", ex.call("add", ACC, column(r)), ex.call("sigmoid", ex.call("add", ACC, column(r)))),
        lambda v, c, s: (v + c) * sigmoid(v + c), False,
    ),
    "leaky": (
        lambda r: ex.Select(
            ex.call("lt", ACC, number(0.0)), ex.call("mul", ACC, number(0.1)), ex.call("add", ACC, same(r))
        ),
        lambda v, c, s: np.where(v < 0, v * 0.1, v + s), False,
    ),
}  # fmt: skip
TACTICS: list[tuple[Tactic, Case]] = [
    (ConvIgemm(), Case((2, 20, 7, 9), 40, (3, 3), pads=(1, 1, 1, 1))),
    (ConvIgemm(), Case((1, 8, 7, 9), 40, (1, 1), groups=2)),
    (ConvLines(), Case((1, 3, 9, 9), 24, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))),
    (ConvDepthwise(), Case((1, 37, 9, 11), 37, (3, 3), pads=(1, 1, 1, 1), groups=37)),
    (ConvDirect(), Case((1, 5, 7, 9), 70, (3, 3))),
    (ConvWinograd(), Case((1, 16, 9, 10), 40, (3, 3), pads=(1, 1, 1, 1))),
    (ConvTransposeIgemm(), Case((1, 8, 5, 6), 21, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), op="conv_transpose")),
    (ConvTransposePatches(), Case((1, 8, 5, 6), 21, (2, 2), strides=(2, 2), op="conv_transpose")),
    (ConvTransposePatches(), Case((1, 8, 5, 7), 1, (2, 2), strides=(2, 2), op="conv_transpose")),
]


# Every tactic with every epilogue; ISA levels in turns, so that each level has all tactics and all epilogues.
CONVS = [
    pytest.param(tactic, case, name, supported()[(i + j) % len(supported())], id=f"{tactic.name}-{i}-{name}")
    for i, (tactic, case) in enumerate(TACTICS)
    for j, name in enumerate(EPILOGUES)
]


@pytest.mark.parametrize(("tactic", "case", "name", "arch"), CONVS)
def test_conv(tactic: Tactic, case: Case, name: str, arch: str) -> None:
    expr, twin, _ = EPILOGUES[name]
    problem, arrays, want = case.build(3)
    rng = np.random.default_rng(4)
    col, res = (rng.standard_normal(s).astype(np.float32) for s in (want.shape[-1:], want.shape))
    operands = (*problem.operands, Operand(f32(*col.shape)), Operand(f32(*res.shape)))
    problem = replace(problem, operands=operands, epilogue=expr(want.ndim))
    got = compute(tactic, problem, [*arrays, col, res], arch)
    assert np.abs(got - twin(want, col, res)).max() < 1e-4


@pytest.mark.parametrize("name", EPILOGUES)
def test_matmul(name: str) -> None:
    expr, twin, vectors = EPILOGUES[name]
    rng = np.random.default_rng(4)
    a, b, col, res = (rng.standard_normal(s).astype(np.float32) for s in ((2, 9, 30), (30, 70), (70,), (2, 9, 70)))
    problem = matmul_problem(
        f32(2, 9, 30), f32(30, 70), f32(2, 9, 70), epilogue=expr(3), extra=(f32(70), f32(2, 9, 70))
    )
    assert ("STORES_TILES 1" in store_code(problem, ptr0=0, int0=0).text) == vectors
    got = compute(Gemm(), problem, (a, b, col, res), supported()[0])
    assert np.abs(got - twin(a.astype(np.float64) @ b, col, res)).max() < 1e-4


def test_another_dtype_out() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((9, 30)).astype(np.float32), rng.standard_normal((30, 70)).astype(np.float32)
    problem = matmul_problem(f32(9, 30), f32(30, 70), f32(9, 70), epilogue=ex.cast(ACC, dt.i32))
    problem = replace(problem, outputs=(TensorType(dt.i32, (9, 70)),))
    got = compute(Gemm(), problem, (a, b), supported()[0])
    want = a.astype(np.float64) @ b
    assert got.dtype == np.int32 and np.abs(got - want).max() < 1 + 1e-4


def test_nan_passes_a_relu() -> None:
    a = np.full((7, 4), np.nan, np.float32)
    problem = matmul_problem(f32(7, 4), f32(4, 20), f32(7, 20), epilogue=ex.call("max", ACC, number(0.0)))
    for arch in supported():
        assert np.isnan(compute(Gemm(), problem, (a, np.ones((4, 20), np.float32)), arch)).all()


def test_literals() -> None:
    assert literal(1.5) == "0x1.8000000000000p+0f"
    assert literal(float("-inf")) == "-__builtin_inff()"
