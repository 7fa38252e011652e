"""Data-dependent sizes: which node decides each, and which nodes need it.

A node may need a size without reading a value that has it (an Expand to the shape of a NonZero): such a node comes
after the one that decides the size, and keeps it in the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bessemer.core.dim import DimExpr, symbols
from bessemer.ir.graph import Attr, Graph, Node, TensorType


def deciders(nodes: Iterable[Node], types: Mapping[str, TensorType]) -> dict[str, Node]:
    """The node that decides each data-dependent size: the first whose outputs have it, and nothing it is given has."""
    out: dict[str, Node] = {}
    for node in nodes:
        new = _of_values(node.outputs, types) - out.keys()
        for size in new - _of_values(node.inputs, types) - _of_attrs(node) if new else ():
            out[size] = node
    return out


def needed(node: Node, types: Mapping[str, TensorType]) -> set[str]:
    """The data-dependent sizes in a node's outputs and attributes."""
    return _of_values(node.outputs, types) | _of_attrs(node)


def _of_values(values: Iterable[str], types: Mapping[str, TensorType]) -> set[str]:
    return {s for v in values if v in types for d in types[v].shape for s in symbols(d) if s.startswith("u")}


def _of_attrs(node: Node) -> set[str]:
    return {s for value in node.attrs.values() for s in _of_attr(value)}


def _of_attr(value: Attr) -> set[str]:
    if isinstance(value, DimExpr):
        return {s for s in symbols(value) if s.startswith("u")}
    if isinstance(value, tuple):
        return {s for v in value for s in _of_attr(v)}
    if isinstance(value, Graph):
        inside = (_of_values(value.types, value.types), *(_of_attrs(n) for n in value.nodes))
        return set().union(*inside)
    return set()
