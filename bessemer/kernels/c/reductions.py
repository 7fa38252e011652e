"""Stages with reductions: along memory in one accumulator, or across it in an array of them.

Where the loads of a reduction are contiguous along one of its own axes, each output is computed for itself, in runs
along that axis. Where they are contiguous along the last output axis, a block of outputs is accumulated at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.c import scalar
from bessemer.kernels.c.affine import Affine, affine
from bessemer.kernels.c.blocks import IVDEP, Flat, Value
from bessemer.kernels.c.reduce import argument_over_buffer, better, combined, element, initial, over_buffer
from bessemer.kernels.c.stages import free_axes
from bessemer.kernels.c.writer import ITEM, Writer

BUFFER = 512  # elements of a buffer that a reduction fills
LANES = 256  # most outputs that reductions accumulate at once
RUN = 64  # terms of a long sum that are added up before they join the others

Arrays = Mapping[int, tuple[ex.Reduce, str]]  # reductions in arrays, and the text of an element


def across(w: Writer, whole: list[ex.Reduce]) -> bool:
    """Whether to vectorise over the last output axis rather than along the reductions."""
    name, size = w.stage.axes[-1]
    outer = inner = 0
    longest = 0
    for r in whole:
        best = _vector_axis(w, r)
        longest = max(longest, w.typical(dict(r.axes)[best]))
        for f in w.loads(r.body):
            outer += _merit(f, name)
            inner += _merit(f, best)
    if longest < 16 and w.typical(size) >= longest:
        return True
    return outer > inner or (outer == inner and w.typical(size) >= 16)


def _merit(f: Affine, name: str) -> int:
    step = f.axes.get(name, 0)
    if any(name in free_axes(e) for e, _ in f.rest):
        return -1
    return 1 if step == 1 else 0 if step == 0 else -1


def _vector_axis(w: Writer, r: ex.Reduce) -> str:
    """The axis of `r` along which most of its loads are contiguous."""
    loads = w.loads(r.body)
    names = [n for n, _ in r.axes]
    return max(reversed(names), key=lambda n: sum(_merit(f, n) for f in loads))


def write_elements(w: Writer) -> None:
    """Each output for itself, its reductions vectorised along their innermost axis."""
    cost = w.weight(w.expr) + sum(w.trips(r) for r in exprtree.reductions(w.expr))
    with ExitStack() as stack:
        w.outer_loops(stack, w.stage.axes, cost)
        w.store(w.expr)


def reduce_here(w: Writer, r: ex.Reduce) -> Value:
    """The value of a reduction in the block where its coordinates are known."""
    body = w.body
    level = body.level(r)
    inside, body.blocks = body.blocks[level + 1 :], body.blocks[: level + 1]
    argument = r.kind.startswith("arg")
    dtype = r.body.dtype if argument else r.acc
    acc, vector = body.name("acc"), _vector_axis(w, r)
    body.line(f"{element(dtype)} {acc} = {initial(r.kind, dtype)};")
    if argument:
        body.line(f"int64_t {acc}at = 0;")
    with ExitStack() as stack:
        for name, size in r.axes:
            if name != vector:
                stack.enter_context(w.loop(name, size))
        size = dict(r.axes)[vector]
        if w.typical(size) < 16 and not argument:
            with w.loop(vector, size):
                value = body.value(r.body).text
                body.line(f"{acc} = ({element(dtype)}){combined(r.kind, dtype, acc, value)};")
        else:
            _reduce_run(w, r, acc, vector, size)
    body.blocks += inside
    return Value(f"{acc}at" if argument else acc, level)


def _reduce_run(w: Writer, r: ex.Reduce, acc: str, name: str, size: Dim) -> None:
    """Adds a run along `name` to `acc`: straight from memory, or through a buffer."""
    body = w.body
    argument = r.kind.startswith("arg")
    dtype = r.body.dtype if argument else r.acc
    fn, text = (argument_over_buffer if argument else over_buffer)(r.kind, dtype)
    w.helpers[fn] = text

    def call(pointer: str, n: str, first: str) -> None:
        if argument:
            body.line(f"{fn}({pointer}, {n}, {first}, &{acc}, &{acc}at);")
        else:
            body.line(f"{acc} = ({element(dtype)}){combined(r.kind, dtype, acc, f'{fn}({pointer}, {n})')};")

    pointer = _plain_run(w, r.body, name, element(dtype))
    if pointer is not None:
        call(pointer, w.size(size), "0")
        return
    buffer, at = body.name("b"), body.name("k")
    body.line(f"{element(dtype)} {buffer}[{BUFFER}];")
    with body.block(f"for (int64_t {at} = 0; {at} < {w.size(size)}; {at} += {BUFFER})", {}):
        rest = f"{w.size(size)} - {at}"
        body.line(f"const int64_t {at}n = {rest} < {BUFFER} ? {rest} : {BUFFER};")
        with body.block(f"for (int64_t j = 0; j < {at}n; j++)", {name: f"({at} + j)"}, pragma=IVDEP):
            body.line(f"{buffer}[j] = ({element(dtype)}){body.value(r.body).text};")
        call(buffer, f"{at}n", at)


def _plain_run(w: Writer, e: ex.Expr, name: str, c: str) -> str | None:
    """The address of a run that is stored as it is reduced."""
    if not isinstance(e, ex.Load) or scalar.STORAGE[e.dtype.name] != c or e.dtype.kind == "b":
        return None
    if scalar.kind_of(e.dtype) != e.dtype.name:
        return None
    f = affine(e.index[0])
    if f.axes.get(name) != 1 or any(name in free_axes(x) for x, _ in f.rest):
        return None
    at = w.body.sum(Affine(f.constant, {k: v for k, v in f.axes.items() if k != name}, f.rest))
    pointer = w.body.temporaries.get(e.operand) or w.params.pointer(e.operand)
    return f"{pointer} + {at.text}"


def write_blocks(w: Writer) -> None:
    """Blocks of the last output axis, all reductions accumulated in arrays over it."""
    *outer, (name, size) = w.stage.axes
    order = _inside_out(w)
    cost = w.weight(w.expr) + sum(w.trips(r) for r in order)
    piece = max(64, min(LANES, ITEM // cost // 64 * 64))
    pieces = ceildiv(size, piece)
    body = w.body
    with ExitStack() as stack:
        w.unit_loop(stack, product(s for _, s in outer) * pieces, cost * min(piece, w.typical(size)))
        text = w.block(pieces)
        if outer:
            body.blocks[-1].flat = Flat(f"(u / {text})", tuple(outer))
        w.cut("j", size, piece, f"(u % {text})" if outer else "u")
        arrays: dict[int, tuple[ex.Reduce, str]] = {}
        for r in order:
            _accumulate_one(w, r, name, piece, arrays)
        with body.block("for (int64_t j = 0; j < j1 - j0; j++)", {name: "(j0 + j)"}, pragma=IVDEP):
            _bind_arrays(w, arrays)
            w.store(w.expr)


def _inside_out(w: Writer) -> list[ex.Reduce]:
    """Reductions over the whole output, nested ones before those that read them."""
    names = {n for n, _ in w.stage.axes}
    out: list[ex.Reduce] = []
    seen: set[int] = set()

    def visit(e: ex.Expr) -> None:
        if id(e) in seen:
            return
        seen.add(id(e))
        for child in exprtree.children(e):
            visit(child)
        if isinstance(e, ex.Reduce) and free_axes(e) == names:
            out.append(e)

    visit(w.expr)
    return out


def _bind_arrays(w: Writer, arrays: Arrays) -> None:
    for r, text in arrays.values():
        w.body.bind(r, Value(text, w.body.top))


def _accumulate_one(w: Writer, r: ex.Reduce, name: str, piece: int, arrays: dict[int, tuple[ex.Reduce, str]]) -> None:
    body = w.body
    argument = r.kind.startswith("arg")
    dtype = r.body.dtype if argument else r.acc
    acc, c = body.name("acc"), element(dtype)
    _start(w, acc, c, piece, initial(r.kind, dtype), argument)
    *outer, (last, size) = r.axes
    with ExitStack() as stack:
        for axis in outer:
            stack.enter_context(w.loop(*axis))
        if r.kind in ("sum", "prod") and dtype.is_float and w.typical(size) > 2 * RUN:
            _accumulate_runs(w, r, name, acc, piece, arrays)
        else:
            stack.enter_context(w.loop(last, size))
            _accumulate_row(w, r, name, acc, arrays)
    text = f"{acc}at[j]" if argument else scalar.read(f"{acc}[j]", dtype) if c == "uint8_t" else f"{acc}[j]"
    arrays[id(r)] = (r, text)


def _start(w: Writer, acc: str, c: str, piece: int, value: str, argument: bool = False) -> None:
    """An array of accumulators for the outputs of a block."""
    w.body.line(f"{c} {acc}[{piece}];")
    if argument:
        w.body.line(f"int64_t {acc}at[{piece}];")
    start = f"{acc}[j] = {value};" + (f" {acc}at[j] = 0;" if argument else "")
    w.body.line(f"for (int64_t j = 0; j < j1 - j0; j++) {{ {start} }}")


def _accumulate_runs(w: Writer, r: ex.Reduce, name: str, acc: str, piece: int, arrays: Arrays) -> None:
    """A long sum as a sum of short ones, which keeps its rounding errors small."""
    body, c = w.body, element(r.acc)
    last, size = r.axes[-1]
    part, first = body.name("acc"), body.name("k")
    with body.block(f"for (int64_t {first} = 0; {first} < {w.size(size)}; {first} += {RUN})"):
        end = f"{first} + {RUN} < {w.size(size)} ? {first} + {RUN} : {w.size(size)}"
        body.line(f"const int64_t {first}e = {end};")
        _start(w, part, c, piece, initial(r.kind, r.acc))
        with body.block(f"for (int64_t {last} = {first}; {last} < {first}e; {last}++)", {last: last}):
            _accumulate_row(w, r, name, part, arrays)
        total = combined(r.kind, r.acc, f"{acc}[j]", f"{part}[j]")
        body.line(f"for (int64_t j = 0; j < j1 - j0; j++) {acc}[j] = ({c}){total};")


def _accumulate_row(w: Writer, r: ex.Reduce, name: str, acc: str, arrays: Arrays) -> None:
    """One step of all accumulators of a block."""
    body = w.body
    argument = r.kind.startswith("arg")
    dtype = r.body.dtype if argument else r.acc
    c = element(dtype)
    with body.block("for (int64_t j = 0; j < j1 - j0; j++)", {name: "(j0 + j)"}, pragma=IVDEP):
        _bind_arrays(w, arrays)
        value = body.value(r.body).text
        if argument:
            body.line(f"const {c} new = {value};")
            body.line(f"const int take = {better(r.kind, dtype, 'new', f'{acc}[j]')};")
            body.line(f"{acc}[j] = take ? new : {acc}[j];")
            body.line(f"{acc}at[j] = take ? {r.axes[0][0]} : {acc}at[j];")
        else:
            body.line(f"{acc}[j] = ({c}){combined(r.kind, dtype, f'{acc}[j]', value)};")
