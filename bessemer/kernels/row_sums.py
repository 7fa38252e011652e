"""Which sums of rows (see ops/row_sums.py) an epilogue finishes."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem

AT_ONCE = 4  # runs of a row that kernels load at once


def finished(e: ex.Expr | None, problem: Problem) -> int | None:
    """The operand whose runs `e` adds up; None where it adds up nothing, or anything else (see `unreadable`)."""
    loads = {_runs(r, problem) for r in exprtree.reductions(e)} if e is not None else set()
    found = next(iter(loads)) if len(loads) == 1 else None
    return found[0] if found is not None else None


def unreadable(problem: Problem) -> str | None:
    """Why the reductions of an epilogue are none that kernels finish ahead; None where they are, or there are none."""
    e = problem.epilogue
    if e is None or not exprtree.reductions(e) or finished(e, problem) is not None:
        return None
    return "the epilogue adds up something else than the runs of the rows of one tensor"


def _runs(reduce: ex.Reduce, problem: Problem) -> tuple[int, tuple[ex.Expr, ...]] | None:
    """The operand and the row of a sum over all runs of a row, or None."""
    load = reduce.body
    if reduce.kind != "sum" or len(reduce.axes) != 1 or not isinstance(load, ex.Load):
        return None
    (name, extent), shape = reduce.axes[0], problem.operands[load.operand].type.shape
    *row, run, which = load.index
    if run != ex.Axis(name) or not isinstance(which, ex.Lit) or shape[-1] != 2 or shape[-2] != extent:
        return None
    last = ex.Axis(f"i{problem.outputs[0].rank - 1}")
    whole = isinstance(extent, int) and extent % AT_ONCE == 0 and load.dtype == dt.f32
    return (load.operand, tuple(row)) if whole and all(last not in exprtree.walk(i) for i in row) else None
