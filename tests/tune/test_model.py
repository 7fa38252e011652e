"""What a problem must move and compute."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate, sym
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Operand, Problem
from bessemer.tune.model import flops, traffic
from tests.tune.fakes import problem


def _group(body: ex.ComputeDef, *types: TensorType) -> Problem:
    return Problem("group", tuple(Operand(t) for t in types), (TensorType(body.dtype, body.shape),), body=body,
                   ranges=(("n", Range(1, 512, 128)),))  # fmt: skip


def test_a_product_reads_both_sides_once() -> None:
    assert (flops(problem()), traffic(problem())) == (2 * 8 * 8 * 8, 3 * 8 * 8 * 4)


def test_a_gather_reads_the_rows_that_it_takes() -> None:
    n = sym("n")
    table, rows = TensorType(dt.f16, (30522, 768)), TensorType(dt.i64, (n,))
    i, j = ex.out_axes(2)
    row = ex.load(1, (i,), dt.i64)
    p = _group(ex.ComputeDef((n, 768), dt.f16, ex.load(0, (row, j), dt.f16)), table, rows)
    assert evaluate(traffic(p), {"n": 128}) == 128 * 8 + 2 * 128 * 768 * 2


def test_a_reduction_reads_all_of_it() -> None:
    x = TensorType(dt.f32, (64, 1000))
    (i,) = ex.out_axes(1)
    total = ex.Reduce("sum", (("k", 1000),), ex.load(0, (i, ex.Axis("k")), dt.f32), dt.f32)
    assert traffic(_group(ex.ComputeDef((64,), dt.f32, total), x)) == 64 * 1000 * 4 + 64 * 4


def test_what_several_loads_share_counts_once() -> None:
    x = TensorType(dt.f32, (64,))
    (i,) = ex.out_axes(1)
    both = ex.call("add", ex.load(0, (i,), dt.f32), ex.load(0, (ex.call("sub", ex.idx(63), i),), dt.f32))
    assert traffic(_group(ex.ComputeDef((64,), dt.f32, both), x)) == 2 * 64 * 4
