"""Reductions as Triton statements: how each kind starts, accumulates tile by tile, and ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.triton import scalar
from bessemer.kernels.triton.body import Body
from bessemer.kernels.triton.params import Group, Value

UNROLL = 32  # loops of at most this many turns are unrolled


def bound(dtype: DType, least: bool) -> bool | int | float:
    """The least or greatest value of `dtype`."""
    if dtype.is_float:
        return float("-inf") if least else float("inf")
    if dtype == dt.bool_:
        return not least
    if dtype.kind == "u":
        return 0 if least else 2**dtype.bits - 1
    return -(1 << dtype.bits - 1) if least else (1 << dtype.bits - 1) - 1


def identity(e: ex.Reduce) -> bool | int | float:
    """What a reduction of nothing gives."""
    match e.kind:
        case "max":
            return bound(e.acc, least=True)
        case "min":
            return bound(e.acc, least=False)
    return 1 if e.kind in ("prod", "all") else 0


@dataclass
class Accumulator:
    """One reduction on its way: variables `name` (and `name_at`, the coordinate, for argmax and argmin)."""

    e: ex.Reduce
    name: str
    kind: str
    deps: frozenset[str]
    first: int = 0

    @property
    def arg(self) -> bool:
        return self.e.kind.startswith("arg")


def kind_of(e: ex.Reduce) -> str:
    """The kind that a reduction accumulates in: bool as i32, argmax in the kind of its body."""
    if e.kind in ("any", "all"):
        return "i32"
    kind = scalar.kind_of(e.body.dtype if e.kind.startswith("arg") else e.acc)
    return "i32" if kind == "i1" else kind


class Reducer(Body):
    """A Body of a whole kernel, with reductions: as loops over scalars where they are met, or along a tile's dimension.

    The kernel waits for those ahead of it before it first touches what is not constant, outside of all loops."""

    _outermost: int | None = None  # the line of the block that is being written
    _waits = False

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        outermost = self.indent == 1
        if outermost:
            self._outermost = len(self.lines)
        with super().block(head):
            yield
        if outermost:
            self._outermost = None

    def touch(self, number: int) -> None:
        operands = self.problem.operands
        if self._waits or (number < len(operands) and operands[number].constant):
            return
        self._waits = True
        self.lines.insert(len(self.lines) if self._outermost is None else self._outermost, "    wait(PDL)")

    def shape(self, deps: frozenset[str]) -> str:
        """The shape of a tile that depends on the groups `deps`."""
        rank = 1 + max((g.along for g in self.groups.values() if g.along is not None), default=-1)
        sizes = ["1"] * rank
        for var in deps:
            group = self.groups[var]
            assert group.along is not None
            sizes[group.along] = group.size
        return f"({', '.join(sizes)},)" if deps else "()"

    def start(self, e: ex.Reduce, name: str, deps: frozenset[str]) -> Accumulator:
        """Give the accumulator of `e` its first value."""
        acc = Accumulator(e, name, kind_of(e), deps)
        if acc.arg:
            source = e.body.dtype if e.body.dtype != dt.bool_ else dt.i32
            value = bound(source, least=e.kind.startswith("argmax"))
            acc.first = -1 if e.kind.endswith("_last") else 2**31 - 1
            self.line(f"{name}_at = {self.full(deps, acc.first, 'i32')}")
        else:
            value = identity(e)
        self.line(f"{name} = {self.full(deps, value, acc.kind)}")
        return acc

    def full(self, deps: frozenset[str], value: bool | int | float, kind: str) -> str:
        """A tile of one value."""
        return scalar.literal(value, kind).replace("tl.full(()", f"tl.full({self.shape(deps)}", 1)

    def update(self, acc: Accumulator, value: Value, test: str) -> None:
        """Take `value` in where `test` holds (always, if empty)."""
        value = self.typed(self.as_kind(value, acc.kind))
        e, name = acc.e, acc.name
        if acc.arg:
            self._update_arg(acc, value.text, test)
            return
        text = value.text
        if test:
            text = f"tl.where({test}, {text}, {scalar.literal(identity(e), acc.kind)})"
        self.line(f"{name} = {combined(e.kind, acc.kind, name, text)}")

    def _update_arg(self, acc: Accumulator, text: str, test: str) -> None:
        at = self.value(ex.Axis(acc.e.axes[0][0])).text
        name, last = acc.name, acc.e.kind.endswith("_last")
        sign = ">" if acc.e.kind.startswith("argmax") else "<"
        better = f"({text} {sign}{'=' if last else ''} {name})"
        if acc.kind[0] == "f":  # NaN wins
            better += f" | ({text} != {text})" if last else f" | (({text} != {text}) & ({name} == {name}))"
        better = f"({better} | ({name}_at == {acc.first}))" + (f" & {test}" if test else "")
        took = f"{name}_took"
        self.line(f"{took} = {better}")
        self.line(f"{name}_at = tl.where({took}, {at}, {name}_at)")
        self.line(f"{name} = tl.where({took}, {text}, {name})")

    def finish(self, acc: Accumulator, along: int | None) -> Value:
        """The result; the accumulator's tile is reduced along a dimension first, if one is given."""
        e, name = acc.e, acc.name
        deps = acc.deps if along is None else frozenset(v for v in acc.deps if self.groups[v].along != along)
        if acc.arg:
            value = self._finish_arg(acc, along, deps)
        elif along is None:
            value = Value(name, acc.kind, deps)
        else:
            value = self.let(self._along(e.kind, acc.kind, name, along), acc.kind, deps)
        if e.kind in ("any", "all") or e.acc == dt.bool_ and not acc.arg:
            value = self.as_kind(value, "i1")
        return value

    def _along(self, kind: str, of: str, name: str, along: int) -> str:
        if kind == "sum":
            text = f"tl.sum({name}, axis={along}, keep_dims=True)"
        elif of[0] != "f" and kind != "prod":
            text = f"tl.{'max' if kind in ('max', 'any') else 'min'}({name}, axis={along}, keep_dims=True)"
        else:
            function = {"prod": "multiply", "max": "maximum", "min": "minimum"}[kind]
            self.helpers[function] = None
            text = f"tl.reduce({name}, {along}, {function}, keep_dims=True)"
        return f"{text}.to({scalar.TL[of]})"  # narrow integers are summed in 32 bits

    def _finish_arg(self, acc: Accumulator, along: int | None, deps: frozenset[str]) -> Value:
        name, last = acc.name, acc.e.kind.endswith("_last")
        if along is None:
            return Value(f"{name}_at", "i32", deps)
        best = self.let(self._along("max" if "max" in acc.e.kind else "min", acc.kind, name, along), acc.kind, deps)
        same = f"({name} == {best.text})"
        if acc.kind[0] == "f":
            same = f"({same} | (({name} != {name}) & ({best.text} != {best.text})))"
        chosen = f"tl.where({same}, {name}_at, {acc.first})"
        return self.let(f"tl.{'max' if last else 'min'}({chosen}, axis={along}, keep_dims=True)", "i32", deps)

    def reduced(self, e: ex.Expr, guards: tuple[Value, ...]) -> Value:
        """A reduction as nested loops over scalar coordinates, all elements of the tile side by side."""
        assert isinstance(e, ex.Reduce)
        deps = self.dependencies(e, guards)
        name = f"acc{self.number()}"
        acc = self.start(e, name, deps)
        self._loops(acc, list(e.axes), guards)
        return self.finish(acc, None)

    def _loops(self, acc: Accumulator, axes: Sequence[tuple[str, object]], guards: tuple[Value, ...]) -> None:
        if not axes:
            self.update(acc, self.value(acc.e.body, guards), "")
            return
        (axis, _), *rest = axes
        extent = dict(acc.e.axes)[axis]
        if extent == 1:
            self.intervals.extents[axis] = 1
            self._loops(acc, rest, guards)
            return
        turns = product(size for _, size in acc.e.axes)
        unrolled = isinstance(turns, int) and turns <= UNROLL
        var = f"at{self.number()}"
        self.add_group(Group(var, ((axis, extent),)))
        loop = "tl.static_range" if unrolled else "range"
        with self.block(f"for {var}_ in {loop}({self.params.size(extent).text}):"):
            zero = scalar.literal(0, "i64" if var in self.wide else "i32")
            self.line(f"{var} = {zero} + {var}_")
            self._loops(acc, rest, guards)

    def dependencies(self, e: ex.Reduce, guards: tuple[Value, ...]) -> frozenset[str]:
        """The groups that a reduction depends on, through axes, results known so far and guards."""
        out: set[str] = set()
        for guard in guards:
            out |= guard.deps
        stack: list[ex.Expr] = [e.body]
        while stack:
            node = stack.pop()
            if id(node) in self.results:
                out |= self.results[id(node)][1].deps
            elif isinstance(node, ex.Axis) and node.name in self.home:
                group = self.home[node.name]
                out |= {group.var} if group.along is not None else set()
            else:
                stack.extend(exprtree.children(node))
        return frozenset(out)


def combined(kind: str, of: str, a: str, b: str) -> str:
    """One step of a reduction."""
    match kind:
        case "sum":
            return f"{a} + {b}"
        case "prod":
            return f"{a} * {b}"
    function = "tl.maximum" if kind in ("max", "any") else "tl.minimum"
    return f"{function}({a}, {b}{', propagate_nan=tl.PropagateNan.ALL' if of[0] == 'f' else ''})"
