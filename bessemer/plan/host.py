"""Host steps as data: a graph of one node, as text, with the constants of its subgraphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.interval import Range
from bessemer.engine.codec import encode
from bessemer.ir.graph import Constant, Graph, Node, TensorType, captures, subgraphs
from bessemer.ir.text import print_graph


def host_attrs(node: Node, types: Mapping[str, TensorType], ranges: Mapping[str, Range]) -> dict[str, Any]:
    """What runtime.host needs of a node; the inputs of the graph are the step's reads, in order."""
    inputs = host_reads(node)
    outputs = tuple(o for o in node.outputs if o)
    known = {name: types[name] for name in (*inputs, *outputs)}
    graph = Graph("host", inputs, outputs, (node,), known, ranges=dict(ranges))
    constants = {c.key: c for c in _constants(node)}
    return {
        "graph": print_graph(graph),
        "weights": {key: encode(c.load()) for key, c in constants.items()},
        "dtypes": {key: encode(c.type.dtype) for key, c in constants.items()},
    }


def host_reads(node: Node) -> tuple[str, ...]:
    """Values that a host step reads: its inputs, and what its subgraphs capture."""
    return tuple(dict.fromkeys(i for i in (*node.inputs, *captures(node)) if i))


def _constants(node: Node) -> list[Constant]:
    out: list[Constant] = []
    for graph in subgraphs(node):
        out.extend(graph.constants.values())
        for inner in graph.nodes:
            out.extend(_constants(inner))
    return out
