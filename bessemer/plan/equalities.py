"""Sizes that a model takes to be equal though not all that its inputs may have make them so.

A reshape to (11, -1, 64) has room for all elements at every eleventh row count only, and the states of an LSTM have a
batch of their own. A run at shapes at which they differ is refused: values would be cut off, or none be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.core.dim import Dim, symbols
from bessemer.core.interval import compare
from bessemer.engine.program import Equality
from bessemer.ir.graph import Graph, Node, TensorType
from bessemer.ops.recurrent import operand_shapes

RECURRENT = ("lstm", "gru", "recurrent")


def equalities(graph: Graph) -> tuple[Equality, ...]:
    """Those of a graph as imported, each once, as far as the shapes of inputs decide them."""
    told = {str(d) for name in graph.inputs for d in graph.types[name].shape}
    found: dict[Dim, Equality] = {}
    for node, types in _nodes(graph):
        for left, right in _taken(node, types):
            if symbols(left) | symbols(right) <= told and compare(left, right, graph.ranges)[0] is None:
                found.setdefault(left - right, Equality(left, right, ", ".join(node.origin) or node.name))
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
