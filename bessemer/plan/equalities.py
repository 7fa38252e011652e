"""Sizes that a model takes to be equal though not all that its inputs may have make them so.

A reshape to (11, -1, 64) has room for all elements at every eleventh row count only, the states of an LSTM have a batch
of their own, and what is added to a sequence of any length may be as long as 16. A run at shapes at which they differ
is refused: values would be cut off, or none be there. Sizes that depend on data are compared as soon as they are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.core.dim import Dim
from bessemer.core.interval import compare
from bessemer.engine.program import Equality
from bessemer.ir.graph import Graph, Node, TensorType
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ops.recurrent import operand_shapes

RECURRENT = ("lstm", "gru", "recurrent")


def equalities(graph: Graph) -> tuple[Equality, ...]:
    """Those of a graph as imported, each once."""
    found: dict[tuple[Dim, Dim | None], Equality] = {}
    for node, types in _nodes(graph):
        nodes = ", ".join(node.origin) or node.name
        for left, right in _taken(node, types):
            if compare(left, right, graph.ranges)[0] is None:
                found.setdefault((left - right, None), Equality(left, right, nodes))
        for left, right in _broadcast(node, types):
            if compare(left, right, graph.ranges)[0] is None and compare(left, 1, graph.ranges)[0] is not True:
                found.setdefault((left - right, left), Equality(left, right, nodes, or_one=True))
    return tuple(found.values())


def _nodes(graph: Graph) -> Iterator[tuple[Node, Mapping[str, TensorType]]]:
    """The nodes that always run, and the recurrent ones in branches, with the types of what they see.

    What a `require` checks is told by it, and better."""
    required = {n.inputs[0] for n in graph.nodes if n.op == "require"}
    for node in graph.nodes:
        if not required.intersection(node.outputs):
            yield node, graph.types
        for branch in (g for g in node.attrs.values() if isinstance(g, Graph) and node.op == "if"):
            inside = {**graph.types, **branch.types}
            yield from ((n, inside) for n in branch.nodes if n.op in RECURRENT)


def _taken(node: Node, types: Mapping[str, TensorType]) -> Iterator[tuple[Dim, Dim]]:
    """What `node` takes to be equal without that being part of the types of its operands."""
    if node.op == "reshape":
        yield types[node.inputs[0]].numel, types[node.outputs[0]].numel
    elif node.op in RECURRENT:
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
