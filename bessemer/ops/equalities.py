"""Which sizes a node takes to be equal without that being part of the types of its operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.core.dim import Dim
from bessemer.core.interval import Range, compare
from bessemer.engine.program import Equality
from bessemer.ir.graph import Node, TensorType
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ops.recurrent import operand_shapes


def equalities_of(node: Node, types: Mapping[str, TensorType], ranges: Mapping[str, Range]) -> Iterator[Equality]:
    """Those of a node that sizes within these ranges may break."""
    nodes = ", ".join(node.origin) or node.name
    for left, right in _taken(node, types):
        if compare(left, right, ranges)[0] is None:
            yield Equality(left, right, nodes)
    for left, right in _broadcast(node, types):
        if compare(left, right, ranges)[0] is None and compare(left, 1, ranges)[0] is not True:
            yield Equality(left, right, nodes, or_one=True)


def _taken(node: Node, types: Mapping[str, TensorType]) -> Iterator[tuple[Dim, Dim]]:
    if node.op == "reshape":
        yield types[node.inputs[0]].numel, types[node.outputs[0]].numel
    elif node.op in ("lstm", "gru", "recurrent"):
        for _, given, shape in operand_shapes([types[i] for i in node.inputs if i], node.attrs):
            yield from zip(given.shape, shape)
    elif node.op == "concat":
        whole = types[node.outputs[0]].shape
        for shape in (types[i].shape for i in node.inputs):
            yield from ((a, b) for k, (a, b) in enumerate(zip(shape, whole)) if k != node.attrs["axis"])
    elif node.op == "matmul":
        a, b = (types[i].shape for i in node.inputs)
        yield a[-2 if node.attrs["transpose_a"] else -1], b[-1 if node.attrs["transpose_b"] else -2]
        whole = types[node.outputs[0]].shape  # kernels take from the types which operand has one batch for all
        for shape in (a, b):
            yield from ((size, d) for size, d in zip(reversed(shape[:-2]), reversed(whole[:-2])) if size != 1)


def _broadcast(node: Node, types: Mapping[str, TensorType]) -> Iterator[tuple[Dim, Dim]]:
    """The sizes of operands, each of which is 1 or that of the result."""
    if OPS.get(node.op).fusion is Fusion.POINTWISE or node.op == "expand":
        whole = types[node.outputs[0]].shape
        for shape in (types[i].shape for i in node.inputs if i):
            yield from zip(reversed(shape), reversed(whole))
