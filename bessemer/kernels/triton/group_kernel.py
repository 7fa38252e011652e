"""Kernels of compute groups, in three forms.

flat   one coordinate over the whole output; reductions are loops, all elements of the block side by side
tile   two coordinates, for loads that run along another axis than the output; other axes are programs
rows   one row of the axes that reductions keep per line of a tile [BR, BC], reductions along the tile's columns;
       a reduction that does not change along a row is computed once per row, those over the same axes share loops,
       and a row that fits into one tile is loaded once
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bessemer.core.dim import Dim, ceildiv
from bessemer.core.interval import bounds, divisor
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import KernelCode, Launch, Problem
from bessemer.kernels.triton.emit import assemble
from bessemer.kernels.triton.params import Group, Params, Value, intern
from bessemer.kernels.triton.reduce import Accumulator, Reducer

ENTRY = "group"


def divides(problem: Problem, size: Dim, block: int) -> bool:
    """Whether `size` is always a multiple of the power of two `block`, and never 0."""
    if bounds(size, problem.range_map)[0] < 1:
        return False
    return size % block == 0 if isinstance(size, int) else divisor(size, problem.range_map) % block == 0


def hoisted(e: ex.Expr) -> list[ex.Reduce]:
    """The reductions that depend on output coordinates alone, inner ones before those that use them."""
    out: list[ex.Reduce] = []
    free: dict[int, frozenset[str]] = {}

    def visit(n: ex.Expr) -> frozenset[str]:
        if id(n) not in free:
            names = frozenset((n.name,)) if isinstance(n, ex.Axis) else frozenset()
            for child in exprtree.children(n):
                names |= visit(child)
            if isinstance(n, ex.Reduce):
                names -= {name for name, _ in n.axes}
                if all(name[0] == "i" and name[1:].isdigit() for name in names):
                    out.append(n)
            free[id(n)] = names
        return free[id(n)]

    visit(e)
    return out


def axes_of(e: ex.Expr) -> frozenset[str]:
    """The output's axes that `e` depends on."""
    names = (n.name for n in exprtree.walk(e) if isinstance(n, ex.Axis))
    return frozenset(name for name in names if name[0] == "i" and name[1:].isdigit())


def _output_axes(problem: Problem) -> tuple[tuple[str, Dim], ...]:
    return tuple((f"i{k}", size) for k, size in enumerate(problem.outputs[0].shape))


def _code(problem: Problem, body: Reducer, grid: Dim, constants: Sequence[tuple[str, int]], warps: int) -> KernelCode:
    parameters = [*body.params.args, *(f"{name}: tl.constexpr" for name, _ in constants), "PDL: tl.constexpr"]
    lines = [f"@triton.jit\ndef {ENTRY}({', '.join(parameters)}):", "    begin(PDL)", *body.lines]
    text = "\n".join(lines) + "\n"
    options = (("num_warps", warps), *constants)
    launch = Launch(ENTRY, (grid,), tuple(body.params.args.values()), options)
    return KernelCode("triton", assemble(text, body.helpers), (launch,))


def _store(problem: Problem, body: Reducer, e: ex.Expr, deps: frozenset[str]) -> None:
    out = problem.outputs[0]
    value = body.value(e)
    offset = body.place()
    if offset.deps != deps:  # axes of extent 1 leave no trace in the offset
        offset = Value(f"({offset.text} + {body.full(deps, 0, offset.kind)})", offset.kind, deps)
    body.store(len(problem.operands), out.dtype, offset, value, " & ".join(body.tests(deps)))


def _start(var: str, block: str, wide: bool, program: str = "tl.program_id(0)", index: str = "") -> str:
    first = f"{program}.to(tl.int64)" if wide else program
    return f"{var} = ({first} * {block} + tl.arange(0, {block})){index}"


