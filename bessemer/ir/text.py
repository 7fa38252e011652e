"""The text of a graph, and back.

    graph "main"(%x: f32[N,3,H,W]) -> (%y) {
      sym N = [1, 64] opt 4
      %w: f32[64,3,3,3] = constant "5be0..."
      %y: f32[N,64,H,W] = conv(%x, %w, _) {strides = (1, 1), note = "a", dtype = f32}  // Conv_0, Bn_1
    }

`parse(print_graph(g)) == g`, but for the content of weights: a constant of up to 8 elements is written out, any other
is its key. Where a text is written by hand, "normal:SEED" is a key with content: normal values of that seed.
`_` is an absent value, `<2*N>` a symbolic dim among attributes; what follows `//` on a node's line are its origins.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bessemer.core.dim import DimExpr
from bessemer.core.dtype import DType
from bessemer.core.interval import INF
from bessemer.ir.fold import constant_from
from bessemer.ir.graph import Attr, Constant, Graph, Node, TensorType
from bessemer.ir.textparse import Parser

SHOWN = 8  # elements of a constant that is written out
_BARE = re.compile(r"[\w./~$-]+", re.ASCII)
_ORIGIN = re.compile(r"[\w./~$-][\w./~$:-]*", re.ASCII)


def print_graph(graph: Graph) -> str:
    """The text of `graph`, nested graphs included."""
    return "\n".join(_graph_lines(graph, root=True)) + "\n"


def parse(text: str, weights: Mapping[str, Constant] | None = None) -> Graph:
    """The graph of a text; `weights` are constants by key. GraphError says the line that is wrong."""
    return Parser(text, weights or {}).graph()


def print_node(node: Node, types: Mapping[str, TensorType]) -> str:
    """The text of one node."""
    return "\n".join(_node_lines(node, types))


def value_text(name: str) -> str:
    """A value's name as it is written: `%x`, quoted where it holds other characters, `_` where it is absent."""
    if not name:
        return "_"
    return f"%{name}" if _BARE.fullmatch(name) else "%" + json.dumps(name)


def attr_lines(value: Attr) -> list[str]:
    """The text of an attribute, as lines."""
    if isinstance(value, Graph):
        return _graph_lines(value, root=False)
    if isinstance(value, tuple):
        items = [attr_lines(v) for v in value]
        if all(len(lines) == 1 for lines in items):
            return ["(" + ", ".join(lines[0] for lines in items) + ("," if len(items) == 1 else "") + ")"]
        return ["(", *(line for lines in items for line in (*lines[:-1], lines[-1] + ",")), ")"]
    return [_scalar_text(value)]


def _scalar_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DimExpr):
        return f"<{value}>"
    if isinstance(value, DType):
        return value.name
    raise TypeError(f"an attribute cannot be a {type(value).__name__}: {value!r}")


def _graph_lines(graph: Graph, root: bool) -> list[str]:
    inputs = ", ".join(f"{value_text(i)}: {graph.types[i]}" for i in graph.inputs)
    shown = [value_text(o) for o in graph.outputs]
    if graph.output_names:
        shown = [f"{o} as {json.dumps(name)}" for o, name in zip(shown, graph.output_names, strict=True)]
    body = [*_header_lines(graph)] if root else []
    body += [f"{value_text(k)}: {c.type} = {_constant_text(c)}" for k, c in graph.constants.items()]
    for node in graph.nodes:
        body += _node_lines(node, graph.types)
    lines = [f"graph {json.dumps(graph.name)}({inputs}) -> ({', '.join(shown)}) {{"]
    return [*lines, *(f"  {line}" for line in body), "}"]


def _header_lines(graph: Graph) -> Iterator[str]:
    for name, r in graph.ranges.items():
        high = "inf" if r.hi >= INF else str(r.hi)
        opt = "" if r.opt is None else f" opt {r.opt}"
        multiple = "" if r.multiple == 1 else f" multiple {r.multiple}"
        yield f"sym {name} = [{r.lo}, {high}]{opt}{multiple}"
    for key, value in graph.metadata.items():
        yield f"meta {json.dumps(key)} = {json.dumps(value)}"


def _constant_text(constant: Constant) -> str:
    steps = "".join(f" | {name}{attr_lines(tuple(parameters))[0]}" for name, parameters in constant.transforms)
    return f"constant {_literal(constant) or json.dumps(constant.key)}{steps}"


def _literal(constant: Constant) -> str:
    """The content of a small constant, where the text says all of it; a folded one (key "....0") is not computed."""
    numel, dtype = constant.type.numel, constant.type.dtype
    if not isinstance(numel, int) or numel > SHOWN or "." in constant.key or ":" in constant.key:
        return ""
    if dtype.kind not in "fiub" or dtype.name == "bf16":
        return ""
    array = constant.load()
    items = [_number(v) for v in array.reshape(-1)]
    written = np.array([float(t) if dtype.is_float else int(t) if dtype.is_int else t == "true" for t in items])
    if constant_from(written.astype(dtype.numpy).reshape(array.shape), dtype).key != constant.key:
        return ""
    return items[0] if not array.shape else "[" + ", ".join(items) + "]"


def _number(value: np.generic) -> str:
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    if isinstance(value, np.floating):
        return str(value) if math.isfinite(value) else repr(float(value))
    return str(int(value))


def _node_lines(node: Node, types: Mapping[str, TensorType]) -> list[str]:
    outputs = ", ".join(f"{value_text(o)}: {types[o]}" if o in types else value_text(o) for o in node.outputs)
    lines = [f"{outputs} = {node.op}({', '.join(value_text(i) for i in node.inputs)})"]
    if node.attrs:
        lines[-1] += " {"
        for k, (key, value) in enumerate(node.attrs.items()):
            first, *rest = attr_lines(value)
            lines[-1] += f"{', ' if k else ''}{key} = {first}"
            lines += rest
        lines[-1] += "}"
    origins = ", ".join(_origin(o) for o in node.origin)
    if node.name != (node.origin[0] if node.origin else ""):
        origins = f"{json.dumps(node.name)}: {origins}"
    if origins:
        lines[-1] += f"  // {origins}"
    return lines


def _origin(name: str) -> str:
    return name if _ORIGIN.fullmatch(name) else json.dumps(name)
