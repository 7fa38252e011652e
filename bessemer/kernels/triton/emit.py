"""Modules of Triton text: a template, the epilogue that a Problem asks of it, and the functions that both use.

A template is a file of `templates/`, valid Python that is only ever read as text. It holds @triton.jit functions, and

- the bare parameter name `EPILOGUE`, in a kernel's parameters and in calls of `epilogue_store`, stands for the
  parameters that the epilogue needs; `Module.args` are the launch's arguments at that position;
- `epilogue_store(acc, rows, cols, mask, EPILOGUE)` applies the problem's epilogue to a tile and stores it as output 0;
- `epilogue_prefetch(cols, EPILOGUE)` fetches to L2 what the epilogue reads of constants at these columns (channels);
- functions of templates/launch.py, parts.py and functions.py (wait, sum_parts, exp, ...) can be called by name.

Every kernel has a constexpr parameter PDL, which the target gives: see templates/launch.py.

`epilogue_store` sees output 0 as row-major [rows, cols]: `cols` runs along the last axis, `rows` over all others. Both
are integer tensors of any width that broadcast to the shape of `acc` ([BM, 1] and [1, BN] are the natural ones); `acc`
holds the anchor's result in f32 (or in its own dtype where that is f64 or an integer); `mask` broadcasts to `acc` and
must be false wherever rows or cols are out of range. With `splits=(1, 2)` the output is seen in three parts instead,
axis 0, axis 1 and the rest: `epilogue_store(acc, batch, channel, pixel, mask, EPILOGUE)` for NCHW.

Pointers: a bool operand is an int8 pointer, the workspace a float32 pointer, the
others point at their element type (bf16 and f16 as such).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Arg, Problem
from bessemer.kernels.triton import scalar
from bessemer.kernels.triton.body import Body
from bessemer.kernels.triton.params import Group, Params, Value, intern

TEMPLATES = Path(__file__).parent / "templates"
SHARED = ("launch", "parts", "functions")  # templates whose functions all modules can call
HEADER = """\
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
"""


@dataclass(frozen=True)
class Module:
    """The text of a module, and the arguments of its launches at the position of EPILOGUE."""

    text: str
    args: tuple[Arg, ...]


def module(template: str, problem: Problem, splits: Sequence[int] | None = None) -> Module:
    """The module of templates/`template`.py with the epilogue of `problem`.

    `splits` are the axes of output 0 at which its coordinates are parted; by default its last one. FileNotFoundError
    for an unknown template."""
    source = _template(template)
    if "EPILOGUE" not in source:
        return Module(assemble(source), ())
    params, ahead = Params(problem, bake=False), ""
    if "epilogue_prefetch" in _names(source):
        ahead = _prefetch(problem, splits, params)
    text, helpers = epilogue(problem, splits, params)
    text = re.sub(r"\bEPILOGUE\b", ", ".join(params.args), "\n\n".join((ahead, text, source)))
    return Module(assemble(text, helpers), tuple(params.args.values()))


def _groups(problem: Problem, splits: Sequence[int] | None) -> tuple[tuple[str, ...], list[Group]]:
    """The parts of output 0's coordinates by name."""
    out = problem.outputs[0]
    cuts = [0, *(splits if splits is not None else [max(0, out.rank - 1)]), out.rank]
    names = ("rows", "cols") if len(cuts) == 3 else tuple(f"part{k}" for k in range(len(cuts) - 1))
    axes = [(f"i{k}", size) for k, size in enumerate(out.shape)]
    return names, [Group(name, tuple(axes[a:b]), k) for k, (name, a, b) in enumerate(zip(names, cuts, cuts[1:]))]


