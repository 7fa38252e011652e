"""Sizes that nodes in branches take to be equal are compared when their branch runs.

A run at sizes that nodes outside of branches do not take is refused at once (see plan/equalities.py). In a branch they
may be guarded by its condition, so a node that relies on such sizes reads an operand through a `require`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from types import MappingProxyType

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.interval import Range
from bessemer.engine.program import Equality
from bessemer.ir.graph import Graph, Node
from bessemer.ir.rewrite import Editor, Scope
from bessemer.ops.equalities import equalities_of


def check_branches(graph: Graph) -> Graph:
    """The graph as imported, with these checks in the branches of its `if` nodes."""
    return _checked(graph, Scope(), graph.ranges)


def _checked(graph: Graph, scope: Scope, ranges: Mapping[str, Range]) -> Graph:
    if not any(node.op == "if" for node in graph.nodes):
        return graph
    inner = Scope({**scope.types, **graph.types}, {**scope.constants, **graph.constants})

    def visit(node: Node) -> Node:
        if node.op != "if":
            return node
        branches = {k: _branch(v, inner, ranges) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
        return replace(node, attrs=MappingProxyType(branches))

    return replace(graph, nodes=tuple(visit(node) for node in graph.nodes))


def _branch(branch: Graph, scope: Scope, ranges: Mapping[str, Range]) -> Graph:
    e = Editor(_checked(branch, scope, ranges), scope)
    changed = False
    for node in e.nodes():  # each has its own: another one, which nothing reads, may go with what it requires
        types = {name: e.type(name) for name in (*node.inputs, *node.outputs) if name}
        found = list(dict.fromkeys(equalities_of(node, types, ranges)))
        if found:
            _require(e, node, found)
            changed = True
    return e.finish() if changed else e.graph


def _require(e: Editor, node: Node, found: Sequence[Equality]) -> None:
    """Let the node read its first operand only where the sizes are equal."""
    said = " and ".join(f"{one.left} must be {'1 or ' if one.or_one else ''}{one.right}" for one in found)
    reason = f"in a branch that runs, {said} (ONNX nodes {found[0].nodes})"
    holds = reduce(lambda a, b: e.emit("and", (a, b)), [_holds(e, one) for one in found])
    first = next(name for name in node.inputs if name)
    operand = e.emit("require", (first, holds), {"reason": reason})
    e.update(node, inputs=tuple(operand if name == first else name for name in node.inputs))


def _holds(e: Editor, one: Equality) -> str:
    left, right = _size(e, one.left), _size(e, one.right)
    holds = e.emit("eq", (left, right))
    return e.emit("or", (holds, e.emit("eq", (left, _size(e, 1))))) if one.or_one else holds


def _size(e: Editor, d: Dim) -> str:
    return e.emit("dims", (), {"values": (d,), "shape": (), "dtype": dt.i64})
