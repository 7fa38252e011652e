"""The epilogue of a Problem as device functions that kernels call for runs of eight columns of the output.

`epilogue(problem).text` defines, for output 0 seen as row-major [rows, last axis] with a multiple of 8 columns,

    struct Columns, struct Cells
    load_constant_columns(Columns &, int col, ...)   weights read by column alone: possible before the inputs are there
    load_columns(Columns &, int col, ...)            other operands read by column alone, and single elements
    load_cells(Cells &, int row, int col, ...)       operands read in runs at row and column
    finish_if(bool inside, const float (&acc)[8], const Columns &, const Cells &, int row, int col, ...)
                                                     computes the run, and stores it if it is inside the output
    finish(const float (&acc)[8], ...)               the same for runs that are inside

so that a kernel can have these loads under way while it computes. With `batch`, an axis of the output, the functions
that load columns take its coordinate behind `col`, and columns are what depends on these two. What is read in other
ways is read in `finish_if`, whether inside or not: `row` and `col` must be those of the output in any case.
Where the output is columns of a wider tensor, these start at a multiple of 8 of a width that is one. Sums of rows are
those of row_sums.py: where the epilogue reads such, these two take what follows from them behind the cells, and where
the problem asks for those of the output, they leave the values in `acc`.

`reduction(terms, problem)` defines the same for what a problem reduces, seen as [rows, columns] too: with TermColumns,
TermCells, and

    add_term(float (&acc)[8], const TermColumns &, const TermCells &, int row, int col, ...)   adds a run to sums
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.interval import bounds, divisor
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Arg, Int, Problem, Ptr
from bessemer.kernels.c import scalar
from bessemer.kernels.c.affine import Affine, offset
from bessemer.kernels.c.blocks import Flat, Value
from bessemer.kernels.c.params import Params
from bessemer.kernels.cuda.row_sums import Functions, count_of_row, row_values, stored_sums
from bessemer.kernels.cuda.scalar import NARROW, DeviceBody
from bessemer.kernels.row_sums import finished

RUN = 8  # columns that are loaded and stored at once
UNROLL = "#pragma unroll"
NAMES = "@EPILOGUE_NAMES@"  # of the parameters, which are known once all functions are


@dataclass(frozen=True)
class Epilogue:
    """`text` defines the functions; `parameters` are their own ("const uint16_t *x2"), called `names`; `args` are the
    launch's arguments for them."""

    text: str
    parameters: tuple[str, ...]
    names: tuple[str, ...]
    args: tuple[Arg, ...]


@dataclass
class _Loads:
    """Loads that happen ahead, by where their values are kept."""

    columns: list[str] = field(default_factory=list)  # fields of the structs
    cells: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)  # statements of the load functions
    late: list[str] = field(default_factory=list)
    staged: dict[int, tuple[ex.Expr, str]] = field(default_factory=dict)


def epilogue(problem: Problem, in_f32: bool = False, batch: int | None = None) -> Epilogue:
    """The device functions of `problem`'s epilogue, or those that store its result. `in_f32`: what it computes in 16
    bits is rounded once, when it is stored. `batch`: the output's axis that columns may depend on."""
    if in_f32 and problem.epilogue is not None:
        problem = replace(problem, epilogue=_in_f32(problem.epilogue))
    params = Params(problem)
    return _written(problem, params, [*_stored(problem, params, batch), *stored_sums(problem, params)])


def _in_f32(e: ex.Expr) -> ex.Expr:
    """`e` with f32 for what it computes in 16 bits."""

    def step(n: ex.Expr) -> ex.Expr | None:
        if n.dtype not in NARROW:
            return None
        return n.arg if isinstance(n, ex.Cast) and n.arg.dtype == dt.f32 else ex.cast(n, dt.f32)

    return exprtree.rewrite(e, step)


