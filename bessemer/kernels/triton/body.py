"""Scalar expressions as Triton statements over tiles of coordinates.

The output's axes (and those of reductions) are dealt out to *groups*: each group is one flattened coordinate, an index
tensor of the kernel ("rows" [BM, 1], "cols" [1, BN], ...), from which its axes follow by division. A value knows the
groups that it depends on, so what depends on columns alone stays a [1, BN] tile, and runs of axes that an operand
holds in the same order are addressed by one coordinate without any division.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem
from bessemer.kernels.bounds import I32_MAX, Intervals
from bessemer.kernels.triton import scalar
from bessemer.kernels.triton.params import Group, Params, Value
from bessemer.kernels.triton.statements import Statements

DIVISIONS = ("div", "floordiv", "fmod", "floormod")
OVERHANG = 1 << 16  # how far the last tile may reach beyond the end: its coordinates must not wrap either


class Body(Statements):
    """Writes the statements of one kernel.

    Coordinates of the groups named in `masked` may lie beyond their end; `mask` is a test for all groups at once."""

    def __init__(
        self, problem: Problem, params: Params, groups: Sequence[Group], masked: Collection[str], mask: str = ""
    ) -> None:
        super().__init__()
        self.problem, self.params, self.masked, self.mask = problem, params, frozenset(masked), mask
        self.groups: dict[str, Group] = {}
        self.wide: set[str] = set()  # groups whose coordinate is an i64 tensor
        self.home: dict[str, Group] = {}
        self.intervals = Intervals(problem)
        for group in groups:
            self.add_group(group)
        self.helpers: dict[str, None] = {}
        self.results: dict[int, tuple[ex.Expr, Value]] = {}  # reductions and the accumulator, given by the caller
        self._safe: dict[int, tuple[ex.Expr, bool]] = {}

    def add_group(self, group: Group) -> None:
        """Make the axes of `group` known."""
        self.intervals.extents.update(group.axes)
        kept = replace(group, axes=tuple(a for a in group.axes if a[1] != 1))
        self.groups[group.var] = kept
        self.home.update((name, kept) for name, _ in kept.axes)
        if not self.intervals.fits32((0, kept.numel + OVERHANG)):
            self.wide.add(group.var)

    # expressions

    def value(self, e: ex.Expr, guards: tuple[Value, ...] = ()) -> Value:
        """`e` at the coordinates of the groups. `guards` are the conditions under which `e` is taken."""
        if guards and self.safe(e):
            guards = ()
        key = (id(e), guards)
        found = self.known(key)
        return found if found is not None else self.remember(key, self._value(e, guards))

    def _value(self, e: ex.Expr, guards: tuple[Value, ...]) -> Value:
        match e:
            case ex.Lit(value=number, dtype=dtype):
                if dtype == dt.i64 and abs(int(number)) <= I32_MAX:
                    return Value(str(int(number)), "i32")
                kind = scalar.kind_of(dtype)
                return Value(scalar.literal(number, kind), kind)
            case ex.Size(dim=d):
                return self.params.size(d)
            case ex.Axis(name=name):
                return self.run((name,))
            case ex.Acc() | ex.Reduce():
                found = self.results.get(id(e))
                return found[1] if found is not None else self.reduced(e, guards)
            case ex.Load():
                return self._load(e, guards)
            case ex.Cast():
                return self._cast(e, guards)
            case ex.Select():
                return self._select(e, guards)
            case ex.Call():
                return self._call(e, guards)
        raise TypeError(f"not an expression: {e!r}")

    def _cast(self, e: ex.Cast, guards: tuple[Value, ...]) -> Value:
        value = self.value(e.arg, guards)
        if e.dtype in (dt.f16, dt.bf16) and e.arg.dtype != e.dtype:
            value = self.as_kind(value, "f32") if value.kind != "f64" else value
            if e.arg.dtype.bits > 16 or e.arg.dtype.is_float:
                rounded = scalar.converted(value.text, value.kind, e.dtype.name)
                return self.let(f"{rounded}.to(tl.float32)", "f32", value.deps)
        kind = scalar.kind_of(e.dtype)
        return value if kind == "i64" and value.kind == "i32" else self.as_kind(value, kind)

    def _select(self, e: ex.Select, guards: tuple[Value, ...]) -> Value:
        cond = self.value(e.cond, guards)
        other = guards if self.safe(e.b) else (*guards, self.let(f"({cond.text} == 0)", "i1", cond.deps))
        a, b = self.value(e.a, (*guards, cond)), self.value(e.b, other)
        kind = a.kind if a.kind == b.kind else "i64"
        a, b = self.typed(self.as_kind(a, kind)), self.typed(self.as_kind(b, kind))
        return self.let(f"tl.where({cond.text}, {a.text}, {b.text})", kind, cond.deps | a.deps | b.deps)

    def reduced(self, e: ex.Expr, guards: tuple[Value, ...]) -> Value:
        """A reduction that was not computed before; writers of reductions override this."""
        raise ValueError(f"a value that the kernel does not have: {exprtree.text(e)}")

    def _call(self, e: ex.Call, guards: tuple[Value, ...]) -> Value:
        args = [self.value(a, guards) for a in e.args]
        kind = args[0].kind
        if e.args[0].dtype == dt.i64:
            narrow = e.fn not in ("pow", "shl", "shr", "bitnot", "popcount") and all(a.kind == "i32" for a in args)
            narrow = narrow and (e.dtype != dt.i64 or self.intervals.fits32(self.intervals.of(e)))
            kind = "i32" if narrow else "i64"
            args = [self.as_kind(a, kind) for a in args]
        if all(not a.deps and a.text.lstrip("-").isdigit() for a in args):
            args = [self.typed(args[0]), *args[1:]]
        call = e
        positive = e.fn in DIVISIONS and e.args[0].dtype == dt.i64 and self.intervals.positive(e.args[1])
        if positive and e.fn in ("floordiv", "floormod") and self.intervals.nonnegative(e.args[0]):
            call = ex.Call("div" if e.fn == "floordiv" else "fmod", e.args, e.dtype)
        text = scalar.call(call, kind, [a.text for a in args], positive)
        for helper in text.helpers:
            self.helpers[helper] = None
        return self.let(text.text, text.kind, frozenset().union(*(a.deps for a in args)))

    # coordinates

    def coordinate(self, group: Group) -> Value:
        """A group's own variable."""
        deps = frozenset() if group.along is None else frozenset((group.var,))
        return Value(group.var, "i64" if group.var in self.wide else "i32", deps)

    def run(self, names: tuple[str, ...]) -> Value:
        """Consecutive axes of one group as one coordinate, row-major."""
        if not names or names[0] not in self.home:
            return Value("0", "i32")
        group = self.home[names[0]]
        order = [name for name, _ in group.axes]
        first = order.index(names[0])
        last = first + len(names)
        out = self.coordinate(group)
        after, span = product(s for _, s in group.axes[last:]), product(s for _, s in group.axes[first:last])
        if after != 1:
            out = self.let(f"{out.text} // {self._size_as(after, out.kind)}", out.kind, out.deps)
        if first:
            out = self.let(f"{out.text} % {self._size_as(span, out.kind)}", out.kind, out.deps)
        return self.as_kind(out, "i32") if self.intervals.fits32((0, span - 1)) else out

    def _size_as(self, d: Dim, kind: str) -> str:
        return self.as_kind(self.params.size(d), kind).text

    # memory

    def _load(self, e: ex.Load, guards: tuple[Value, ...]) -> Value:
        t = self.problem.operands[e.operand].type
        offset = self.offset(t.shape, e.index, guards)
        tested = [*guards, *self._checks(t.shape, e.index, guards)]
        conds = [c.text for c in tested]
        deps = offset.deps.union(*(c.deps for c in tested))
        tests = [*self.tests(deps), *conds]
        text = f"{self.params.operand(e.operand)} + {offset.text}"
        if deps != offset.deps:  # the addresses must be as wide as their mask
            text = f"{self.params.operand(e.operand)} + tl.where({' & '.join(conds)}, {offset.text}, 0)"
        self.touch(e.operand)
        load = f"tl.load({text}, mask={' & '.join(tests)}, other=0)" if tests else f"tl.load({text})"
        kind = scalar.kind_of(t.dtype)
        if t.dtype in (dt.f16, dt.bf16):
            load += ".to(tl.float32)"
        elif t.dtype == dt.bool_:
            load = f"({load} != 0)"
        return self.let(load, kind, deps)

    def touch(self, number: int) -> None:
        """Called ahead of every load of an operand and every store of an output, with its number."""

    def tests(self, deps: frozenset[str]) -> list[str]:
        """The bounds tests of what depends on the groups `deps`."""
        if self.mask and deps == frozenset(v for v, g in self.groups.items() if g.axes):
            return [self.mask]
        out = []
        for var in sorted(deps & self.masked):
            extent = self._size_as(self.groups[var].numel, "i64" if var in self.wide else "i32")
            out.append(self.let(f"{var} < {extent}", "i1", frozenset((var,))).text)
        return out

    def _checks(self, shape: Sequence[Dim], index: Sequence[ex.Expr], guards: tuple[Value, ...]) -> list[Value]:
        """Bounds tests of the components of an index that neither their interval nor a guard proves inside."""
        out = []
        for e, size in zip(index, shape, strict=True):
            data = any(isinstance(n, ex.Load) for n in exprtree.walk(e))
            if self.intervals.inside(e, size) or (guards and not data):
                continue
            value = self.value(e, guards)
            extent = self._size_as(size, value.kind)
            out.append(self.let(f"({value.text} >= 0) & ({value.text} < {extent})", "i1", value.deps))
        return out

    def safe(self, e: ex.Expr) -> bool:
        """Whether no load of `e` can leave its operand, so that `e` may be computed where it is not taken."""
        found = self._safe.get(id(e))
        if found is None:
            inside = not isinstance(e, ex.Load) or all(
                self.intervals.inside(i, size)
                for i, size in zip(e.index, self.problem.operands[e.operand].type.shape, strict=True)
            )
            descend = () if isinstance(e, ex.Reduce) else exprtree.children(e)
            found = (e, inside and all(self.safe(c) for c in descend))
            self._safe[id(e)] = found
        return found[1]

    def offset(self, shape: Sequence[Dim], index: Sequence[ex.Expr], guards: tuple[Value, ...] = ()) -> Value:
        """The element offset of `index` in a row-major tensor: a sum of coordinates times strides, least tiles first.

        In 64 bits where the tensor may have 2^31 elements or more."""
        wide = not self.intervals.fits32((0, product(shape)))
        terms = []
        position = 0
        while position < len(index):
            names = self._run_at(shape, index, position)
            if names:
                value = self.run(names)
                position += len(names)
            else:
                value = self.value(index[position], guards)
                position += 1
            terms.append((value, product(shape[position:])))
        terms = [(v, stride) for v, stride in terms if v.text != "0"]
        terms.sort(key=lambda t: (len(t[0].deps), sorted(t[0].deps)))
        kind = "i64" if wide else "i32"
        total = Value("0", kind)
        for value, stride in terms:
            value = self.as_kind(value, kind)
            if stride != 1:
                value = self.let(f"{value.text} * {self._size_as(stride, kind)}", kind, value.deps)
            both = total.deps | value.deps
            total = value if total.text == "0" else self.let(f"{total.text} + {value.text}", kind, both)
        return total

    def _run_at(self, shape: Sequence[Dim], index: Sequence[ex.Expr], position: int) -> tuple[str, ...]:
        """The longest run of one group's consecutive axes that the index holds from `position` on."""
        names: list[str] = []
        for k in range(position, len(index)):
            e = index[k]
            if not isinstance(e, ex.Axis) or e.name not in self.home:
                break
            group = self.home[e.name]
            order = [name for name, _ in group.axes]
            if names:
                follows = self.home[names[-1]] is group and order.index(e.name) == order.index(names[-1]) + 1
                if not follows or dict(group.axes)[e.name] != shape[k]:
                    break
            names.append(e.name)
        return tuple(names)

    def place(self) -> Value:
        """The element offset of output 0's element in what it is written to."""
        out, into = self.problem.outputs[0], self.problem.into
        offset = self.offset(self.problem.written[0].shape, ex.out_axes(out.rank))
        if into is None or into.start == 0:
            return offset
        return self.let(f"{offset.text} + {self._size_as(into.start, offset.kind)}", offset.kind, offset.deps)

    def store(self, number: int, dtype: DType, offset: Value, value: Value, mask: str) -> None:
        """Store `value` as output `number` (counted after the operands)."""
        target = "bool" if dtype == dt.bool_ else dtype.name
        stored = self.typed(value)
        text = scalar.converted(stored.text, stored.kind, target) if stored.kind != target else stored.text
        suffix = f", mask={mask}" if mask else ""
        self.touch(number)
        self.line(f"tl.store({self.params.operand(number)} + {offset.text}, {text}{suffix})")
