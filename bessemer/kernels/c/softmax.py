"""Softmax and log-softmax: rows through a buffer, so that each exponential is computed once; other axes as a group."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import ceildiv, product
from bessemer.ir import expr as ex
from bessemer.kernels.base import (
    WORKSPACE,
    Config,
    Int,
    KernelCode,
    Launch,
    Limits,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
)
from bessemer.kernels.c import cost, scalar
from bessemer.kernels.c.emit import row_epilogue, value_type
from bessemer.kernels.c.group import as_group, group_code
from bessemer.kernels.c.reduce import over_buffer, weights

ITEM = 4096  # elements that outweigh the cost of starting a work item

_ROWS = """
void softmax(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    const int64_t n = d[0], rows = d[1], group = d[2];
    const int64_t last = end * group < rows ? end * group : rows;
    @C@ *restrict e = (@C@ *)p[1] + thread * d[3];
    for (int64_t row = begin * group; row < last; row++) {
        const @T@ *restrict x = (const @T@ *)p[0] + row * n;
@CONVERT@        const @C@ top = top_of_@K@(@X@, n);
@BODY@        store_row(p, d, row, 0, n, e);
    }
}
"""
_CONVERT = "        for (int64_t j = 0; j < n; j++) e[j] = @READ@;\n"
_SOFTMAX = """        const @C@ scale = 1 / weights_of_@K@(@X@, e, n, top);
        for (int64_t j = 0; j < n; j++) e[j] *= scale;
"""
_LOG = """        @C@ sum = 0;
        for (int64_t k = 0; k < n; k += 512) {
            @C@ part[512];
            sum += weights_of_@K@(@X@ + k, part, n - k < 512 ? n - k : 512, top);
        }
        const @C@ shift = log_@K@(sum);
        for (int64_t j = 0; j < n; j++) e[j] = (@X@[j] - top) - shift;
"""


class Softmax:
    """softmax of floats along any axis."""

    name = "c_softmax"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("softmax",), into=1)
        if other is not None:
            return other
        unknown = scalar.supported(problem)
        if unknown or not problem.operands[0].type.dtype.is_float:
            return Reason(unknown or f"is for floats, not {problem.operands[0].type.dtype}")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        inner = int(problem.attr("axis")) == problem.operands[0].type.rank - 1
        return cost.elementwise_us(problem, target, 2 * cost.HEAVY_CYCLES if inner else 4 * cost.HEAVY_CYCLES)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        x = problem.operands[0].type
        axis, log = int(problem.attr("axis")), bool(problem.attr("log"))
        if axis != x.rank - 1:
            return group_code(as_group(problem, _definition(problem, axis, log)), target)
        kind, length, rows = scalar.kind_of(x.dtype), x.shape[-1], product(x.shape[:-1])
        store = row_epilogue(problem, "store_row", ptr0=2, int0=4)
        in_place = kind == x.dtype.name
        words = {
            "BODY": _LOG if log else _SOFTMAX, "CONVERT": "" if in_place else _CONVERT, "X": "x" if in_place else "e",
            "C": value_type(x.dtype), "K": kind, "T": scalar.STORAGE[x.dtype.name],
            "READ": scalar.read("x[j]", x.dtype),
        }  # fmt: skip
        text = _ROWS
        for name, value in words.items():
            text = text.replace(f"@{name}@", value)
        acc = dt.parse(kind)
        helpers = over_buffer("top", acc)[1] + weights(acc)
        group = max(1, ITEM // max(1, problem.typical(length)))
        padded = ceildiv(length, 16) * 16
        args = (Ptr(0), Ptr(WORKSPACE), Int(length), Int(rows), Int(group), Int(padded), *store.args)
        launch = Launch("softmax", (ceildiv(rows, group),), args)
        threads = target.limits.get("threads", 1)
        return KernelCode(
            "c", scalar.HEADER + scalar.assemble(store.text + helpers + text), (launch,),
            workspace=padded * acc.itemsize * threads,
        )  # fmt: skip


def _definition(problem: Problem, axis: int, log: bool) -> ex.Expr:
    """softmax as an expression over the output's coordinates."""
    x = problem.operands[0].type
    acc = dt.accumulator(x.dtype)
    axes = ex.out_axes(x.rank)

    def at(name: str) -> ex.Expr:
        index = tuple(ex.Axis(name) if k == axis else a for k, a in enumerate(axes))
        return ex.cast(ex.load(0, index, x.dtype), acc)

    size = x.shape[axis]
    top = ex.Reduce("max", (("top", size),), at("top"), acc)
    total = ex.Reduce("sum", (("sum", size),), ex.call("exp", ex.call("sub", at("sum"), top)), acc)
    shifted = ex.call("sub", at(f"i{axis}"), top)
    out = ex.call("sub", shifted, ex.call("log", total)) if log else ex.call("div", ex.call("exp", shifted), total)
    return ex.cast(out, (problem.result or problem.outputs[0]).dtype)


register(Softmax())