def reduction(terms: Problem, problem: Problem) -> Epilogue:
    """The device functions that add up the epilogue of `terms`, and those of the epilogue of `problem`, which has the
    same operands, for the sums."""
    params = Params(problem)
    body, expr, found = _planned(terms, params, "Term")
    with body.block("for (int j = 0; j < 8; j++)", {f"i{terms.outputs[0].rank - 1}": "(col + j)"}, pragma=UNROLL):
        body.line(f"acc[j] += {body.value(expr).text};")
    head = "add_term(float (&acc)[8], const TermColumns &columns, const TermCells &cells, int row, int col"
    added = [*found, (head, body.blocks[0].lines)]
    return _written(problem, params, [*added, *_stored(problem, params)])


def _planned(
    problem: Problem, params: Params, prefix: str = "", batch: int | None = None
) -> tuple[DeviceBody, ex.Expr, Functions]:  # fmt: skip
    """A body to compute the epilogue in, the epilogue, and the functions whose loads the body finds staged."""
    body, expr = _body(problem, params)
    cells, _ = _body(problem, params)
    rows, summed = row_values(problem, body, expr, _body(problem, params)[0]), finished(problem)
    loads = _Loads()
    for node in exprtree.walk(expr):
        if isinstance(node, ex.Load) and node.operand != summed and body.safe(node):
            _plan(problem, node, loads, cells, batch)
    body.staged = loads.staged
    place = "int col" if batch is None else "int col, int batch"
    found: Functions = [
        (f"struct {prefix}Columns", loads.columns),
        (f"struct {prefix}Cells", loads.cells),
        (f"load_constant_columns({prefix}Columns &columns, {place}", loads.constant),
        (f"load_columns({prefix}Columns &columns, {place}", loads.late),
        (f"load_cells({prefix}Cells &cells, int row, int col", cells.blocks[0].lines),
        *rows,
    ]
    return body, expr, found


def _stored(problem: Problem, params: Params, batch: int | None = None) -> Functions:
    body, expr, found = _planned(problem, params, batch=batch)
    _finish(problem, body, expr)
    count = count_of_row(problem)
    of_row = f", const float (&of_row)[{count}]" if count else ""
    given = f"{'' if problem.sums else 'const '}float (&acc)[8], const Columns &columns, const Cells &cells{of_row}"
    call = f"finish_if(true, acc, columns, cells{', of_row' if count else ''}, row, col{NAMES});"
    return [
        *found,
        (f"finish_if(bool inside, {given}, int row, int col", body.blocks[0].lines),
        (f"finish({given}, int row, int col", [call]),
    ]


def _written(problem: Problem, params: Params, functions: Functions) -> Epilogue:
    parameters = tuple(_declared(problem, params))
    own = "".join(f", {p}" for p in parameters)
    text = "\n".join(
        _struct(head, lines) if head.startswith("struct ") else _function(f"{head}{own})", lines)
        for head, lines in functions
    )
    names = tuple(p.split()[-1].lstrip("*") for p in parameters)
    return Epilogue(text.replace(NAMES, "".join(f", {n}" for n in names)), parameters, names, params.args)


def _body(problem: Problem, params: Params) -> tuple[DeviceBody, ex.Expr]:
    out = problem.outputs[0]
    axes = tuple((f"i{k}", size) for k, size in enumerate(out.shape))
    body = DeviceBody(problem, params, dict(axes))
    body.blocks[0].flat = Flat("row", axes[:-1])
    result = (problem.result or out).dtype
    return body, body.intern(problem.epilogue if problem.epilogue is not None else ex.Acc(result))


