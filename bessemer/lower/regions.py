"""Which nodes become one kernel.

Nodes are visited from the last to the first. A node joins the group of its consumers if all of them are in one group
and the two compose: pointwise and injective producers are inlined; a reduction or template becomes the group's core
when what depends on it in the group so far is pointwise at the same coordinates (its epilogue). Since all consumers are
inside, a merge never makes a cycle, and a group runs at its root's place in the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bessemer.core.interval import typical
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import Constant, Graph, Node, TensorType
from bessemer.ir.opdef import OPS, Fusion
from bessemer.kernels.base import Problem
from bessemer.lower.compose import CannotCompose, compute_of, problem_of
from bessemer.lower.views import join_offsets, view_offset

HEAVY = frozenset(
    "exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sigmoid pow".split()
)
SHIFTED = frozenset({"slice"})  # ops whose result is read as a tensor is, from another place on
MAX_EXPR = 400  # nodes of a fused expression
MAX_OPERANDS = 16
MAX_MEMBERS = 32  # composing is quadratic in them, and as deep as they are long


@dataclass
class Group:
    """Nodes that will be one kernel. `core` is the TEMPLATE or REDUCTION member, if any."""

    root: Node
    members: list[Node]
    core: Node | None

    @property
    def anchor(self) -> Node | None:
        return self.core if self.core is not None and fusion_of(self.core) is Fusion.TEMPLATE else None


def fusion_of(node: Node) -> Fusion:
    """The fusion class of a node's op."""
    return OPS.get(node.op).fusion


@dataclass
class Grouping:
    """Groups the nodes of one graph. `in_columns` says of a concatenation whether those that make its parts write it:
    it is asked where no kernel of consumers takes the node in."""

    graph: Graph
    types: Mapping[str, TensorType]
    constants: Mapping[str, Constant]
    in_columns: Callable[[Node], bool]

    def groups(self) -> list[Group | Node]:
        """Groups (kernels) and single nodes (views, joins, host steps, control flow) in execution order."""
        owner: dict[str, Group] = {}
        placed: dict[int, Group] = {}
        kept = set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if fusion_of(node) in (Fusion.HOST, Fusion.CONTROL) or self._is_free(node):
                continue
            group = None if len(node.outputs) != 1 or node.outputs[0] in kept else self._consumer(node, owner)
            if group is not None and self._joins(node, group):
                group.members.insert(0, node)
                if fusion_of(node) in (Fusion.TEMPLATE, Fusion.REDUCTION):
                    group.core = node
            elif self.in_columns(node):
                continue
            else:
                core = node if fusion_of(node) in (Fusion.TEMPLATE, Fusion.REDUCTION) else None
                group = Group(node, [node], core)
                placed[id(node)] = group
            for out in node.outputs:
                owner[out] = group
        return [placed.get(id(n), n) for n in self.graph.nodes if id(n) in placed or n.outputs[0] not in owner]

    def _is_free(self, node: Node) -> bool:
        """Whether no kernel computes `node`: a view, or a join of what is written in place."""
        if view_offset(node, self.graph, self.types) is not None:
            return True
        return join_offsets(node, self.graph, self.types) is not None

    def _consumer(self, node: Node, owner: Mapping[str, Group]) -> Group | None:
        """The one group that holds all consumers of `node`, if there is one and none of them is a view or host step."""
        found: Group | None = None
        for consumer in self.graph.consumers.get(node.outputs[0], ()):
            group = owner.get(consumer.outputs[0])
            if group is None or (found is not None and group is not found) or consumer is group.anchor:
                return None
            found = group
        return found

    def _joins(self, node: Node, group: Group) -> bool:
        kind = fusion_of(node)
        if len(group.members) >= MAX_MEMBERS:
            return False
        if kind in (Fusion.TEMPLATE, Fusion.REDUCTION):
            if group.core is not None or not self._becomes_core(node, group):
                return False
            if self.types[node.outputs[0]].shape != self.types[group.root.outputs[0]].shape:
                return False
        elif self._recomputes(node, group):
            return False
        core = node if kind in (Fusion.TEMPLATE, Fusion.REDUCTION) else group.core
        anchor = core if core is not None and fusion_of(core) is Fusion.TEMPLATE else None
        try:
            problem, _ = problem_of(
                self.graph, self.types, self.constants, [node, *group.members], group.root, anchor
            )
        except CannotCompose:
            return False
        return _reasonable(problem)

    def _becomes_core(self, node: Node, group: Group) -> bool:
        """Whether all that depends on `node` reads it at its own coordinates, and what else is in the group costs no
        more there than the operands of an epilogue."""
        behind = set(node.outputs)
        for member in group.members:
            if behind.intersection(member.inputs):
                behind.update(member.outputs)
            elif member.op in SHIFTED:
                continue
            if fusion_of(member) is not Fusion.POINTWISE:
                return False
        return True

    def _recomputes(self, node: Node, group: Group) -> bool:
        """Whether inlining would evaluate costly code of `node` more often than once per element."""
        definition = compute_of(node, self.types, self.graph.ranges)
        calls = [n for n in exprtree.walk(definition.expr) if isinstance(n, ex.Call)]
        heavy = any(c.fn in HEAVY for c in calls) or len(calls) > 12 or bool(exprtree.reductions(definition.expr))
        if not heavy:
            return False
        reads = sum(node.outputs[0] in m.inputs for m in group.members)
        domain = self._elements(group.root.outputs[0])
        if group.core is not None and fusion_of(group.core) is Fusion.REDUCTION:
            domain = max(domain, *(self._elements(i) for i in group.core.inputs if i))
        return domain > self._elements(node.outputs[0]) or reads > 2

    def _elements(self, value: str) -> int:
        """Of `value` at the opt shape."""
        return typical(self.types[value].numel, self.graph.ranges)


def _reasonable(problem: Problem) -> bool:
    e = problem.epilogue if problem.epilogue is not None else problem.body.expr if problem.body else None
    return e is None or (len(problem.operands) <= MAX_OPERANDS and sum(1 for _ in exprtree.walk(e)) <= MAX_EXPR)
