"""Sums of rows on the emulator: a product that adds up its rows, and one that finishes the sums of another tensor's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, InferContext
from bessemer.kernels.base import Operand, Problem
from bessemer.kernels.cuda.gemm_skinny import GemmSkinny
from bessemer.kernels.cuda.gemm_tma import GemmTma
from bessemer.kernels.cuda.tiled import tile
from bessemer.kernels.row_sums import finished, unreadable
from bessemer.kernels.triton.gemm import Gemm
from bessemer.lower.ways import ways
from bessemer.ops.row_sums import sums_in_numpy, sums_of
from bessemer.passes.base import PassOptions
from bessemer.tune.case import case_of
from bessemer.tune.oracle import as_values, stored
from bessemer.tune.ways import problems_of
from tests.kernels.cuda.emulator import emulate
from tests.kernels.cuda.test_tiled import SMALL, check, config
from tests.kernels.triton.problems import H200, Case, assert_right, matmul, normal, reason, symbolic, with_bias_relu
from tests.passes.test_normalize_readers import block

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
EPSILON = 1e-5


def with_sums(c: Case) -> Case:
    """The case with the sums of the rows that it makes."""
    problem = replace(c.problem, outputs=(*c.problem.outputs, sums_of(c.problem.outputs[0])), sums=True)
    return Case(problem, c.operands, (*c.want, sums_in_numpy(c.want[0])))


def normalised(c: Case, size: int, number: int = -1) -> Case:
    """The case, or a residual that is operand `number`, normalised by the sums of rows of `size` elements."""
    out, count = c.problem.outputs[0], len(c.operands)
    rows = normal((*([1] * (out.rank - 2)), c.want[0].shape[-2], size)) + 0.5
    own, sums = normal((out.shape[-1],)), sums_in_numpy(rows)
    shape = (*([1] * (out.rank - 2)), out.shape[-2], *sums.shape[-2:])
    types = (out, TensorType(dt.f32, shape), TensorType(dt.f32, own.shape))
    define = OPS.get("normalize_rows").compute
    assert define is not None
    value = define(InferContext(types, {"size": size, "epsilon": EPSILON}, {})).expr

    def place(e: ex.Expr) -> ex.Expr | None:
        if not isinstance(e, ex.Load):
            return None
        read = ex.Acc(out.dtype) if number < 0 else replace(e, operand=number)
        return read if e.operand == 0 else replace(e, operand=count + e.operand - 1)

    epilogue, centred = exprtree.rewrite(value, place), c.want[0] if number < 0 else c.operands[number]
    mean, square = np.moveaxis(sums.astype(np.float64).sum(-2, keepdims=True), -1, 0) / size
    want = (centred - mean * own) / np.sqrt(square - mean * mean + EPSILON)
    if number >= 0:
        epilogue, want = ex.call("add", ex.cast(ex.Acc(out.dtype), dt.f32), epilogue), want + c.want[0]
    problem = replace(
        c.problem, operands=(*c.problem.operands, Operand(types[1]), Operand(types[2], True)),
        epilogue=ex.cast(epilogue, out.dtype),
    )  # fmt: skip
    return Case(problem, (*c.operands, sums, own), (want,))


@pytest.mark.parametrize(
    "tile",
    [(1, 1, 64, 3, 1), (2, 1, 64, 2, 1), (1, 3, 128, 2, 1), (1, 2, 128, 2, 1, 2), (1, 1, 192, 2, 1, 3),
     (1, 1, 128, 2, 1, 2, 2)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
def test_rows_are_added_up_where_they_are_made(tile: tuple[int, ...], dtype: DType, tmp_path: Path) -> None:
    check(GemmTma(), with_sums(with_bias_relu(matmul((150, 1032), (1032, 192), dtype), -1)), config(*tile), tmp_path)


@pytest.mark.parametrize(
    "tile", [(1, 1, 64, 3, 1), (2, 1, 64, 2, 1), (1, 3, 96, 2, 1, 1, 2), (1, 2, 96, 2, 1, 2)], ids=str
)
@pytest.mark.parametrize("size", [128, 384, 1024])
def test_products_of_rows_are_normalised_behind(tile: tuple[int, ...], size: int, tmp_path: Path) -> None:
    check(GemmTma(), normalised(matmul((150, 1032), (1032, 136), dt.f16), size), config(*tile), tmp_path)


def test_batches_of_weights_share_the_rows(tmp_path: Path) -> None:
    c = normalised(matmul((1, 150, 200), (3, 200, 136), dt.f16), 256)
    check(GemmTma(), c, config(1, 1, 96, 2, 1, 1, 2), tmp_path)


def test_residuals_are_normalised_where_they_are_added(tmp_path: Path) -> None:
    c = with_bias_relu(matmul((90, 200), (200, 128), dt.f16), -1)
    want = c.operands[0].astype(np.float64) @ c.operands[1]
    plain = Case(replace(c.problem, epilogue=None), c.operands, (want,))
    check(GemmTma(), with_sums(normalised(plain, 128, number=3)), config(1, 2, 64, 2, 1), tmp_path)


def test_symbolic_tokens(tmp_path: Path) -> None:
    rows = sym("n")
    c = symbolic(matmul((210, 128), (128, 64), dt.f16), {0: (rows, 128)}, (rows, 64), {"n": Range(1, 5000, 640)})
    check(GemmTma(), with_sums(normalised(c, 256)), config(1, 1, 64, 2, 1), tmp_path, {"n": 210})


def test_one_rounding() -> None:
    """What an epilogue computes in 16 bits is rounded when it is stored: 1 + 2^-11 - 1 is not 0."""
    c = matmul((1, 8), (8, 8), dt.f16)
    more = ex.call("add", ex.Acc(dt.f16), ex.lit(1.0, dt.f16))
    c = replace(c, problem=replace(c.problem, epilogue=ex.call("sub", more, ex.lit(1.0, dt.f16))))
    text = GemmTma().emit(c.problem, H200, GemmTma().configs(c.problem, H200)[0]).text
    assert text.count("f16_of_f32(") == 1 + text.count("inline uint16_t f16_of_f32("), text


def test_runs_are_of_one_cta() -> None:
    problem = with_sums(matmul((384, 4096), (4096, 1024), dt.f16)).problem
    found = [tile(c) for c in GemmTma().configs(problem, H200)]
    assert any(t.split > 1 for t in found)
    assert all(t.columns % 64 == 0 and t.blocks * t.columns // 32 // t.split % 2 == 0 for t in found), found


def test_who_adds_up_rows() -> None:
    sums = with_sums(matmul((150, 128), (128, 64), dt.f16)).problem
    assert "does not add up the rows" in reason(GemmSkinny(), sums)
    assert "does not add up the rows" in reason(Gemm(), sums)
    read = normalised(matmul((150, 128), (128, 64), dt.f16), 128).problem
    assert finished(read) == 2
    assert "does not finish the sums" in reason(GemmSkinny(), read)
    assert "does not finish the sums" in reason(Gemm(), read)


def test_other_sums_are_refused() -> None:
    c = matmul((150, 128), (128, 64), dt.f16).problem
    total = ex.Reduce("sum", (("r", 64),), ex.load(2, (ex.Axis("r"), ex.Axis("i1")), dt.f32), dt.f32)
    problem: Problem = replace(
        c, operands=(*c.operands, Operand(TensorType(dt.f32, (64, 64)))),
        epilogue=ex.call("add", ex.cast(ex.Acc(dt.f16), dt.f32), total),
    )  # fmt: skip
    assert "something else than the runs" in (unreadable(problem, 150) or "")
    assert "something else than the runs" in reason(GemmTma(), problem)


def test_both_at_once(tmp_path: Path) -> None:
    """In one kernel, whose sums are those of what it stores."""
    c = with_sums(normalised(matmul((70, 72), (72, 128), dt.bf16), 128))
    (y, sums) = emulate(c.problem, GemmTma().emit(c.problem, SMALL, config(1, 1, 64, 2, 1)), c.operands, tmp_path)
    assert_right(c, [y, sums])
    assert np.linalg.norm(sums - sums_in_numpy(y)) < 2e-2 * np.linalg.norm(sums)


@pytest.mark.parametrize("before", [True, False], ids=["norms first", "norms last"])
def test_candidates_are_screened_as_any_other(before: bool, tmp_path: Path) -> None:
    """With the inputs that tuning makes up: sums are those of rows, or roots of negative numbers would follow."""
    _, apart = ways(block(before), PassOptions("cuda", "fp16"), lambda problem: None, lambda problem: 1.0)
    problems = [p for p in problems_of(apart) if p.sums or finished(p) is not None]
    assert len(problems) == 4
    for problem in problems:
        case = case_of(problem, np.random.default_rng())
        code = GemmTma().emit(problem, SMALL, config(1, 1, 64, 2, 1))
        operands = [as_values(a, o.type.dtype) for a, o in zip(case.inputs, problem.operands)]
        for k, got in enumerate(emulate(problem, code, operands, tmp_path)):
            assert case.wrong(k, stored(got, problem.outputs[k].dtype)) is None
            assert case.wrong(k, stored(got * 1.1, problem.outputs[k].dtype)) is not None