def _plan(problem: Problem, e: ex.Load, loads: _Loads, cells: DeviceBody, batch: int | None) -> None:
    """Let a load happen ahead where it reads a run of eight neighbours, aligned, or always the same element."""
    operand = problem.operands[e.operand]
    at, last = offset(operand.type.shape, e.index), f"i{problem.outputs[0].rank - 1}"
    rest = replace(at, axes={name: c for name, c in at.axes.items() if name != last})
    step, of_batch = at.axes.get(last, 0), batch is not None and [*rest.axes] == [f"i{batch}"]
    by_batch = of_batch and step == 1 and _fits_32_bits(problem, operand.type)
    by_column = rest.known is not None or by_batch
    if at.rest or not _whole_runs(problem, rest) or not (step == 1 or (step == 0 and by_column)):
        return
    kind, pointer = scalar.STORAGE[operand.type.dtype.name], cells.params.pointer(e.operand)
    name, home = f"v{len(loads.staged)}", "columns" if by_column else "cells"
    (loads.columns if by_column else loads.cells).append(f"{f'Run<{kind}>' if step else kind} {name};")
    loads.staged[id(e)] = (e, scalar.read(f"{home}.{name}.v[j]" if step else f"{home}.{name}", e.dtype))
    if not by_column:
        start = _narrow(problem, operand.type, cells.sum(rest).text)
        cells.line(f"cells.{name} = load_run({pointer} + ({start} + col));")
        return
    first = [f"batch * static_cast<int>({cells.params.size(rest.axes[f'i{batch}'])})"] if by_batch else []
    first += [cells.params.size(rest.constant)] if rest.constant != 0 else []
    place = f"{pointer} + ({' + '.join([*first, 'col' if step else '0'])})"
    value = f"load_run({place})" if step else f"*({place})"
    (loads.constant if operand.constant else loads.late).append(f"columns.{name} = {value};")


def _whole_runs(problem: Problem, a: Affine) -> bool:
    """Whether the offset is always a multiple of a run."""
    return all(_divides(problem, d) for d in (a.constant, *a.axes.values()))


def _divides(problem: Problem, d: Dim) -> bool:
    return d % RUN == 0 if isinstance(d, int) else divisor(d, problem.range_map) % RUN == 0


def _finish(problem: Problem, body: DeviceBody, expr: ex.Expr) -> None:
    out = problem.outputs[0]
    result = scalar.kind_of((problem.result or out).dtype)
    target = body.params.pointer(len(problem.operands))
    body.line(f"Run<{scalar.STORAGE[out.dtype.name]}> run;")
    with body.block("for (int j = 0; j < 8; j++)", {f"i{out.rank - 1}": "(col + j)"}, pragma=UNROLL):
        for node in exprtree.walk(expr):
            if isinstance(node, ex.Acc):
                text = scalar.converted("acc[j]", result, scalar.kind_of(node.dtype))
                body.bind(node, Value(text, body.top))
        body.store_at("run.v[j]", out.dtype, expr)
        if problem.sums:
            body.line(f"acc[j] = {body.value(expr).text};")
    written = problem.written[0]
    place = _narrow(problem, written, f"static_cast<int64_t>(row) * {body.params.size(written.shape[-1])}") + " + col"
    if problem.into is not None:
        place += f" + {body.params.size(problem.into.start)}"
    body.line("if (inside)")
    body.line(f"    store_run({target} + ({place}), run);")


def _narrow(problem: Problem, t: TensorType, offset: str) -> str:
    """An offset into a tensor, in 32 bits where these are enough: by 64 an address takes ten instructions, not two."""
    return f"static_cast<int>({offset})" if _fits_32_bits(problem, t) else offset


def _fits_32_bits(problem: Problem, t: TensorType) -> bool:
    """Whether 32 bits hold every offset into a tensor."""
    return bool(bounds(t.numel, problem.range_map)[1] < 1 << 31)


def _declared(problem: Problem, params: Params) -> list[str]:
    """The parameters in the order of `params.args`."""
    pointers = list(params.pointers.values())
    found = []
    for arg, name in zip(params.args, [*pointers, *params.sizes.values()]):
        if isinstance(arg, Int):
            found.append(f"int64_t {name}")
            continue
        assert isinstance(arg, Ptr)
        number = arg.operand - len(problem.operands)
        t = problem.outputs[number] if number >= 0 else problem.operands[arg.operand].type
        found.append(f"{'' if number >= 0 else 'const '}{scalar.STORAGE[t.dtype.name]} *{name}")
    return found


def _struct(head: str, fields: list[str]) -> str:
    return f"{head} {{\n" + "".join(f"    {f}\n" for f in fields) + "};\n"


def _function(head: str, lines: list[str]) -> str:
    return f"inline void {head} {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"
