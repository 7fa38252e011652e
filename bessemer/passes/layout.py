"""Channels last: decides per tensor whether it is stored NCHW or NHWC, by the bytes that transposes would move.

Every rank-4 value has a layout. Graph inputs and outputs, and what inflexible ops read and write, are stored as the
model says. Convolutions, pools and group norms pay a penalty for channels first (their fast kernels are channels last);
flexible ops (pointwise, concat, reduce, ...) take either. A value whose producer and readers disagree is transposed
once, at the cost of its size. Labels start from the convolutions and are improved node by node until no flip pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bessemer.core.interval import typical
from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions
from bessemer.passes.permute import attrs_permuted, data_operands, flexible

RANK = 4
TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)
SPATIAL = frozenset({"conv", "conv_transpose", "pool", "group_norm", "resize"})
PENALTY = 8  # how much more a spatial op costs channels first, in passes over its output


@dataclass
class _Labels:
    """last[id(node)] tells that the node computes channels last."""

    e: Editor
    last: dict[int, bool] = field(default_factory=dict)

    def size(self, value: str) -> int:
        return typical(self.e.type(value).numel, self.e.ranges)

    def produced_last(self, value: str) -> bool:
        node = self.e.producer(value)
        return node is not None and self.last.get(id(node), False)

    def value_cost(self, value: str) -> int:
        """Elements moved by the transpose that `value` needs, if any."""
        if self.e.type(value).rank != RANK or self.e.constant_of(value) is not None:
            return 0
        made = self.produced_last(value)
        wanted = {self.last.get(id(u), False) for u in self.e.users(value) if self._as_data(u, value)}
        if value in self.e.outputs:
            wanted.add(False)
        return self.size(value) if wanted - {made} else 0

    def _as_data(self, user: Node, value: str) -> bool:
        if user.op in SPATIAL or id(user) in self.last:
            return any(user.inputs[k] == value for k in operands_of(self.e, user))
        return True

    def cost(self, node: Node) -> int:
        """What `node`'s label decides: the transposes around it, and the penalty of a spatial op."""
        total = sum(self.value_cost(v) for v in dict.fromkeys((*node.inputs, *node.outputs)) if v)
        if node.op in SPATIAL and not self.last[id(node)]:
            total += PENALTY * self.size(node.outputs[0])
        return total


def channels_last(e: Editor, options: PassOptions) -> None:
    """Choose layouts and rewrite."""
    nodes = [n for n in e.nodes() if _can_run_last(e, n)]
    if not any(n.op in SPATIAL for n in nodes):
        return
    labels = _Labels(e)
    for node in nodes:
        labels.last[id(node)] = False
    for node in nodes:
        labels.last[id(node)] = node.op in SPATIAL or any(labels.produced_last(i) for i in node.inputs if i)
    for _ in range(8):
        if not any([_flip_if_better(labels, n) for n in (*nodes, *reversed(nodes))]):
            break
    _rewrite(e, [n for n in nodes if labels.last[id(n)]])


def _can_run_last(e: Editor, node: Node) -> bool:
    if node.op in SPATIAL:
        return e.type(node.inputs[0]).rank == RANK and node.attrs.get("layout") == "NCHW"
    return flexible(e, node, RANK)


def _flip_if_better(labels: _Labels, node: Node) -> bool:
    before = labels.cost(node)
    labels.last[id(node)] = not labels.last[id(node)]
    if labels.cost(node) < before:
        return True
    labels.last[id(node)] = not labels.last[id(node)]
    return False


def operands_of(e: Editor, node: Node) -> list[int]:
    """Numbers of the operands that carry data in the node's layout."""
    return [0] if node.op in SPATIAL else list(data_operands(e, node, RANK))


def _rewrite(e: Editor, nodes: list[Node]) -> None:
    """Emit each node on transposed data, its result transposed back; `simplify` cancels what meets."""
    made: dict[str, str] = {}  # logical value -> its channels-last version
    for name in [n.outputs[0] for n in nodes]:
        node = e.producer(name)  # as rewired by now
        assert node is not None
        inputs = list(node.inputs)
        for k in operands_of(e, node):
            inputs[k] = _last_version(e, node.inputs[k], made, node)
        attrs = {**node.attrs, "layout": "NHWC"} if node.op in SPATIAL else attrs_permuted(node, TO_LAST)
        out = e.emit(node.op, inputs, attrs, like=(node,))
        old = node.outputs[0]
        back = e.emit("transpose", (out,), {"perm": TO_FIRST}, like=(node,), hint=old)
        e.replace(old, back)
        made[back] = out


def _last_version(e: Editor, value: str, made: Mapping[str, str], node: Node) -> str:
    """`value` stored channels last: made already, a constant folded, or a transpose. Broadcast operands are lifted."""
    if value in made:
        return made[value]
    t = e.type(value)
    if t.rank == 0 or t.numel == 1:
        return value
    if t.rank < RANK:
        value = e.emit("reshape", (value,), {"shape": (*(1,) * (RANK - t.rank), *t.shape)}, like=(node,))
    return e.emit("transpose", (value,), {"perm": TO_LAST}, like=(node,))


PASS = Pass("channels_last", channels_last)