def flat(problem: Problem, block: int, warps: int) -> KernelCode:
    """The kernel of form flat, `block` elements per program."""
    assert problem.body is not None
    e = intern(problem.body.expr)
    group = Group("flat", _output_axes(problem), 0, "BLOCK")
    masked = [] if divides(problem, group.numel, block) else ["flat"]
    body = Reducer(problem, Params(problem, bake=True), [group], masked)
    body.line(_start("flat", "BLOCK", "flat" in body.wide))
    for reduction in hoisted(e):
        body.results[id(reduction)] = (reduction, body.value(reduction))
    _store(problem, body, e, frozenset(("flat",)))
    return _code(problem, body, ceildiv(group.numel, block), [("BLOCK", block)], warps)


def tile(problem: Problem, axis: int, by: int, bx: int, warps: int) -> KernelCode:
    """The kernel of form tile: lines along output axis `axis`, columns along all axes after it."""
    assert problem.body is not None
    e = intern(problem.body.expr)
    axes = _output_axes(problem)
    batch, y = Group("batch", axes[:axis]), Group("y", axes[axis : axis + 1], 0, "BY")
    x = Group("x", axes[axis + 1 :], 1, "BX")
    masked = [g.var for g, block in ((y, by), (x, bx)) if not divides(problem, g.numel, block)]
    body = Reducer(problem, Params(problem, bake=True), [batch, y, x], masked)
    lines, columns = ceildiv(y.numel, by), ceildiv(x.numel, bx)
    program = "pid"
    body.line("pid = tl.program_id(0)")
    across = body.params.size(columns).text
    body.line(_start("x", "BX", "x" in body.wide, f"({program} % {across})", "[None, :]"))
    body.line(f"pid = pid // {across}")
    down = body.params.size(lines).text
    body.line(_start("y", "BY", "y" in body.wide, f"({program} % {down})", "[:, None]"))
    body.line(f"batch = pid // {down}")
    if "batch" in body.wide:
        body.line("batch = batch.to(tl.int64)")
    _store(problem, body, e, frozenset(("x", "y")))
    return _code(problem, body, batch.numel * lines * columns, [("BY", by), ("BX", bx)], warps)


@dataclass(frozen=True)
class Rows:
    """How a problem with reductions falls into rows: axes that some reduction keeps, the others, and the reductions
    with their coordinates renamed, so that those of the same extents (and the other axes) share one group each."""

    e: ex.Expr
    kept: tuple[tuple[str, Dim], ...]
    free: tuple[tuple[str, Dim], ...]
    spaces: tuple[tuple[tuple[str, Dim], ...], ...]  # axes of each column group; the free axes' own first, if any
    stages: tuple[tuple[int, tuple[ex.Reduce, ...]], ...]  # (space, reductions that share its loop)


def rows_of(problem: Problem) -> Rows | None:
    """The rows of a problem; None where nothing is reduced."""
    assert problem.body is not None
    e = intern(problem.body.expr)
    reductions = hoisted(e)
    if not reductions:
        return None
    kept_names = frozenset().union(*(axes_of(r) for r in reductions))
    axes = _output_axes(problem)
    kept = tuple(a for a in axes if a[0] in kept_names or a[1] == 1)
    free = tuple(a for a in axes if a not in kept)
    spaces: list[tuple[tuple[str, Dim], ...]] = [free] if free else []
    targets: dict[tuple[tuple[str, Dim], ...], dict[str, str]] = {}
    for r in reductions:
        extents = [size for _, size in r.axes]
        number = next((k for k, s in enumerate(spaces) if [size for _, size in s] == extents), len(spaces))
        if number == len(spaces):
            spaces.append(tuple((f"c{number}_{k}", size) for k, size in enumerate(extents)))
        targets[r.axes] = {name: target for (name, _), (target, _) in zip(r.axes, spaces[number])}
    if any(r.axes in targets and r not in reductions for r in exprtree.reductions(e)):
        return None  # an inner loop variable has the name of an outer one
    renamed = intern(exprtree.rewrite(e, lambda n: _renamed(n, targets)))
    return Rows(renamed, kept, free, tuple(spaces), _stages(renamed, spaces))


def _renamed(n: ex.Expr, targets: Mapping[tuple[tuple[str, Dim], ...], Mapping[str, str]]) -> ex.Expr | None:
    return exprtree.rename_axes(n, targets[n.axes]) if isinstance(n, ex.Reduce) and n.axes in targets else None


