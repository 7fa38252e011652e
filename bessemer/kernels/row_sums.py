"""Which sums of rows (see ops/row_sums.py) an epilogue finishes."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem

MOST_RUNS = 16  # of a row whose sums kernels finish


def finished(problem: Problem) -> int | None:
    """The operand whose runs the epilogue adds up; None where it adds up nothing, or anything else."""
    e = problem.epilogue
    loads = {_runs(r, problem) for r in exprtree.reductions(e)} if e is not None else set()
    found = next(iter(loads)) if len(loads) == 1 else None
    return found[0] if found is not None else None


def unreadable(problem: Problem, rows: Dim) -> str | None:
    """Why the reductions of an epilogue are none that kernels for so many rows finish; None where they are, and where
    there are none."""
    e = problem.epilogue
    if e is None or not exprtree.reductions(e):
        return None
    operand = finished(problem)
    if operand is None:
        return "the epilogue adds up something else than the runs of the rows of one tensor"
    found = product(problem.operands[operand].type.shape[:-2])
    return None if found == rows else f"the epilogue adds up the runs of {found} rows, not of {rows}"


def _runs(reduce: ex.Reduce, problem: Problem) -> tuple[int, tuple[ex.Expr, ...]] | None:
    """The operand and the row of a sum over all runs of a row, or None."""
    load = reduce.body
    if reduce.kind != "sum" or len(reduce.axes) != 1 or not isinstance(load, ex.Load) or load.dtype != dt.f32:
        return None
    (name, extent), shape = reduce.axes[0], problem.operands[load.operand].type.shape
    *row, run, which = load.index
    if run != ex.Axis(name) or not isinstance(which, ex.Lit) or shape[-1] != 2 or shape[-2] != extent:
        return None
    if not isinstance(extent, int) or extent % 2 or extent > MOST_RUNS or not _in_order(row, shape, problem):
        return None
    return load.operand, tuple(row)


def _in_order(row: list[ex.Expr], shape: tuple[Dim, ...], problem: Problem) -> bool:
    """Whether rows are read at the output's own coordinates, those of an axis of size 1 aside."""
    axes = ex.out_axes(problem.outputs[0].rank)[:-1]
    return len(row) <= len(axes) and all(
        size == 1 or index == axis for index, size, axis in zip(row, shape, axes[len(axes) - len(row) :])
    )
