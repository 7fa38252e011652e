"""The epilogue of a Problem as a C function that template kernels call for each run of results."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Arg, Problem
from bessemer.kernels.c import scalar
from bessemer.kernels.c.blocks import IVDEP, Flat, Value
from bessemer.kernels.c.body import Body
from bessemer.kernels.c.params import Params


@dataclass(frozen=True)
class EpilogueCode:
    """`text` defines the function; `args` are its own arguments, to be appended to the launch's."""

    text: str
    args: tuple[Arg, ...]


def row_epilogue(problem: Problem, name: str, *, ptr0: int, int0: int) -> EpilogueCode:
    """The function

        static inline void NAME(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n, const T *acc)

    that stores n results of output row `row` (output 0 seen as row-major [rows, last axis]), columns col..col+n, from
    the anchor's values acc[0..n). T is what the result's dtype is computed in (float for the 16-bit floats). Its
    pointers are p[ptr0...], its integers d[int0...]; the text is complete but for <stdint.h>.
    """
    out = problem.outputs[0]
    result = (problem.result or out).dtype
    lead = tuple((f"i{k}", size) for k, size in enumerate(out.shape[:-1]))
    params = Params(problem, ptr0, int0)
    body = Body(problem, params, {f"i{k}": size for k, size in enumerate(out.shape)})
    body.blocks[0].flat = Flat("row", lead)
    expr = body.intern(problem.epilogue if problem.epilogue is not None else ex.Acc(result))
    last = {f"i{out.rank - 1}": "(col + j)"} if out.rank else {}
    target = params.pointer(len(problem.operands))
    at = f"row * {params.size(problem.written[0].shape[-1])} + col" if out.rank else "0"
    if problem.into is not None:
        at += f" + {params.size(problem.into.start)}"
    body.line(f"{scalar.STORAGE[out.dtype.name]} *restrict out = {target} + {at};")
    with body.block("for (int64_t j = 0; j < n; j++)", last, pragma=IVDEP):
        for node in exprtree.walk(expr):
            if isinstance(node, ex.Acc):
                body.bind(node, Value(accumulated(node.dtype, result), body.top))
        body.store_at("out[j]", out.dtype, expr)
    lines = [*params.declarations(), *body.blocks[0].lines]
    head = (
        f"static inline void {name}(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n,\n"
        f"        const {value_type(result)} *restrict acc) {{\n"
    )
    text = head + "".join(f"    {line}\n" for line in lines) + "}\n"
    return EpilogueCode(scalar.assemble(text), params.args)


def value_type(dtype: DType) -> str:
    """The C type that values of `dtype` are computed in, as arrays of them."""
    return "uint8_t" if dtype.kind == "b" else scalar.VALUE[scalar.kind_of(dtype)]


def accumulated(dtype: DType, result: DType) -> str:
    """The text of Acc."""
    return scalar.converted("acc[j]", scalar.kind_of(result), scalar.kind_of(dtype))
