"""One stage of a compute group as a C function: its loops, blocks of work, and what stands in them.

The innermost output axis is the vector axis, but where the reductions of a stage run along memory: then their innermost
axis is. Conditions on coordinates split loops instead of being tested per element, as far as that stays small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import WORKSPACE, Launch, Problem
from bessemer.kernels.c import scalar
from bessemer.kernels.c.affine import Affine, affine, strides
from bessemer.kernels.c.body import IVDEP, Block, Body, Flat, Params, Value
from bessemer.kernels.c.intern import replaced
from bessemer.kernels.c.reduce import argument_over_buffer, better, combined, element, initial, over_buffer
from bessemer.kernels.c.stages import Axes, Stage, Temporary, free_axes, outermost

ITEM = 16384  # elements of cheap work that outweigh the cost of starting a work item
BUFFER = 512  # elements of a buffer that a reduction fills
LANES = 256  # most outputs that reductions accumulate at once
RUN = 64  # terms of a long sum that are added up before they join the others
LEAVES = 24  # most variants of an innermost loop
TILE = 32
HEAVY = frozenset(
    "exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sigmoid pow atan2 fmod "
    "floormod".split()
)
COMPARISONS = frozenset(("lt", "le", "gt", "ge"))


@dataclass(frozen=True)
class StageCode:
    """The text of a stage's function (without what it calls), helper functions by name, and its launch."""

    text: str
    helpers: Mapping[str, str]
    launch: Launch


def stage_code(problem: Problem, stage: Stage, temporaries: Sequence[Temporary], entry: str) -> StageCode:
    """The function `entry` that computes `stage`."""
    return _Writer(problem, stage, temporaries).code(entry)