def _stages(e: ex.Expr, spaces: Sequence[tuple[tuple[str, Dim], ...]]) -> tuple[tuple[int, tuple[ex.Reduce, ...]], ...]:
    """The reductions over `spaces`, by depth and then by space."""
    depth: dict[int, int] = {}
    stages: dict[tuple[int, int], list[ex.Reduce]] = {}

    def visit(n: ex.Expr) -> int:
        if id(n) not in depth:
            below = max((visit(c) for c in exprtree.children(n)), default=0)
            if isinstance(n, ex.Reduce) and n.axes in spaces:
                stages.setdefault((below, spaces.index(n.axes)), []).append(n)
                below += 1
            depth[id(n)] = below
        return depth[id(n)]

    visit(e)
    return tuple((space, tuple(found)) for (_, space), found in sorted(stages.items(), key=lambda t: t[0]))


def rows(problem: Problem, br: int, bc: int, warps: int) -> KernelCode:
    """The kernel of form rows, `br` rows per program, at most `bc` columns at a time."""
    found = rows_of(problem)
    assert found is not None
    return _RowsWriter(problem, found, br, bc).code(warps)


class _RowsWriter:
    """Writes a kernel of form rows."""

    def __init__(self, problem: Problem, form: Rows, br: int, bc: int) -> None:
        self.problem, self.form, self.br = problem, form, br
        self.row = Group("rows", form.kept, 0, "BR")
        self.columns, self.constants, self.single = [], [("BR", br)], []
        masked = [] if divides(problem, self.row.numel, br) else ["rows"]
        for k, axes in enumerate(form.spaces):
            group = Group(f"cols{k}", axes, 1, f"BC{k}")
            most = bounds(group.numel, problem.range_map)[1]
            block = min(bc, _power_of_two(most))
            self.columns.append(group)
            self.constants.append((f"BC{k}", block))
            self.single.append(most <= block)
            if not divides(problem, group.numel, block):
                masked.append(group.var)
        self.body = Reducer(problem, Params(problem, bake=True), [self.row, *self.columns], masked)

    def code(self, warps: int) -> KernelCode:
        body, form = self.body, self.form
        body.line(_start("rows", "BR", "rows" in body.wide, index="[:, None]"))
        for k, group in enumerate(self.columns):
            if self.single[k]:
                body.line(f"{group.var} = tl.arange(0, BC{k})[None, :]")
        for space, reductions in form.stages:
            self._stage(space, reductions)
        if not form.free:
            _store(self.problem, body, form.e, frozenset(("rows",)))
        else:
            self._along(0, lambda: _store(self.problem, body, form.e, frozenset(("rows", "cols0"))))
        return _code(self.problem, body, ceildiv(self.row.numel, self.br), self.constants, warps)

    def _stage(self, space: int, reductions: Sequence[ex.Reduce]) -> None:
        body, var = self.body, self.columns[space].var
        running: list[Accumulator] = []
        for r in reductions:
            deps = body.dependencies(r, ()) | {"rows", var}
            running.append(body.start(r, f"acc{body.number()}", deps))

        def step() -> None:
            test = " & ".join(body.tests(frozenset((var,))))
            for acc in running:
                body.update(acc, body.value(acc.e.body), test)

        self._along(space, step)
        for acc in running:
            body.results[id(acc.e)] = (acc.e, body.finish(acc, 1))

    def _along(self, space: int, step: Callable[[], None]) -> None:
        group, body = self.columns[space], self.body
        if self.single[space]:
            step()
            return
        kind = "tl.int64" if group.var in body.wide else "tl.int32"
        extent = body.params.size(group.numel).text
        with body.block(f"for start_{group.var} in range(0, {extent}, BC{space}):"):
            zero = f"tl.full((), 0, {kind})"
            body.line(f"{group.var} = ({zero} + start_{group.var} + tl.arange(0, BC{space}))[None, :]")
            step()


def _power_of_two(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()
