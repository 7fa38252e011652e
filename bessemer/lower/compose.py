"""From a group of nodes to one Problem: expressions are composed by substitution.

The group has one root, whose output leaves it; every other member is read only inside. A TEMPLATE member is the
anchor: its result is `Acc`, which may only be read at the output's own coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bessemer.core import dtype as dt
from bessemer.core.dim import symbols
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import Constant, Graph, Node, TensorType
from bessemer.ir.opdef import OPS, InferContext
from bessemer.kernels.base import Operand, Problem

ACC = -1  # operand number that stands for the anchor's result while composing


class CannotCompose(Exception):
    """The members cannot be one kernel; the reason is the message."""


@dataclass
class Composer:
    """Composes one group of `graph`. `types` and `constants` also cover the graphs around it."""

    graph: Graph
    types: Mapping[str, TensorType]
    constants: Mapping[str, Constant]
    members: Mapping[str, Node]  # by output value
    anchor: Node | None
    operands: list[str] = field(default_factory=list)
    _memo: dict[str, ex.Expr] = field(default_factory=dict)

    def operand(self, value: str) -> int:
        """The operand number of an outside value."""
        if value not in self.operands:
            self.operands.append(value)
        return self.operands.index(value)

    def expr(self, value: str) -> ex.Expr:
        """The scalar at `value`'s own coordinates i0, i1, ..."""
        if value in self._memo:
            return self._memo[value]
        node = self.members[value]
        definition = compute_of(node, self.types, self.graph.ranges)
        tag = f"_{len(self._memo)}"
        out = definition.expr
        own = {name for r in exprtree.reductions(out) for name, _ in r.axes}
        out = exprtree.rename_axes(out, {name: f"{name}{tag}" for name in own})

        def replace_load(e: ex.Expr) -> ex.Expr | None:
            return self._read(node.inputs[e.operand], e.index) if isinstance(e, ex.Load) else None

        out = ex.cast(exprtree.rewrite(out, replace_load), definition.dtype)
        self._memo[value] = out
        return out

    def _read(self, value: str, index: tuple[ex.Expr, ...]) -> ex.Expr:
        t = self.types[value]
        if self.anchor is not None and value == self.anchor.outputs[0]:
            return ex.Load(ACC, index, t.dtype)
        if value in self.members:
            return exprtree.substitute_axes(self.expr(value), {f"i{k}": ix for k, ix in enumerate(index)})
        scalar = self._scalar(value, t)
        return scalar if scalar is not None else ex.Load(self.operand(value), index, t.dtype)

    def _scalar(self, value: str, t: TensorType) -> ex.Expr | None:
        """A one-element constant as a literal."""
        constant = self.constants.get(value)
        if constant is None or t.numel != 1 or t.dtype.kind not in "fiub":
            return None
        array = constant.load()
        item = (dt.from_bf16(array) if t.dtype == dt.bf16 else array).reshape(-1)[0]
        return ex.lit(item.item(), t.dtype)


def context_of(node: Node, types: Mapping[str, TensorType], ranges: Mapping[str, Range]) -> InferContext:
    """What compute and flops definitions ask about a node of a finished graph."""
    return InferContext(tuple(types[i] if i else None for i in node.inputs), node.attrs, ranges)


def compute_of(node: Node, types: Mapping[str, TensorType], ranges: Mapping[str, Range]) -> ex.ComputeDef:
    """The compute definition of a node; CannotCompose where its op has none."""
    compute = OPS.get(node.op).compute
    if compute is None:
        raise CannotCompose(f"{node.op} has no compute definition")
    return compute(context_of(node, types, ranges))


def problem_of(
    graph: Graph, types: Mapping[str, TensorType], constants: Mapping[str, Constant],
    members: Sequence[Node], root: Node, anchor: Node | None,
) -> tuple[Problem, tuple[str, ...]]:  # fmt: skip
    """The Problem of a group, and the values that are its operands in order. CannotCompose where it has none."""
    output = root.outputs[0]
    out_type = types[output]
    composer = Composer(graph, types, constants, {m.outputs[0]: m for m in members if m is not anchor}, anchor)
    if anchor is not None:
        composer.operands.extend(i for i in anchor.inputs if i)
    epilogue = body = None
    if anchor is root:
        pass
    elif anchor is not None:
        epilogue = _to_acc(composer.expr(output), out_type, types[anchor.outputs[0]])
    else:
        body = ex.ComputeDef(out_type.shape, out_type.dtype, composer.expr(output))
    values = tuple(composer.operands)
    outputs = tuple(types[o] for o in anchor.outputs if o) if anchor is root and anchor else (out_type,)
    used = {s for v in (*values, output) for d in types[v].shape for s in symbols(d)}
    for e in (epilogue, body.expr if body else None):
        if e is not None:
            used |= {s for n in exprtree.walk(e) if isinstance(n, ex.Size) for s in symbols(n.dim)}
    problem = Problem(
        op=anchor.op if anchor is not None else "group",
        operands=tuple(Operand(types[v], v in constants) for v in values),
        outputs=outputs,
        attrs=tuple(sorted(anchor.attrs.items())) if anchor is not None else (),
        anchors=sum(1 for i in anchor.inputs if i) if anchor is not None else 0,
        result=types[anchor.outputs[0]] if anchor is not None else None,
        epilogue=epilogue,
        body=body,
        ranges=tuple(sorted((s, graph.ranges[s]) for s in used)),
    )
    return problem, values


def _to_acc(e: ex.Expr, out: TensorType, anchor: TensorType) -> ex.Expr:
    if anchor.shape != out.shape:
        raise CannotCompose(f"the epilogue changes the shape from {anchor} to {out}")
    axes = ex.out_axes(out.rank)
    zero = ex.lit(0, dt.i64)

    def step(n: ex.Expr) -> ex.Expr | None:
        if not isinstance(n, ex.Load) or n.operand != ACC:
            return None
        for index, axis, size in zip(n.index, axes, out.shape):
            if index != axis and not (size == 1 and index == zero):
                raise CannotCompose("the epilogue reads the anchor's result at other coordinates")
        return ex.Acc(n.dtype)

    return exprtree.rewrite(e, step)
