"""Sums of rows in epilogues: those of other tensors, finished before a product ends, and those of the rows it makes.

`row_reader(problem, body, expr)` binds the sums over the runs of a row (see ops/row_sums.py) that `expr` reads to
`of_row[0]` and `of_row[1]`, and defines

    load_row(float (&of_row)[2], int row, int half, ...)   the sums over every other four runs of a row, from `half` on

and `storing(problem, params)` what adds up a run of 32 columns, eight of each of four neighbouring lanes:

    store_sums(const float (&acc)[8], bool inside, int row, int col, ...)
"""

from __future__ import annotations

from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem
from bessemer.kernels.c.affine import offset
from bessemer.kernels.c.blocks import Value
from bessemer.kernels.c.params import Params
from bessemer.kernels.cuda.scalar import DeviceBody
from bessemer.kernels.row_sums import AT_ONCE, finished
from bessemer.ops.row_sums import RUN

Function = tuple[str, list[str]]  # its head up to the parameters of its own, and its lines


def row_reader(problem: Problem, body: DeviceBody, expr: ex.Expr, address: DeviceBody) -> list[Function]:
    """The function that loads a row's sums, where `expr` reads such; `address` is a body for its lines."""
    operand = finished(expr, problem)
    if operand is None:
        return []
    for reduce in exprtree.reductions(expr):
        assert isinstance(reduce.body, ex.Load) and isinstance(reduce.body.index[-1], ex.Lit)
        body.bind(reduce, Value(f"of_row[{int(reduce.body.index[-1].value)}]", 0))
    load = next(r.body for r in exprtree.reductions(expr))
    assert isinstance(load, ex.Load)
    shape = problem.operands[operand].type.shape
    count = shape[-2]
    assert isinstance(count, int)
    start = address.sum(offset(shape, (*load.index[:-2], ex.idx(0), ex.idx(0))))
    return [
        (
            "load_row(float (&of_row)[2], int row, int half",
            [
                *address.blocks[0].lines,
                f"const float *runs = {address.params.pointer(operand)} + {start.text};",
                "of_row[0] = of_row[1] = 0.0f;",
                "#pragma unroll",
                f"for (int k = 0; k < {-(-count // (2 * AT_ONCE))}; k++)",
                f"    if (2 * k + half < {count // AT_ONCE}) {{",
                "        const Run<float> run = load_run(runs + 8 * (2 * k + half));",
                "        of_row[0] += run.v[0] + run.v[2] + (run.v[4] + run.v[6]);",
                "        of_row[1] += run.v[1] + run.v[3] + (run.v[5] + run.v[7]);",
                "    }",
            ],
        )
    ]


def storing(problem: Problem, params: Params) -> list[Function]:
    """The function that stores the sums of a run, where the problem has such an output."""
    if not problem.sums:
        return []
    target, width = params.pointer(len(problem.operands) + 1), problem.outputs[1].shape[-2]
    return [
        (
            "store_sums(const float (&acc)[8], bool inside, int row, int col",
            [
                "float sum = 0.0f, squares = 0.0f;",
                "#pragma unroll",
                "for (int j = 0; j < 8; j++)",
                "    sum += acc[j], squares = __fmaf_rn(acc[j], acc[j], squares);",
                "#pragma unroll",
                "for (int distance = 1; distance < 4; distance *= 2) {",
                "    sum += __shfl_xor_sync(~0u, sum, distance);",
                "    squares += __shfl_xor_sync(~0u, squares, distance);",
                "}",
                "if (inside && threadIdx.x % 4 == 0)",
                f"    reinterpret_cast<float2 *>({target})[static_cast<int64_t>(row) * {width} + col / {RUN}] = "
                "make_float2(sum, squares);",
            ],
        )
    ]
