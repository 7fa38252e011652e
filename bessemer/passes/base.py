"""What a pass is: a name and a function from an opened graph to nothing; the pipeline opens, closes and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from bessemer.ir.graph import Graph, Node
from bessemer.ir.rewrite import Editor, Scope


@dataclass(frozen=True)
class PassOptions:
    """What passes may depend on: the target's kind ("cpu", "cuda") and the precision asked for.

    `wide` are values that the low precision cannot hold, each with the reason; `exponents` tell of some of them which
    power of two they can be divided by to fit.
    """

    target: str = "cpu"
    precision: str = "fp32"  # fp32, fp16, bf16
    tf32: bool = False
    wide: Mapping[str, str] = field(default_factory=dict)
    exponents: Mapping[str, int] = field(default_factory=dict)


Rewrite = Callable[[Editor, PassOptions], None]


@dataclass(frozen=True)
class Pass:
    """A named rewrite. It sees one graph; the pipeline runs it on nested graphs too (inner ones first)."""

    name: str
    rewrite: Rewrite
    repeat: bool = False  # run until nothing changes


def apply(pass_: Pass, graph: Graph, options: PassOptions, scope: Scope | None = None) -> Graph:
    """The graph after one pass, nested graphs included."""
    scope = scope or Scope()
    graph = _apply_nested(pass_, graph, options, scope)
    for _ in range(20 if pass_.repeat else 1):
        editor = Editor(graph, scope)
        pass_.rewrite(editor, options)
        rewritten = editor.finish()
        if _signature(rewritten) == _signature(graph):
            return rewritten
        graph = rewritten
    return graph


def _signature(graph: Graph) -> tuple[object, ...]:
    return (graph.outputs, tuple((n.op, n.inputs, n.outputs) for n in graph.nodes))


def _apply_nested(pass_: Pass, graph: Graph, options: PassOptions, scope: Scope) -> Graph:
    if not any(isinstance(v, Graph) for n in graph.nodes for v in n.attrs.values()):
        return graph
    inner = Scope({**scope.types, **graph.types}, {**scope.constants, **graph.constants})

    def visit(node: Node) -> Node:
        attrs: Mapping[str, Any] = {
            k: apply(pass_, v, options, inner) if isinstance(v, Graph) else v for k, v in node.attrs.items()
        }
        return replace(node, attrs=MappingProxyType(dict(attrs)))

    return replace(graph, nodes=tuple(visit(n) for n in graph.nodes))