def _prefetch(problem: Problem, splits: Sequence[int] | None, params: Params) -> str:
    """The text of `epilogue_prefetch`: what the epilogue reads at the second part of the coordinates alone."""
    names, groups = _groups(problem, splits)
    others = {axis for group in groups if group.var != names[1] for axis, _ in group.axes}
    body = Body(problem, params, [groups[1]], ())
    loads = [n for n in exprtree.walk(intern(problem.epilogue)) if isinstance(n, ex.Load)] if problem.epilogue else []
    for load in loads:
        operand = problem.operands[load.operand]
        inner = [n for index in load.index for n in exprtree.walk(index)]
        moving = any(isinstance(n, (ex.Load, ex.Reduce)) or isinstance(n, ex.Axis) and n.name in others for n in inner)
        if operand.constant and not moving and body.safe(load):
            offset = body.offset(operand.type.shape, load.index)
            body.line(f"prefetch({params.operand(load.operand)} + {offset.text})")
    head = f"@triton.jit\ndef epilogue_prefetch({names[1]}, EPILOGUE):\n"
    return head + "\n".join(body.lines or ["    pass"]) + "\n"


def epilogue(problem: Problem, splits: Sequence[int] | None, params: Params) -> tuple[str, tuple[str, ...]]:
    """The text of `epilogue_store`, whose parameters are put in `params`, and the functions that it calls."""
    out, number = problem.outputs[0], len(problem.operands)
    names, groups = _groups(problem, splits)
    body = Body(problem, params, groups, names, "mask")
    for group in body.groups.values():
        if group.axes:
            body.line(f"{group.var} = {group.var}.to({'tl.int64' if group.var in body.wide else 'tl.int32'})")
    expr = intern(problem.epilogue if problem.epilogue is not None else ex.Acc((problem.result or out).dtype))
    deps = frozenset(body.groups)
    for node in exprtree.walk(expr):
        if isinstance(node, ex.Acc):
            kind = scalar.kind_of(node.dtype)
            acc = body.let(f"acc.to({scalar.TL[kind]})", kind, deps) if kind != "i1" else Value("acc", kind, deps)
            body.results[id(node)] = (node, acc)
    value = body.value(expr)
    body.store(number, out.dtype, _over_tile(body, body.place()), value, "mask")
    head = f"@triton.jit\ndef epilogue_store(acc, {', '.join(names)}, mask, EPILOGUE):\n"
    return head + "\n".join(body.lines) + "\n", tuple(body.helpers)


def _over_tile(body: Body, offset: Value) -> Value:
    """`offset` with the tile's shape, also where a group of the output has one element and takes no part in it."""
    for var in body.groups:
        if var not in offset.deps:
            offset = body.let(f"{offset.text} + {var} * 0", offset.kind, offset.deps | {var})
    return offset


def assemble(source: str, helpers: Iterable[str] = ()) -> str:
    """A complete module: imports, the functions that `source` or `helpers` name, and `source`."""
    own = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    known = {name: text for name, text in _functions().items() if name not in own}
    wanted = set(helpers) | _names(source) & set(known)
    queue = list(wanted)
    while queue:
        for name in _names(known[queue.pop()]) & set(known):
            if name not in wanted:
                wanted.add(name)
                queue.append(name)
    parts = [HEADER, *(known[name] for name in known if name in wanted), source.strip() + "\n"]
    return "\n\n".join(parts)


def _names(source: str) -> set[str]:
    return {n.func.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


@cache
def _template(name: str) -> str:
    """A template's text without its docstring and imports."""
    source = (TEMPLATES / f"{name}.py").read_text()
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            lines[node.lineno - 1 : node.end_lineno] = []
    return "".join(lines).strip() + "\n"


@cache
def _functions() -> dict[str, str]:
    """The functions of the SHARED templates by name, decorator and all, in the order of the files."""
    out = {}
    for name in SHARED:
        source = (TEMPLATES / f"{name}.py").read_text()
        lines = source.splitlines(keepends=True)
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                first = min(d.lineno for d in node.decorator_list) - 1
                out[node.name] = "".join(lines[first : node.end_lineno]).strip() + "\n"
    return out
