"""What the writers of a stage's loops share: its body, its sizes, and how its work is cut into items."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import WORKSPACE, Problem
from bessemer.kernels.c import scalar
from bessemer.kernels.c.affine import Affine, affine
from bessemer.kernels.c.blocks import Block, Flat
from bessemer.kernels.c.body import Body
from bessemer.kernels.c.params import Params
from bessemer.kernels.c.stages import Axes, Stage, Temporary

ITEM = 16384  # elements of cheap work that outweigh the cost of starting a work item
HEAVY = frozenset(
    "exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sigmoid pow atan2 fmod "
    "floormod".split()
)


class Writer:
    """One stage on its way to C. `units` of work are what a launch counts, `group` of them to an item."""

    def __init__(self, problem: Problem, stage: Stage, temporaries: Sequence[Temporary]) -> None:
        self.problem, self.stage = problem, stage
        self.known = {t.number: t for t in temporaries}
        self.params = Params(problem)
        extents = {n: s for n, s in stage.axes} | {n: s for r in exprtree.reductions(stage.expr) for n, s in r.axes}
        self.body = Body(problem, self.params, extents, self._flat_type)
        self.expr = self.body.intern(stage.expr)
        self.helpers: dict[str, str] = {}
        self.units: Dim = 1
        self.group: Dim = 1  # units of a work item
        self.leaves = 0

    def _flat_type(self, operand: int) -> TensorType:
        t = self.known[operand].type if operand in self.known else self.problem.operands[operand].type
        return TensorType(t.dtype, (t.numel,))

    def typical(self, d: Dim) -> int:
        """`d` at the profile's opt shape, at least 1."""
        return max(1, self.problem.typical(d))

    def weight(self, e: ex.Expr) -> int:
        """The cost of one evaluation, in elements of cheap work."""
        return 1 + sum(3 for n in exprtree.walk(e) if isinstance(n, ex.Call) and n.fn in HEAVY and n.dtype.is_float)

    def trips(self, r: ex.Reduce) -> int:
        """The cost of a reduction, in elements of cheap work."""
        return self.typical(product(s for _, s in r.axes)) * self.weight(r.body)

    def loads(self, e: ex.Expr) -> list[Affine]:
        """The offsets of all loads of `e`."""
        return [affine(n.index[0]) for n in exprtree.walk(e) if isinstance(n, ex.Load)]

    def bind_temporaries(self) -> None:
        """Locals for the tensors in the workspace that the stage reads or writes."""
        used = set(exprtree.operands(self.expr)) | ({self.stage.target.number} if self.stage.target else set())
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

    def store(self, e: ex.Expr) -> None:
        """Store `e` at the stage's coordinates."""
        at = self.body.sum(self.stage.at)
        target = self.stage.target
        name = f"y{-target.number}" if target else self.params.pointer(len(self.problem.operands))
        self.body.store_at(f"{name}[{at.text}]", self.stage.dtype, e)

    def size(self, d: Dim) -> str:
        """The text of a dim."""
        return self.params.size(d)

    def block(self, d: Dim) -> str:
        """The text of a number that says how work is cut up."""
        return self.params.block(d)

    def unit_loop(self, stack: ExitStack, units: Dim, cost: int, flat: Flat | None = None) -> None:
        """The loop over the units of this call, `cost` cheap elements each."""
        self.units, self.group = units, max(1, ITEM // max(1, cost))
        size, group = self.block(units), self.block(self.group)
        self.body.line(f"const int64_t u1 = end * {group} < {size} ? end * {group} : {size};")
        stack.enter_context(self.body.block(f"for (int64_t u = begin * {group}; u < u1; u++)", flat=flat))

    def cut(self, name: str, size: Dim, piece: Dim, number: str) -> None:
        """Locals NAME0 and NAME1: where piece `number` of `size` starts and ends."""
        p, s = self.block(piece), self.block(size)
        self.body.line(f"const int64_t {name}0 = {number} * {p};")
        self.body.line(f"const int64_t {name}1 = {name}0 + {p} < {s} ? {name}0 + {p} : {s};")

    def outer_loops(self, stack: ExitStack, outer: Axes, cost: int) -> None:
        """Loops over `outer`: units of its leading axes and blocks of its last, `cost` elements for each coordinate."""
        if not outer:
            self.unit_loop(stack, 1, cost)
            return
        *lead, (name, size) = outer
        piece = max(1, ITEM // cost)
        if self.typical(size) <= piece:
            self.unit_loop(stack, product(s for _, s in lead), cost * self.typical(size), Flat("u", tuple(lead)))
            self.body.line(f"const int64_t m0 = 0, m1 = {self.size(size)};")
        else:
            pieces = ceildiv(size, piece)
            self.unit_loop(stack, product(s for _, s in lead) * pieces, cost * piece)
            text = self.block(pieces)
            if lead:
                self.body.blocks[-1].flat = Flat(f"(u / {text})", tuple(lead))
            self.cut("m", size, piece, f"(u % {text})" if lead else "u")
        stack.enter_context(self.body.block("for (int64_t m = m0; m < m1; m++)", {name: "m"}))

    def loop(self, name: str, size: Dim) -> AbstractContextManager[Block]:
        """A loop over a reduction's axis; small bounds are known to the compiler."""
        bound = str(size) if isinstance(size, int) and size <= 16 else self.size(size)
        return self.body.block(f"for (int64_t {name} = 0; {name} < {bound}; {name}++)", {name: name})