class _Writer:
    def __init__(self, problem: Problem, stage: Stage, temporaries: Sequence[Temporary]) -> None:
        self.problem, self.stage = problem, stage
        self.known = {t.number: t for t in temporaries}
        self.params = Params(problem)
        extents = {n: s for n, s in stage.axes} | {n: s for r in ex.reductions(stage.expr) for n, s in r.axes}
        self.extents = extents
        self.body = Body(problem, self.params, extents, self._flat_type)
        self.expr = self.body.intern(stage.expr)
        self.helpers: dict[str, str] = {}
        self.units: Dim = 1
        self.group: Dim = 1  # units of a work item
        self.leaves = 0

    # -- what it is about

    def _flat_type(self, operand: int) -> TensorType:
        t = self.known[operand].type if operand in self.known else self.problem.operands[operand].type
        return TensorType(t.dtype, (t.numel,))

    def typical(self, d: Dim) -> int:
        return max(1, self.problem.typical(d))

    def code(self, entry: str) -> StageCode:
        self._bind_temporaries()
        whole = [r for r in outermost(self.expr) if free_axes(r) == {n for n, _ in self.stage.axes}]
        self.body.reduce = self._reduce_here
        tile = None if ex.reductions(self.expr) else self._transposed_axis()
        if tile is not None:
            self._tiles(tile)
        elif whole and (not self.stage.axes or not self._across(whole)):
            self._elements()
        elif whole:
            self._accumulate()
        else:
            self._rows()
        params, body = self.params, self.body
        items = ceildiv(self.units, self.group)
        lines = [*params.declarations(), *body.blocks[0].lines]
        head = f"void {entry}(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {{\n"
        text = head + "".join(f"    {line}\n" for line in lines) + "}\n"
        return StageCode(text, self.helpers, Launch(entry, (items,), params.args))

    def _bind_temporaries(self) -> None:
        used = set(ex.operands(self.expr)) | ({self.stage.target.number} if self.stage.target else set())
        for t in self.known.values():
            if t.number not in used:
                continue
            pointer, c = self.params.pointer(WORKSPACE), scalar.STORAGE[t.type.dtype.name]
            written = self.stage.target is t
            name = f"y{-t.number}" if written else f"w{-t.number}"
            quality = "" if written else "const "
            self.body.line(f"{quality}{c} *restrict {name} = ({quality}{c} *)({pointer} + {self.params.size(t.at)});")
            if not written:
                self.body.temporaries[t.number] = name

    def _weight(self, e: ex.Expr) -> int:
        """The cost of one evaluation, in elements of cheap work."""
        return 1 + sum(3 for n in ex.walk(e) if isinstance(n, ex.Call) and n.fn in HEAVY and n.dtype.is_float)

    def _loads(self, e: ex.Expr) -> list[Affine]:
        return [affine(n.index[0]) for n in ex.walk(e) if isinstance(n, ex.Load)]

    def _store(self, e: ex.Expr) -> None:
        shape = tuple(s for _, s in self.stage.axes)
        terms = {n: c for (n, _), c in zip(self.stage.axes, strides(shape)) if c != 0}
        at = self.body.sum(Affine(0, terms))
        target = self.stage.target
        name = f"y{-target.number}" if target else self.params.pointer(len(self.problem.operands))
        self.body.store_at(f"{name}[{at.text}]", self.stage.dtype, e)

    # -- blocks of work

    def _size(self, d: Dim) -> str:
        return self.params.size(d)

    def _block(self, d: Dim) -> str:
        return self.params.block(d)

    def _unit_loop(self, stack: ExitStack, units: Dim, cost: int, flat: Flat | None = None) -> None:
        """The loop over the units of this call, `cost` cheap elements each."""
        self.units, self.group = units, max(1, ITEM // max(1, cost))
        size, group = self._block(units), self._block(self.group)
        self.body.line(f"const int64_t u1 = end * {group} < {size} ? end * {group} : {size};")
        stack.enter_context(self.body.block(f"for (int64_t u = begin * {group}; u < u1; u++)", flat=flat))

    def _cut(self, name: str, size: Dim, piece: Dim, number: str) -> None:
        """Locals NAME0 and NAME1: where piece `number` of `size` starts and ends."""
        p, s = self._block(piece), self._block(size)
        self.body.line(f"const int64_t {name}0 = {number} * {p};")
        self.body.line(f"const int64_t {name}1 = {name}0 + {p} < {s} ? {name}0 + {p} : {s};")

    def _outer_loops(self, stack: ExitStack, outer: Axes, cost: int) -> None:
        """Loops over `outer`: units of its leading axes and blocks of its last, `cost` elements for each coordinate."""
        if not outer:
            self._unit_loop(stack, 1, cost)
            return
        *lead, (name, size) = outer
        piece = max(1, ITEM // cost)
        if self.typical(size) <= piece:
            self._unit_loop(stack, product(s for _, s in lead), cost * self.typical(size), Flat("u", tuple(lead)))
            self.body.line(f"const int64_t m0 = 0, m1 = {self._size(size)};")
        else:
            pieces = ceildiv(size, piece)
            self._unit_loop(stack, product(s for _, s in lead) * pieces, cost * piece)
            text = self._block(pieces)
            if lead:
                self.body.blocks[-1].flat = Flat(f"(u / {text})", tuple(lead))
            self._cut("m", size, piece, f"(u % {text})" if lead else "u")
        stack.enter_context(self.body.block("for (int64_t m = m0; m < m1; m++)", {name: "m"}))

    # -- elementwise stages: rows of the vector axis

    def _rows(self) -> None:
        axes, weight = self.stage.axes, self._weight(self.expr)
        with ExitStack() as stack:
            if not axes:
                self._unit_loop(stack, 1, 1)
                self._store(self.expr)
                return
            *outer, (name, size) = axes
            length = self.typical(size) * weight
            inner = ex.reductions(self.expr)
            length += sum(self._trips(r) for r in inner)
            if not inner and (length >= 2 * ITEM or not outer):
                piece = max(64, ITEM // weight)
                pieces = ceildiv(size, piece)
                self._unit_loop(stack, product(s for _, s in outer) * pieces, piece * weight)
                text = self._block(pieces)
                if outer:
                    self.body.blocks[-1].flat = Flat(f"(u / {text})", tuple(outer))
                self._cut("j", size, piece, f"(u % {text})" if outer else "u")
                bounds = ("j0", "j1")
            else:
                self._outer_loops(stack, tuple(outer), length)
                bounds = ("0", self._size(size))
            self._segments(self.expr, name, *bounds)

    def _trips(self, r: ex.Reduce) -> int:
        return self.typical(product(s for _, s in r.axes)) * self._weight(r.body)

    def _segments(self, e: ex.Expr, name: str, low: str, high: str) -> None:
        """The loops over `name` from `low` to `high`, conditions on coordinates taken out of them."""
        self.leaves += 1
        found = self._condition(e, name) if self.leaves <= LEAVES else None
        if found is None:
            with self.body.block(f"for (int64_t j = {low}; j < {high}; j++)", {name: "j"}, pragma=IVDEP):
                self._store(e)
            return
        atom, boundary = found
        yes, no = (self.body.intern(replaced(e, {id(atom): ex.Lit(v, atom.dtype)})) for v in (True, False))
        if boundary is None:
            cond = self.body.value(atom)
            self.body.branch(
                cond.text,
                lambda: self._segments(yes, name, low, high),
                lambda: self._segments(no, name, low, high),
            )
            return
        at, below = boundary
        cut = self.body.name("s")
        self.body.line(f"const int64_t {cut} = {at} < {low} ? {low} : {at} > {high} ? {high} : {at};")
        with self.body.block("", guard=True):
            self._segments(yes if below else no, name, low, cut)
        with self.body.block("", guard=True):
            self._segments(no if below else yes, name, cut, high)

    def _condition(self, e: ex.Expr, name: str) -> tuple[ex.Expr, tuple[str, bool] | None] | None:
        """A test that splits the loop over `name`, and the boundary before which it is (true or false)."""
        for node in self._conditions(e):
            assert isinstance(node, ex.Call)
            axes = free_axes(node)
            if name not in axes:
                if self._is_bound(axes) and self.body.safe(node):
                    return node, None
                continue
            x = affine(node.args[0]).plus(affine(node.args[1]).scaled(-1))
            c = x.axes.get(name, 0)
            rest = Affine(x.constant, {k: v for k, v in x.axes.items() if k != name}, x.rest)
            used = {n for r, _ in rest.rest for n in free_axes(r)} | set(rest.axes)
            if c not in (1, -1) or name in used or not self._is_bound(used):
                continue
            if any(not self.body.safe(r) for r, _ in rest.rest):
                continue
            # c j + rest < 0: j < -rest, or j > rest
            fn = node.fn
            if c == 1:
                at = self.body.sum(rest.scaled(-1)).text
                return node, (f"({at} + 1)" if fn in ("le", "gt") else f"({at})", fn in ("lt", "le"))
            at = self.body.sum(rest).text
            return node, (f"({at} + 1)" if fn in ("lt", "ge") else f"({at})", fn in ("gt", "ge"))
        return None

    def _is_bound(self, axes: set[str]) -> bool:
        bound = {n for b in self.body.blocks for n in b.axes}
        bound |= {n for b in self.body.blocks if b.flat is not None for n, _ in b.flat.axes}
        return axes <= bound

    def _conditions(self, e: ex.Expr) -> list[ex.Expr]:
        """Comparisons of coordinates in `e`, those of the outer Selects first."""
        out: list[ex.Expr] = []
        seen: set[int] = set()
        queue = [e]
        while queue:
            node = queue.pop(0)
            if id(node) in seen or isinstance(node, ex.Reduce):
                continue
            seen.add(id(node))
            if isinstance(node, ex.Call) and node.fn in COMPARISONS and node.args[0].dtype == ex.Axis("j").dtype:
                if free_axes(node):
                    out.append(node)
            queue.extend(ex.children(node))
        return out

    # -- transposing stages: square tiles through a buffer

    def _transposed_axis(self) -> str | None:
        """The outer axis that most loads are contiguous along, where they are not along the vector axis."""
        axes = self.stage.axes
        if len(axes) < 2 or self.typical(axes[-1][1]) < 4:
            return None
        votes: dict[str, int] = {}
        for node in ex.walk(self.expr):
            if isinstance(node, ex.Load) and self._is_transposed(node):
                f = affine(node.index[0])
                for name, size in axes[:-1]:
                    if f.axes.get(name) == 1 and self.typical(size) >= 4:
                        votes[name] = votes.get(name, 0) + 1
        return max(votes, key=lambda n: votes[n]) if votes else None

    def _is_transposed(self, node: ex.Load) -> bool:
        f = affine(node.index[0])
        step = f.axes.get(self.stage.axes[-1][0], 0)
        far = not isinstance(step, int) or abs(step) > 4
        return far and not f.rest and self.body.safe(node)

    def _tiles(self, across: str) -> None:
        axes, weight = self.stage.axes, self._weight(self.expr)
        along, length = axes[-1]
        other = tuple(a for a in axes[:-1] if a[0] != across)
        height = dict(axes)[across]
        wide = max(1, min(-(-self.typical(length) // TILE), ITEM // (TILE * TILE * weight))) * TILE
        downs, acrosses = ceildiv(height, TILE), ceildiv(length, wide)
        with ExitStack() as stack:
            cost = min(TILE, self.typical(height)) * min(wide, self.typical(length)) * weight
            self._unit_loop(stack, product(s for _, s in other) * downs * acrosses, cost)
            body = self.body
            down, right = self._block(downs), self._block(acrosses)
            body.blocks[-1].flat = Flat(f"(u / {right} / {down})", other)
            self._cut("a", height, TILE, f"(u / {right} % {down})")
            self._cut("w", length, wide, f"(u % {right})")
            stack.enter_context(body.block(f"for (int64_t j0 = w0; j0 < w1; j0 += {TILE})", {}))
            body.line(f"const int64_t j1 = j0 + {TILE} < w1 ? j0 + {TILE} : w1;")
            loads = [n for n in ex.walk(self.expr) if isinstance(n, ex.Load) and self._is_transposed(n)]
            loads = [n for n in loads if affine(n.index[0]).axes.get(across) == 1]
            for node in loads:
                self._stage_tile(node, across, along)
            stack.enter_context(body.block("for (int64_t a = a0; a < a1; a++)", {across: "a"}))
            with body.block("for (int64_t j = j0; j < j1; j++)", {along: "j"}, pragma=IVDEP):
                self._store(self.expr)

    def _stage_tile(self, node: ex.Load, across: str, along: str) -> None:
        """A buffer [TILE of `across`][TILE of `along`] of what `node` reads."""
        f, body = affine(node.index[0]), self.body
        step = f.axes[along]
        base = Affine(f.constant, {k: v for k, v in f.axes.items() if k not in (across, along)})
        pointer = body.temporaries.get(node.operand) or self.params.pointer(node.operand)
        c = scalar.STORAGE[node.dtype.name]
        buffer = body.name("b")
        fn = f"transpose_{node.dtype.itemsize}"
        body.line(f"{c} {buffer}[{TILE * TILE}];")
        at = body.sum(base).text
        stride = self._size(step)
        body.line(f"{fn}({pointer} + {at} + a0 + j0 * {stride}, {stride}, j1 - j0, a1 - a0, {buffer}, {TILE});")
        self.helpers[fn] = ""
        body.staged[id(node)] = (node, scalar.read(f"{buffer}[(a - a0) * {TILE} + (j - j0)]", node.dtype))

    # -- reductions

    def _across(self, whole: list[ex.Reduce]) -> bool:
        """Whether to vectorise over the last output axis rather than along the reductions."""
        name, size = self.stage.axes[-1]
        outer = inner = 0
        longest = 0
        for r in whole:
            best = self._vector_axis(r)
            longest = max(longest, self.typical(dict(r.axes)[best]))
            for f in self._loads(r.body):
                outer += self._merit(f, name)
                inner += self._merit(f, best)
        if longest < 16 and self.typical(size) >= longest:
            return True
        return outer > inner or (outer == inner and self.typical(size) >= 16)

    def _merit(self, f: Affine, name: str) -> int:
        step = f.axes.get(name, 0)
        if any(name in free_axes(e) for e, _ in f.rest):
            return -1
        return 1 if step == 1 else 0 if step == 0 else -1

    def _vector_axis(self, r: ex.Reduce) -> str:
        """The axis of `r` along which most of its loads are contiguous."""
        loads = self._loads(r.body)
        names = [n for n, _ in r.axes]
        return max(reversed(names), key=lambda n: sum(self._merit(f, n) for f in loads))

    def _elements(self) -> None:
        """Each output for itself, its reductions vectorised along their innermost axis."""
        cost = self._weight(self.expr) + sum(self._trips(r) for r in ex.reductions(self.expr))
        with ExitStack() as stack:
            self._outer_loops(stack, self.stage.axes, cost)
            self._store(self.expr)

    def _reduce_here(self, r: ex.Reduce) -> Value:
        """The value of a reduction in the block where its coordinates are known."""
        body = self.body
        level = body.level(r)
        inside, body.blocks = body.blocks[level + 1 :], body.blocks[: level + 1]
        argument = r.kind.startswith("arg")
        dtype = r.body.dtype if argument else r.acc
        acc, vector = body.name("acc"), self._vector_axis(r)
        body.line(f"{element(dtype)} {acc} = {initial(r.kind, dtype)};")
        if argument:
            body.line(f"int64_t {acc}at = 0;")
        with ExitStack() as stack:
            for name, size in r.axes:
                if name != vector:
                    stack.enter_context(self._loop(name, size))
            size = dict(r.axes)[vector]
            if self.typical(size) < 16 and not argument:
                with self._loop(vector, size):
                    value = body.value(r.body).text
                    body.line(f"{acc} = ({element(dtype)}){combined(r.kind, dtype, acc, value)};")
            else:
                self._reduce_run(r, acc, vector, size)
        body.blocks += inside
        return Value(f"{acc}at" if argument else acc, level)

    def _loop(self, name: str, size: Dim) -> AbstractContextManager[Block]:
        """A loop over a reduction's axis; small bounds are known to the compiler."""
        bound = str(size) if isinstance(size, int) and size <= 16 else self._size(size)
        return self.body.block(f"for (int64_t {name} = 0; {name} < {bound}; {name}++)", {name: name})

    def _reduce_run(self, r: ex.Reduce, acc: str, name: str, size: Dim) -> None:
        """Adds a run along `name` to `acc`: straight from memory, or through a buffer."""
        body = self.body
        argument = r.kind.startswith("arg")
        dtype = r.body.dtype if argument else r.acc
        fn, text = (argument_over_buffer if argument else over_buffer)(r.kind, dtype)
        self.helpers[fn] = text

        def call(pointer: str, n: str, first: str) -> None:
            if argument:
                body.line(f"{fn}({pointer}, {n}, {first}, &{acc}, &{acc}at);")
            else:
                body.line(f"{acc} = ({element(dtype)}){combined(r.kind, dtype, acc, f'{fn}({pointer}, {n})')};")

        pointer = self._plain_run(r.body, name, element(dtype))
        if pointer is not None:
            call(pointer, self._size(size), "0")
            return
        buffer, at = body.name("b"), body.name("k")
        body.line(f"{element(dtype)} {buffer}[{BUFFER}];")
        with body.block(f"for (int64_t {at} = 0; {at} < {self._size(size)}; {at} += {BUFFER})", {}):
            rest = f"{self._size(size)} - {at}"
            body.line(f"const int64_t {at}n = {rest} < {BUFFER} ? {rest} : {BUFFER};")
            with body.block(f"for (int64_t j = 0; j < {at}n; j++)", {name: f"({at} + j)"}, pragma=IVDEP):
                body.line(f"{buffer}[j] = ({element(dtype)}){body.value(r.body).text};")
            call(buffer, f"{at}n", at)

    def _plain_run(self, e: ex.Expr, name: str, c: str) -> str | None:
        """The address of a run that is stored as it is reduced."""
        if not isinstance(e, ex.Load) or scalar.STORAGE[e.dtype.name] != c or e.dtype.kind == "b":
            return None
        if scalar.kind_of(e.dtype) != e.dtype.name:
            return None
        f = affine(e.index[0])
        if f.axes.get(name) != 1 or any(name in free_axes(x) for x, _ in f.rest):
            return None
        at = self.body.sum(Affine(f.constant, {k: v for k, v in f.axes.items() if k != name}, f.rest))
        pointer = self.body.temporaries.get(e.operand) or self.params.pointer(e.operand)
        return f"{pointer} + {at.text}"

    def _accumulate(self) -> None:
        """Blocks of the last output axis, all reductions accumulated in arrays over it."""
        *outer, (name, size) = self.stage.axes
        order = self._inside_out()
        cost = self._weight(self.expr) + sum(self._trips(r) for r in order)
        piece = max(64, min(LANES, ITEM // cost // 64 * 64))
        pieces = ceildiv(size, piece)
        body = self.body
        with ExitStack() as stack:
            self._unit_loop(stack, product(s for _, s in outer) * pieces, cost * min(piece, self.typical(size)))
            text = self._block(pieces)
            if outer:
                body.blocks[-1].flat = Flat(f"(u / {text})", tuple(outer))
            self._cut("j", size, piece, f"(u % {text})" if outer else "u")
            arrays: dict[int, tuple[ex.Reduce, str]] = {}
            for r in order:
                self._accumulate_one(r, name, piece, arrays)
            with body.block("for (int64_t j = 0; j < j1 - j0; j++)", {name: "(j0 + j)"}, pragma=IVDEP):
                self._bind_arrays(arrays)
                self._store(self.expr)

    def _inside_out(self) -> list[ex.Reduce]:
        """Reductions over the whole output, nested ones before those that read them."""
        names = {n for n, _ in self.stage.axes}
        out: list[ex.Reduce] = []
        seen: set[int] = set()

        def visit(e: ex.Expr) -> None:
            if id(e) in seen:
                return
            seen.add(id(e))
            for child in ex.children(e):
                visit(child)
            if isinstance(e, ex.Reduce) and free_axes(e) == names:
                out.append(e)

        visit(self.expr)
        return out

    def _bind_arrays(self, arrays: Mapping[int, tuple[ex.Reduce, str]]) -> None:
        for r, text in arrays.values():
            self.body.bind(r, Value(text, self.body.top))

    def _accumulate_one(self, r: ex.Reduce, name: str, piece: int, arrays: dict[int, tuple[ex.Reduce, str]]) -> None:
        body = self.body
        argument = r.kind.startswith("arg")
        dtype = r.body.dtype if argument else r.acc
        acc, c = body.name("acc"), element(dtype)
        self._start(acc, c, piece, initial(r.kind, dtype), argument)
        *outer, (last, size) = r.axes
        with ExitStack() as stack:
            for axis in outer:
                stack.enter_context(self._loop(*axis))
            if r.kind in ("sum", "prod") and dtype.is_float and self.typical(size) > 2 * RUN:
                self._accumulate_runs(r, name, acc, piece, arrays)
            else:
                stack.enter_context(self._loop(last, size))
                self._accumulate_row(r, name, acc, arrays)
        text = f"{acc}at[j]" if argument else scalar.read(f"{acc}[j]", dtype) if c == "uint8_t" else f"{acc}[j]"
        arrays[id(r)] = (r, text)

    def _start(self, acc: str, c: str, piece: int, value: str, argument: bool = False) -> None:
        """An array of accumulators for the outputs of a block."""
        self.body.line(f"{c} {acc}[{piece}];")
        if argument:
            self.body.line(f"int64_t {acc}at[{piece}];")
        start = f"{acc}[j] = {value};" + (f" {acc}at[j] = 0;" if argument else "")
        self.body.line(f"for (int64_t j = 0; j < j1 - j0; j++) {{ {start} }}")

    def _accumulate_runs(
        self, r: ex.Reduce, name: str, acc: str, piece: int, arrays: Mapping[int, tuple[ex.Reduce, str]]
    ) -> None:
        """A long sum as a sum of short ones, which keeps its rounding errors small."""
        body, c = self.body, element(r.acc)
        last, size = r.axes[-1]
        part, first = body.name("acc"), body.name("k")
        with body.block(f"for (int64_t {first} = 0; {first} < {self._size(size)}; {first} += {RUN})"):
            end = f"{first} + {RUN} < {self._size(size)} ? {first} + {RUN} : {self._size(size)}"
            body.line(f"const int64_t {first}e = {end};")
            self._start(part, c, piece, initial(r.kind, r.acc))
            with body.block(f"for (int64_t {last} = {first}; {last} < {first}e; {last}++)", {last: last}):
                self._accumulate_row(r, name, part, arrays)
            total = combined(r.kind, r.acc, f"{acc}[j]", f"{part}[j]")
            body.line(f"for (int64_t j = 0; j < j1 - j0; j++) {acc}[j] = ({c}){total};")

    def _accumulate_row(
        self, r: ex.Reduce, name: str, acc: str, arrays: Mapping[int, tuple[ex.Reduce, str]]
    ) -> None:
        """One step of all accumulators of a block."""
        body = self.body
        argument = r.kind.startswith("arg")
        dtype = r.body.dtype if argument else r.acc
        c = element(dtype)
        with body.block("for (int64_t j = 0; j < j1 - j0; j++)", {name: "(j0 + j)"}, pragma=IVDEP):
            self._bind_arrays(arrays)
            value = body.value(r.body).text
            if argument:
                body.line(f"const {c} new = {value};")
                body.line(f"const int take = {better(r.kind, dtype, 'new', f'{acc}[j]')};")
                body.line(f"{acc}[j] = take ? new : {acc}[j];")
                body.line(f"{acc}at[j] = take ? {r.axes[0][0]} : {acc}at[j];")
            else:
                body.line(f"{acc}[j] = ({c}){combined(r.kind, dtype, f'{acc}[j]', value)};")
