"""Sums of rows in epilogues: those of other tensors that a product finishes, and those of the rows it makes.

`read_sums(problem, body, expr)` binds the sums over the runs of a row (see ops/row_sums.py) that `expr` reads to
`of_row[0]` and `of_row[1]`, and `stored_sums(problem, params)` defines

    store_run(const float (&run)[2], bool inside, int row, int col, ...)

which adds up what four neighbouring lanes have of the run of column `col` and stores it.
"""

from __future__ import annotations

from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem
from bessemer.kernels.c.blocks import Value
from bessemer.kernels.c.params import Params
from bessemer.kernels.cuda.scalar import DeviceBody
from bessemer.kernels.row_sums import finished
from bessemer.ops.row_sums import RUN


def read_sums(problem: Problem, body: DeviceBody, expr: ex.Expr) -> int | None:
    """The operand whose sums `expr` reads, from now on from `of_row`."""
    operand = finished(problem)
    for reduce in exprtree.reductions(expr) if operand is not None else ():
        assert isinstance(reduce.body, ex.Load) and isinstance(reduce.body.index[-1], ex.Lit)
        body.bind(reduce, Value(f"of_row[{int(reduce.body.index[-1].value)}]", 0))
    return operand


def stored_sums(problem: Problem, params: Params) -> list[tuple[str, list[str]]]:
    """The head up to the parameters of its own, and the lines of the function, where the problem has such an output."""
    if not problem.sums:
        return []
    target, width = params.pointer(len(problem.operands) + 1), problem.outputs[1].shape[-2]
    place = f"static_cast<int64_t>(row) * {width} + col / {RUN}"
    lines = [
        "float sum = run[0], squares = run[1];",
        "#pragma unroll",
        "for (int distance = 1; distance < 4; distance *= 2) {",
        "    sum += __shfl_xor_sync(~0u, sum, distance);",
        "    squares += __shfl_xor_sync(~0u, squares, distance);",
        "}",
        "if (inside && threadIdx.x % 4 == 0)",
        f"    reinterpret_cast<float2 *>({target})[{place}] = make_float2(sum, squares);",
    ]
    return [("store_run(const float (&run)[2], bool inside, int row, int col", lines)]
