"""Sizes that a model takes to be equal though not all that its inputs may have make them so.

A reshape to (11, -1, 64) has room for all elements at every eleventh row count only, the states of an LSTM have a batch
of their own, and what is added to a sequence of any length may be as long as 16. A run at shapes at which they differ
is refused: values would be cut off, or none be there. Sizes that depend on data are compared as soon as they are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.core.dim import Dim
from bessemer.engine.program import Equality
from bessemer.ir.graph import Graph, Node, TensorType
from bessemer.ops.agreement import RECURRENT, open_agreements


def equalities(graph: Graph) -> tuple[Equality, ...]:
    """Those of a graph as imported, each once."""
    found: dict[tuple[Dim, Dim | None], Equality] = {}
    for node, types in _nodes(graph):
        nodes = ", ".join(node.origin) or node.name
        for a in open_agreements(node, types, graph.ranges):
            key = a.left - a.right, a.left if a.or_one else None
            found.setdefault(key, Equality(a.left, a.right, nodes, a.or_one))
    return tuple(found.values())


def _nodes(graph: Graph) -> Iterator[tuple[Node, Mapping[str, TensorType]]]:
    """The nodes that always run, and the recurrent ones in branches, with the types of what they see.

    What a `require` checks is told by it, and better; so are the others in branches (see passes/check_branches.py)."""
    required = {n.inputs[0] for n in graph.nodes if n.op == "require"}
    for node in graph.nodes:
        if not required.intersection(node.outputs):
            yield node, graph.types
        for branch in (g for g in node.attrs.values() if isinstance(g, Graph) and node.op == "if"):
            inside = {**graph.types, **branch.types}
            yield from ((n, inside) for n in branch.nodes if n.op in RECURRENT)
