"""Scalar expressions as C statements in nested blocks.

A block is a loop's body or a branch. Each value is computed in the outermost block that has all it depends on, once: so
what is invariant in a loop stands before it. A load that may leave its operand stays inside the branch that guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Problem
from bessemer.kernels.bounds import Intervals
from bessemer.kernels.c import scalar
from bessemer.kernels.c.affine import Affine, affine, offset
from bessemer.kernels.c.blocks import Block, Flat, Value
from bessemer.kernels.c.intern import Interner
from bessemer.kernels.c.params import Params


class Body:
    """Writes statements into nested blocks. Expressions must be interned by `intern`, or equal ones are repeated.

    `types` gives the types of operands where they are not the problem's own: flat ones, and those of temporaries."""

    def __init__(
        self, problem: Problem, params: Params, extents: Mapping[str, Dim],
        types: Callable[[int], TensorType] | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.params = problem, params
        self.type_of = types or (lambda operand: problem.operands[operand].type)
        self.intern = Interner()
        self.intervals = Intervals(problem)
        self.intervals.extents.update(extents)
        self.blocks: list[Block] = [Block()]
        self.reduce: Callable[[ex.Reduce], Value] | None = None
        self.staged: dict[int, tuple[ex.Expr, str]] = {}  # loads whose elements are read from elsewhere
        self.temporaries: dict[int, str] = {}  # the pointers of operands in the workspace
        self._safe: dict[int, tuple[ex.Expr, bool]] = {}
        self._count = 0

    # blocks

    @property
    def top(self) -> int:
        return len(self.blocks) - 1

    def line(self, text: str) -> None:
        """A statement in the innermost block."""
        self.blocks[-1].lines.append(text)

    @contextmanager
    def block(
        self, head: str, axes: Mapping[str, str] | None = None, *, guard: bool = False, flat: Flat | None = None,
        pragma: str = "",
    ) -> Iterator[Block]:  # fmt: skip
        """A nested block `head { ... }` that binds `axes`; what moves out of it stands before it."""
        inner = Block(dict(axes or {}), guard, flat)
        self.blocks.append(inner)
        yield inner
        self.blocks.pop()
        lines = [f"{head} {{", *(f"    {line}" for line in inner.lines), "}"]
        self.blocks[-1].lines += [pragma, *lines] if pragma else lines

    def branch(self, condition: str, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Two guarded blocks; what moves out of either stands before both."""
        lines = []
        for head, write in ((f"if ({condition}) {{", then), ("} else {", otherwise)):
            self.blocks.append(Block(guard=True))
            write()
            lines += [head, *(f"    {line}" for line in self.blocks.pop().lines)]
        self.blocks[-1].lines += [*lines, "}"]

    def name(self, prefix: str = "t") -> str:
        """A new C name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def let(self, text: str, c: str, level: int) -> Value:
        """`text` as a variable of block `level`; equal texts are computed once."""
        for block in self.blocks[: level + 1]:
            if text in block.texts:
                return Value(block.texts[text], level)
        name = self.name()
        self.blocks[level].lines.append(f"const {c} {name} = {text};")
        self.blocks[level].texts[text] = name
        return Value(name, level)

    # expressions

    def bind(self, e: ex.Expr, value: Value) -> None:
        """From now on, and inside block `value.level`, `e` is `value`."""
        self.blocks[value.level].values[id(e)] = (e, value)

    def value(self, e: ex.Expr) -> Value:
        """`e` at the coordinates that the blocks bind, in the type that its dtype is computed in."""
        for block in self.blocks:
            if id(e) in block.values:
                return block.values[id(e)][1]
        value = self._value(e)
        self.bind(e, value)
        return value

    def level(self, e: ex.Expr) -> int:
        """The block that `value(e)` would be computed in."""
        for block in self.blocks:
            if id(e) in block.values:
                return block.values[id(e)][1].level
        if isinstance(e, ex.Axis):
            return self._axis_level(e.name)
        if isinstance(e, ex.Acc):
            return self.top
        own = self._guard_level() if isinstance(e, ex.Load) and not self.safe(e) else 0
        if id(e) in self.staged:
            own = self.top
        return max([own, *(self.level(c) for c in exprtree.children(e))])

    def _axis_level(self, name: str) -> int:
        for k in range(self.top, -1, -1):
            block = self.blocks[k]
            if name in block.axes or (block.flat is not None and any(n == name for n, _ in block.flat.axes)):
                return k
        return 0  # a variable of a reduction inside `e`

    def _guard_level(self) -> int:
        return max((k for k, b in enumerate(self.blocks) if b.guard), default=0)

    def _value(self, e: ex.Expr) -> Value:
        match e:
            case ex.Lit(value=number, dtype=dtype):
                return Value(scalar.literal(number, scalar.kind_of(dtype)), 0)
            case ex.Size(dim=d):
                return Value(self.params.size(d), 0)
            case ex.Axis(name=name):
                return self.axis(name)
            case ex.Load():
                return self._load(e)
            case ex.Cast(arg=arg):
                value, kind = self.value(arg), scalar.kind_of(arg.dtype)
                narrow = e.dtype in (dt.f16, dt.bf16)
                convert = scalar.rounded(value.text, kind, e.dtype) if narrow else ""
                text = convert or scalar.converted(value.text, kind, scalar.kind_of(e.dtype))
                return self._let(text, e.dtype, value.level)
            case ex.Select():
                return self._select(e)
            case ex.Call():
                if e.dtype == dt.i64 and e.fn in ("add", "sub", "mul", "neg") and _is_coordinate(e):
                    found = affine(e)
                    if all(part is not e for part, _ in found.rest):
                        return self.sum(found)
                values = [self.value(a) for a in e.args]
                text = scalar.call(self._plain(e), [v.text for v in values])
                return self._let(text, e.dtype, max(v.level for v in values))
            case ex.Reduce() if self.reduce is not None:
                return self.reduce(e)
        raise TypeError(f"{exprtree.text(e)} has no value here")

    def _let(self, text: str, dtype: DType, level: int) -> Value:
        return self.let(text, scalar.VALUE[scalar.kind_of(dtype)], level)

    def _plain(self, e: ex.Call) -> ex.Call:
        """Floor division of what is known to be positive, as C's own."""
        if e.fn in ("floordiv", "floormod") and e.args[0].dtype == dt.i64 and self.intervals.nonnegative(e.args[0]):
            return ex.Call("div" if e.fn == "floordiv" else "fmod", e.args, e.dtype)
        return e

    def _select(self, e: ex.Select) -> Value:
        if self.safe(e.a) and self.safe(e.b):
            cond, a, b = (self.value(x) for x in (e.cond, e.a, e.b))
            return self._let(f"({cond.text} ? {a.text} : {b.text})", e.dtype, max(cond.level, a.level, b.level))
        level = max(self.level(e), self._guard_level())
        cond = self.value(e.cond)
        inside, self.blocks = self.blocks[level + 1 :], self.blocks[: level + 1]
        name = self.name()
        self.line(f"{scalar.VALUE[scalar.kind_of(e.dtype)]} {name};")
        self.branch(
            cond.text,
            lambda: self.line(f"{name} = {self.value(e.a).text};"),
            lambda: self.line(f"{name} = {self.value(e.b).text};"),
        )
        self.blocks += inside
        return Value(name, level)

    # coordinates

    def axis(self, name: str) -> Value:
        """A loop variable; one that is flattened into another follows by division."""
        for k in range(self.top, -1, -1):
            block = self.blocks[k]
            if name in block.axes:
                return Value(block.axes[name], k)
            if block.flat is not None and any(n == name for n, _ in block.flat.axes):
                return self._unflatten(block.flat, name, k)
        raise TypeError(f"no loop binds {name}")

    def _unflatten(self, flat: Flat, name: str, level: int) -> Value:
        names = [n for n, _ in flat.axes]
        at = names.index(name)
        after, size = product(s for _, s in flat.axes[at + 1 :]), flat.axes[at][1]
        if size == 1:
            return Value("0", 0)
        text = flat.var if after == 1 else f"{flat.var} / {self.divisor(after)}"
        if at and any(s != 1 for _, s in flat.axes[:at]):
            text = f"{text} % {self.divisor(size)}"
        return self.let(text, "int64_t", level)

    def divisor(self, d: Dim) -> str:
        """The text of what a flattened variable is divided by."""
        return self.params.size(d)

    def sum(self, a: Affine) -> Value:
        """The sum, what is invariant in each block added up before it."""
        terms: dict[int, list[str]] = {}
        axes = dict(a.axes)
        for level, block in enumerate(self.blocks):
            if block.flat is not None:
                coefficient = _flat_coefficient(block.flat, axes)
                if coefficient is not None:
                    axes = {k: v for k, v in axes.items() if k not in {n for n, _ in block.flat.axes}}
                    terms.setdefault(level, []).append(self._term(block.flat.var, coefficient))
        for name, coefficient in axes.items():
            value = self.axis(name)
            if value.text != "0":
                terms.setdefault(value.level, []).append(self._term(value.text, coefficient))
        for e, coefficient in a.rest:
            value = self.value(e)
            terms.setdefault(value.level, []).append(self._term(value.text, coefficient))
        if a.constant != 0:
            terms.setdefault(0, []).append(self.params.size(a.constant))
        total = Value("0", 0)
        for level in sorted(terms):
            parts = terms[level] if total.text == "0" else [total.text, *terms[level]]
            text = " + ".join(parts)
            total = Value(text, level) if len(parts) == 1 else self.let(text, "int64_t", level)
        return total

    def _term(self, text: str, coefficient: Dim) -> str:
        return text if coefficient == 1 else f"{text} * {self.params.size(coefficient)}"

    # memory

    def _load(self, e: ex.Load) -> Value:
        if id(e) in self.staged:
            return self._let(self.staged[id(e)][1], e.dtype, self.top)
        at = self.sum(offset(self.type_of(e.operand).shape, e.index))
        pointer = self.temporaries.get(e.operand) or self.params.pointer(e.operand)
        level = at.level if self.safe(e) else max(at.level, self._guard_level())
        tests = [f"(uint64_t){self.value(i).text} < (uint64_t){self.params.size(d)}" for i, d in self._unproven(e)]
        element = f"({' && '.join(tests)} ? {pointer}[{at.text}] : 0)" if tests else f"{pointer}[{at.text}]"
        return self._let(scalar.read(element, e.dtype), e.dtype, level)

    def _unproven(self, e: ex.Load) -> list[tuple[ex.Expr, Dim]]:
        """The components of an index that are data and may lie outside their axis, where zero is read."""
        shape = self.type_of(e.operand).shape
        return [
            (i, d) for i, d in zip(e.index, shape, strict=True)
            if any(isinstance(n, ex.Load) for n in exprtree.walk(i)) and not self.intervals.inside(i, d)
        ]  # fmt: skip

    def safe(self, e: ex.Expr) -> bool:
        """Whether no load of `e` can leave its operand, so that `e` may be computed where it is not taken."""
        found = self._safe.get(id(e))
        if found is None:
            inside = not isinstance(e, ex.Load) or all(
                self.intervals.inside(i, size) for i, size in zip(e.index, self.type_of(e.operand).shape, strict=True)
            )
            found = (e, inside and all(self.safe(c) for c in exprtree.children(e)))
            self._safe[id(e)] = found
        return found[1]

    def store_at(self, target: str, dtype: DType, value: ex.Expr) -> None:
        """Store `value` in the element `target`."""
        text = scalar.stored(self.value(value).text, scalar.kind_of(value.dtype), dtype)
        self.line(f"{target} = {text};")


def _is_coordinate(e: ex.Expr) -> bool:
    """Whether `e` depends on loop variables and sizes alone, so that it cannot overflow."""
    return all(isinstance(n, (ex.Lit, ex.Size, ex.Axis, ex.Call)) for n in exprtree.walk(e))


def _flat_coefficient(flat: Flat, axes: Mapping[str, Dim]) -> Dim | None:
    """c where the axes of `flat` add up to c times its variable; None where they do not (or are not there)."""
    names = [(n, s) for n, s in flat.axes if s != 1]
    if not names or all(n not in axes for n, _ in names):
        return None
    c = axes.get(names[-1][0], 0)
    after: Dim = 1
    for name, size in reversed(names):
        if axes.get(name, 0) != c * after:
            return None
        after = after * size
    return c
