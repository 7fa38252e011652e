"""Sizes that a model takes to be equal though not all that its inputs may have make them so.

A reshape to (11, -1, 64) has room for all elements at every eleventh row count only, the states of an LSTM have a batch
of their own, and what is added to a sequence of any length may be as long as 16. A run at shapes at which they differ
is refused: values would be cut off, or none be there. Sizes that depend on data are compared as soon as they are known.
"""

from __future__ import annotations

from bessemer.core.dim import Dim
from bessemer.engine.program import Equality
from bessemer.ir.graph import Graph
from bessemer.ops.equalities import equalities_of


def equalities(graph: Graph) -> tuple[Equality, ...]:
    """Those of a graph as imported, each once: of the nodes that always run (for others see passes/check_branches.py),
    but for what a `require` checks, which tells it better."""
    required = {n.inputs[0] for n in graph.nodes if n.op == "require"}
    found: dict[tuple[Dim, Dim | None], Equality] = {}
    for node in graph.nodes:
        if not required.intersection(node.outputs):
            for e in equalities_of(node, graph.types, graph.ranges):
                found.setdefault((e.left - e.right, e.left if e.or_one else None), e)
    return tuple(found.values())
