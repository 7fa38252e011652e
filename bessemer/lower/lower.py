"""Graph to items: groups become kernel Problems, what no tactic covers becomes a host step, If becomes branches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bessemer.core.dim import Dim
from bessemer.ir.graph import Constant, Graph, Node, TensorType, captures
from bessemer.ir.opdef import OPS, Fusion
from bessemer.kernels.base import Problem
from bessemer.lower.columns import columns_of, copying, made_for
from bessemer.lower.compose import CannotCompose, context_of, problem_of
from bessemer.lower.items import (
    AliasItem,
    BranchItem,
    CopyItem,
    HostItem,
    Item,
    JoinItem,
    JumpItem,
    KernelItem,
    LabelItem,
    Lowered,
)  # fmt: skip
from bessemer.lower.regions import Group, Grouping, fusion_of
from bessemer.lower.views import join_offsets, view_offset

Supports = Callable[[Problem], str | None]  # None: some tactic applies; else why none does
Estimate = Callable[[Problem], float | None]  # microseconds by the best tactic; None where none applies


def lower(graph: Graph, supports: Supports, estimate: Estimate = lambda problem: None) -> Lowered:
    """Lower `graph` and the graphs inside it. By `estimate` it is judged whether parts of concatenations are written in
    place: without, they are not."""
    state = _Lowering(supports, estimate)
    items = state.graph(graph)
    return Lowered(
        graph.name, graph.inputs, graph.outputs, tuple(items), state.types, state.constants, graph.ranges,
        graph.metadata, graph.output_names or graph.outputs,
    )  # fmt: skip


@dataclass
class _Lowering:
    supports: Supports
    estimate: Estimate
    joins: dict[str, Node] = field(default_factory=dict)  # of parts that are made in their places: the concatenation
    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    labels: Iterator[int] = field(default_factory=itertools.count)

    def graph(self, graph: Graph) -> list[Item]:
        self.types.update(graph.types)
        self.constants.update(graph.constants)
        items: list[Item] = []
        units = self._units(graph)
        added = {u.root.inputs[0]: u.root for u in units if isinstance(u, Group) and u.root.op == "run_sums"}
        made: set[str] = set()  # sums of rows, by the kernels that make the rows
        for unit in units:
            if not isinstance(unit, Group):
                items.extend(self._single(graph, unit))
            elif unit.root.outputs[0] not in made:
                found = self._group(graph, unit)
                sums = added.get(unit.root.outputs[0])
                whole = self._with_sums(found[0], sums) if sums is not None and len(found) == 1 else None
                made.update(whole.outputs[1:] if whole is not None else ())
                items.extend(found if whole is None else [whole])
        return items

    def _with_sums(self, item: Item, sums: Node) -> KernelItem | None:
        """The kernel that adds up the rows it makes as well; None where no tactic does."""
        if not isinstance(item, KernelItem) or item.problem.into is not None or len(item.outputs) != 1:
            return None
        outputs = (*item.problem.outputs, self.types[sums.outputs[0]])
        problem = replace(item.problem, outputs=outputs, sums=True)
        if self.supports(problem) is not None:
            return None
        return replace(item, problem=problem, outputs=(*item.outputs, *sums.outputs), nodes=(*item.nodes, sums))

    def _units(self, graph: Graph) -> list[Group | Node]:
        """Groups and single nodes in order. Parts of a concatenation are written into it one by one where that pays,
        which is seen of their groups: where it does not, the nodes are grouped again."""
        divided: dict[str, bool] = {}  # by the result of a concatenation that could be

        def in_columns(node: Node) -> bool:
            if node.outputs[0] not in divided:
                divided[node.outputs[0]] = self._divisible(graph, node)
            return divided[node.outputs[0]]

        while True:
            units = Grouping(graph, self.types, self.constants, in_columns).groups()
            groups = {u.root.outputs[0]: u for u in units if isinstance(u, Group)}
            joins = [u for u in units if not isinstance(u, Group) and divided.get(u.outputs[0])]
            lost = [join.outputs[0] for join in joins if not self._pays(graph, join, groups)]
            if not lost:
                self.joins.update((part, join) for join in joins for part in self._made(graph, join) if part in groups)
                return units
            divided.update(dict.fromkeys(lost, False))

    def _made(self, graph: Graph, join: Node) -> list[str]:
        """The parts of a concatenation that kernels may write into it."""
        return [part for part in columns_of(join, self.types) if made_for(part, join, graph, self.types)]

    def _divisible(self, graph: Graph, node: Node) -> bool:
        """Whether kernels can write the parts of `node` one by one, and make one of them."""
        if not self._made(graph, node):
            return False
        return all(self.estimate(self._copy(graph, node, part).problem) is not None for part in node.inputs)

    def _pays(self, graph: Graph, join: Node, groups: Mapping[str, Group]) -> bool:
        """Whether writing the parts one by one takes less time than one kernel that copies all of them.

        A part that ends a sum takes no other kernel than it would have without, each of the others takes one."""
        made = {part: groups[part] for part in self._made(graph, join) if part in groups}
        ends_sum = {part for part, g in made.items() if g.core is not None and self._placed(graph, g, join) is not None}
        others = [self._copy(graph, join, part).problem for part in join.inputs if part not in ends_sum]
        whole = copying(self.types[join.outputs[0]], False, None, graph.ranges)
        return bool(ends_sum) and sum(self.estimate(p) or 0.0 for p in others) < (self.estimate(whole) or 0.0)

    def _copy(self, graph: Graph, join: Node, part: str) -> KernelItem:
        """What writes `part` into its columns of `join`."""
        type_, into = self.types[part], columns_of(join, self.types)[part]
        problem = copying(type_, part in self.constants, into, graph.ranges)
        return KernelItem(problem, (part,), join.outputs, (join,))

    def _placed(self, graph: Graph, group: Group, join: Node) -> KernelItem | None:
        """The kernel of a group that makes a part of `join` and writes it there; None where there is none, or one that
        is slower by more than a copy."""
        item, _ = self._kernel(graph, tuple(group.members), group.root, group.anchor)
        if item is None:
            return None
        copy = self._copy(graph, join, group.root.outputs[0]).problem
        problem = replace(item.problem, into=copy.into)
        here, apart, after = (self.estimate(p) for p in (problem, item.problem, copy))
        if here is None or here > (apart or 0.0) + (after or 0.0):
            return None
        return replace(item, problem=problem, outputs=join.outputs, nodes=(*item.nodes, join))

    def _group(self, graph: Graph, group: Group) -> list[Item]:
        """The items of a group, with a copy where it makes a part of a concatenation that its kernel cannot place."""
        part = group.root.outputs[0]
        join = self.joins.get(part)
        if join is None:
            return self._items(graph, group)
        placed = self._placed(graph, group, join)
        return [placed] if placed is not None else [*self._items(graph, group), self._copy(graph, join, part)]

    def _items(self, graph: Graph, group: Group) -> list[Item]:
        """A fused group where a tactic takes it, else its members one by one."""
        item, why = self._kernel(graph, tuple(group.members), group.root, group.anchor)
        if item is not None:
            return [item]
        if len(group.members) == 1:
            return [self._alone(graph, group.root, why)]
        ordered = [n for n in graph.nodes if any(n is m for m in group.members)]
        return [self._alone(graph, n, why) for n in ordered]

    def _alone(self, graph: Graph, node: Node, why: str) -> Item:
        anchor = node if fusion_of(node) is Fusion.TEMPLATE else None
        if anchor is not None:
            item, why = self._kernel(graph, (node,), node, anchor)
            if item is not None:
                return item
        if OPS.get(node.op).compute is not None and len(node.outputs) == 1:
            item, group_why = self._kernel(graph, (node,), node, None)
            if item is not None:
                return item
            why = f"{why}; {group_why}" if anchor is not None else group_why
        return HostItem(node, why or f"{node.op} has no kernel")

    def _kernel(
        self, graph: Graph, members: tuple[Node, ...], root: Node, anchor: Node | None
    ) -> tuple[KernelItem | None, str]:
        try:
            problem, values = problem_of(graph, self.types, self.constants, members, root, anchor)
        except CannotCompose as error:
            return None, str(error)
        why = self.supports(problem)
        if why is not None:
            return None, why
        flops = sum((self._flops(graph, m) for m in members), start=0)
        return KernelItem(problem, values, tuple(o for o in root.outputs if o), members, flops), ""

    def _flops(self, graph: Graph, node: Node) -> Dim:
        op = OPS.get(node.op)
        if op.flops is not None:
            return op.flops(context_of(node, self.types, graph.ranges))
        return self.types[node.outputs[0]].numel

    def _single(self, graph: Graph, node: Node) -> list[Item]:
        offset = view_offset(node, graph, self.types)
        if offset is not None:
            return [AliasItem(node.outputs[0], node.inputs[0], offset)]
        joined = join_offsets(node, graph, self.types)
        if joined is not None:
            return [JoinItem(node.outputs[0], node.inputs, joined)]
        if columns_of(node, self.types):
            return [self._copy(graph, node, part) for part in node.inputs if part not in self.joins]
        if node.op == "if" and self._branches_agree(node):
            return self._if(node)
        if node.op == "require":
            return self._require(node)
        why = f"{node.op} runs its numpy reference"
        return [HostItem(node, why, captures(node))]

    def _branches_agree(self, node: Node) -> bool:
        """Whether both branches give the types that the If declares (else shapes depend on the data)."""
        for name in ("then_branch", "else_branch"):
            branch = node.attrs[name]
            assert isinstance(branch, Graph)
            known = {**self.types, **branch.types}
            if any(known[inner] != self.types[outer] for inner, outer in zip(branch.outputs, node.outputs) if outer):
                return False
        return True

    def _if(self, node: Node) -> list[Item]:
        otherwise, end = next(self.labels), next(self.labels)
        then, orelse = node.attrs["then_branch"], node.attrs["else_branch"]
        assert isinstance(then, Graph) and isinstance(orelse, Graph)
        return [
            BranchItem(node.inputs[0], otherwise), *self._branch(then, node.outputs), JumpItem(end),
            LabelItem(otherwise), *self._branch(orelse, node.outputs), LabelItem(end),
        ]  # fmt: skip

    def _require(self, node: Node) -> list[Item]:
        """The value as it is; the reference runs, and raises, only where the condition does not hold. It is given the
        condition alone, for the value may then have another shape than its type says."""
        fails, end = next(self.labels), next(self.labels)
        (out,), (value, condition) = node.outputs, node.inputs
        raised = f"{out}~raised"
        self.types[raised] = self.types[condition]
        check = replace(node, inputs=(condition, condition), outputs=(raised,))
        return [
            AliasItem(out, value), BranchItem(condition, fails), JumpItem(end), LabelItem(fails), HostItem(check, ""),
            LabelItem(end),
        ]  # fmt: skip

    def _branch(self, branch: Graph, outputs: tuple[str, ...]) -> list[Item]:
        """The branch's items, writing straight to the If's outputs where a kernel produces them."""
        items = self.graph(branch)
        direct = {o for i in items if isinstance(i, (KernelItem, HostItem)) for o in _outputs(i)}
        names: dict[str, str] = {}
        copies: list[Item] = []
        for inner, outer in zip(branch.outputs, outputs):
            if not outer:
                continue
            if inner in direct and inner not in names:
                names[inner] = outer
            else:
                copies.append(CopyItem(outer, names.get(inner, inner)))
        return [_rename(i, names) for i in items] + copies


def _outputs(item: KernelItem | HostItem) -> tuple[str, ...]:
    return item.outputs if isinstance(item, KernelItem) else item.node.outputs


def _rename(item: Item, names: Mapping[str, str]) -> Item:
    def new(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(v, v) for v in values)

    match item:
        case KernelItem():
            return replace(item, operands=new(item.operands), outputs=new(item.outputs))
        case HostItem():
            node = replace(item.node, inputs=new(item.node.inputs), outputs=new(item.node.outputs))
            return replace(item, node=node, captured=new(item.captured))
        case AliasItem() | CopyItem():
            return replace(item, value=names.get(item.value, item.value), source=names.get(item.source, item.source))
        case JoinItem():
            return replace(item, value=names.get(item.value, item.value), parts=new(item.parts))
        case BranchItem():
            return replace(item, condition=names.get(item.condition, item.condition))
    return item
