"""Sums of rows in epilogues: those of other tensors that a product finishes, and those of the rows it makes.

`row_values(problem, body, expr, own)` binds what `expr` computes of the sums of a row (see ops/row_sums.py) alone, as
the mean and the deviation, to `of_row[0]` and so on, and defines

    finish_row(const float (&sums)[2], float (&of_row)[N])   computes them

and `stored_sums(problem, params)` defines

    store_run(const float (&run)[2], bool inside, int row, int col, ...)

which adds up what four neighbouring lanes have of the run of column `col` and stores it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem
from bessemer.kernels.c.blocks import Value
from bessemer.kernels.c.params import Params
from bessemer.kernels.cuda import scalar
from bessemer.kernels.cuda.scalar import DeviceBody
from bessemer.kernels.row_sums import finished
from bessemer.ops.row_sums import RUN

Functions = list[tuple[str, list[str]]]  # heads up to the parameters of their own, or structs, and their lines


def row_values(problem: Problem, body: DeviceBody, expr: ex.Expr, own: DeviceBody) -> Functions:
    """The function, where `expr` reads sums; its lines are written into `own`, and `body` reads its results."""
    if finished(problem) is None:
        return []
    values = list(dict.fromkeys(_of_row(expr)))
    for reduce in exprtree.reductions(expr):
        assert isinstance(reduce.body, ex.Load) and isinstance(reduce.body.index[-1], ex.Lit)
        own.bind(own.intern(reduce), Value(f"sums[{int(reduce.body.index[-1].value)}]", 0))
    for number, value in enumerate(values):
        own.line(f"of_row[{number}] = {own.value(own.intern(value)).text};")
        body.bind(value, Value(f"of_row[{number}]", 0))
    return [(f"finish_row(const float (&sums)[2], float (&of_row)[{len(values)}]", own.blocks[0].lines)]


def count_of_row(problem: Problem) -> int:
    """How many values `row_values` computes."""
    e = problem.epilogue
    return len(set(_of_row(e))) if e is not None and finished(problem) is not None else 0


def _of_row(e: ex.Expr) -> Iterator[ex.Expr]:
    """The largest parts of `e` that depend on sums alone, each as often as it is there."""
    if exprtree.reductions(e):
        if scalar.of_element(e):
            for child in exprtree.children(e):
                yield from _of_row(child)
        else:
            yield e


def stored_sums(problem: Problem, params: Params) -> Functions:
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
