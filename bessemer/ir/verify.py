"""The rules of the IR, checked: `verify(graph)` between passes.

Every value is written once, before it is read; every value has a type, and it is the type that its op infers from its
inputs; symbols have ranges; nested graphs read only what the graphs around them have written by then. A GraphError
lists what is broken with the offending lines of the graph's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.dim import Dim, DimExpr, substitute, sym, symbols
from bessemer.core.errors import BessemerError, GraphError
from bessemer.core.interval import INF, Range, Ranges, bounds, compare
from bessemer.ir.graph import Attr, Constant, Graph, Node, TensorType, subgraphs
from bessemer.ir.opdef import OPS, InferContext
from bessemer.ir.text import print_node, value_text

REPORTED = 10  # faults in one error


@dataclass(frozen=True)
class _Scope:
    """What the graphs around a nested one have written so far."""

    types: Mapping[str, TensorType] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)


def verify(graph: Graph) -> None:
    """GraphError where `graph` breaks a rule of the IR."""
    faults = list(_graph_faults(graph, _Scope(), graph.ranges))
    if faults:
        more = [f"... and {len(faults) - REPORTED} more"] if len(faults) > REPORTED else []
        raise GraphError("\n".join([f"graph {graph.name!r} breaks rules of the IR:", *faults[:REPORTED], *more]))


def _graph_faults(graph: Graph, outer: _Scope, ranges: Ranges) -> Iterator[str]:
    types, constants = dict(outer.types), dict(outer.constants)
    own: set[str] = set()
    for name in (*graph.inputs, *graph.constants):
        if name in own:
            yield f"  {value_text(name)} is an input or constant twice"
        own.add(name)
        if name not in graph.types:
            yield f"  {value_text(name)} has no type"
            continue
        constants.pop(name, None)
        types[name] = graph.types[name]
        yield from _symbol_faults(name, graph.types[name], ranges)
    for name, constant in graph.constants.items():
        constants[name] = constant
        if graph.types.get(name) != constant.type:
            yield f"  {value_text(name)} is typed {graph.types.get(name)} and holds {constant.type}"
    scope = _Scope(types, constants)
    for node in graph.nodes:
        for fault in _node_faults(graph, node, scope, own, ranges):
            yield f"  {fault}\n    {print_node(node, graph.types)}"
        for out in node.outputs:
            own.add(out)
            constants.pop(out, None)
            if out in graph.types:
                types[out] = graph.types[out]
    for name in graph.outputs:
        if name not in types:
            yield f"  the output {value_text(name)} is written nowhere"
        elif name not in own:
            yield f"  the output {value_text(name)} is a value of a graph around this one"
    if graph.output_names and len(graph.output_names) != len(graph.outputs):
        yield f"  {len(graph.outputs)} outputs have {len(graph.output_names)} names"


def _node_faults(graph: Graph, node: Node, scope: _Scope, own: set[str], ranges: Ranges) -> Iterator[str]:
    if node.op not in OPS:
        yield f"unknown op {node.op!r}"
        return
    for name in node.inputs:
        if name and name not in scope.types:
            yield f"{value_text(name)} is read before it is written"
    for name in node.outputs:
        if not name:
            yield "an output has no name"
        elif name in own or node.outputs.count(name) > 1:
            yield f"{value_text(name)} is written twice"
        elif name not in graph.types:
            yield f"{value_text(name)} has no type"
        else:
            yield from _symbol_faults(name, graph.types[name], ranges)
    for value in node.attrs.values():
        for symbol in sorted(_attr_symbols(value) - ranges.keys()):
            yield f"the symbol {symbol} in its attributes has no range"
    for inner in subgraphs(node):
        yield from _graph_faults(inner, scope, ranges)
    if all(name in scope.types for name in node.inputs if name) and all(o in graph.types for o in node.outputs):
        yield from _type_faults(node, [graph.types[o] for o in node.outputs], scope, ranges)


def _symbol_faults(name: str, type_: TensorType, ranges: Ranges) -> Iterator[str]:
    for symbol in sorted({s for d in type_.shape for s in symbols(d)} - ranges.keys()):
        yield f"the symbol {symbol} in the type of {value_text(name)} has no range"


def _attr_symbols(value: Attr) -> frozenset[str]:
    if isinstance(value, DimExpr):
        return symbols(value)
    return frozenset(s for v in value for s in _attr_symbols(v)) if isinstance(value, tuple) else frozenset()


# -- types --------------------------------------------------------------------------------------------------------


class _Values(Sequence["np.ndarray | None"]):
    """Contents of constant inputs, loaded only if the inference asks."""

    def __init__(self, constants: Sequence[Constant | None]) -> None:
        self._constants = constants

    def __len__(self) -> int:
        return len(self._constants)

    def __getitem__(self, k: int) -> np.ndarray | None:  # type: ignore[override]
        constant = self._constants[k]
        return None if constant is None else constant.load()


class _Fresh:
    """Stands for data-dependent sizes while a node is inferred again: each is whatever the recorded type says."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges: dict[str, Range] = dict(ranges)
        self.names: set[str] = set()
        self.bound: dict[str, Dim] = {}

    def __call__(self, hint: str = "u", upper: Dim | None = None) -> Dim:
        name = f"u_inferred_{len(self.names)}"
        self.names.add(name)
        self.ranges[name] = Range(0, INF if upper is None else bounds(upper, self.ranges)[1])
        return sym(name)

    def agrees(self, inferred: Dim, recorded: Dim) -> bool:
        for name in self.names:
            if inferred == sym(name):
                inferred = self.bound.setdefault(name, recorded)
        inferred = substitute(inferred, self.bound)
        equal, _ = compare(inferred, recorded, self.ranges)
        data_dependent = any(s.startswith("u") for d in (inferred, recorded) for s in symbols(d))
        return equal is True or (equal is None and data_dependent)


def _type_faults(node: Node, recorded: Sequence[TensorType], scope: _Scope, ranges: Ranges) -> Iterator[str]:
    fresh = _Fresh(ranges)
    context = InferContext(
        tuple(scope.types[i] if i else None for i in node.inputs), node.attrs, fresh.ranges,
        _Values([scope.constants.get(i) for i in node.inputs]), fresh,  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        inferred = OPS.get(node.op).infer(context)
    except KeyError as error:
        yield f"the attribute {error} is missing"
        return
    except (BessemerError, ValueError, IndexError, TypeError, AssertionError) as error:
        yield f"its types cannot be inferred: {error}"
        return
    if len(inferred) != len(recorded):
        yield f"it has {len(recorded)} outputs; {node.op} gives {len(inferred)}"
        return
    for name, a, b in zip(node.outputs, inferred, recorded):
        same = a.dtype == b.dtype and a.rank == b.rank and all(fresh.agrees(x, y) for x, y in zip(a.shape, b.shape))
        if not same:
            yield f"{value_text(name)} is typed {b}, and {node.op} gives {a}"
