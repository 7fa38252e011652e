"""Checks of a model's form, before anything is imported: names, order, cycles, recursion, depth and size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from bessemer.core.errors import InvalidModel
from bessemer.frontend.opsets import domain_of

MAX_DEPTH = 20  # of nested subgraphs, and of nested function calls
MAX_NODES = 1_000_000  # once all functions are inlined

FunctionKey = tuple[str, str, str]
Functions = Mapping[FunctionKey, onnx.FunctionProto]


def validate(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """Check the model; its local functions by (domain, name, overload). InvalidModel says what is wrong where."""
    functions: dict[FunctionKey, onnx.FunctionProto] = {}
    _check_text("the model", *(t for p in model.metadata_props for t in (p.key, p.value)))
    _check_text("the model", *(o.domain for o in model.opset_import))
    for function in model.functions:
        names = (function.name, function.domain, function.overload, *function.input, *function.output)
        _check_text("a local function", *names, *function.attribute, *(a.name for a in function.attribute_proto))
        key = (domain_of(function.domain), function.name, function.overload)
        if key in functions:
            raise InvalidModel(f"local function {_shown(key)} is defined twice")
        functions[key] = function
    _check_graph(model.graph, (), f"graph {model.graph.name!r}", 0)
    for key, function in functions.items():
        where = f"function {_shown(key)}"
        known = set(function.input)
        _check_nodes(function.node, (known,), where, 0)
        _check_outputs(function.output, (known,), where)
    _Expansion(functions).check(model.graph)
    return functions


def call_key(node: onnx.NodeProto) -> FunctionKey:
    """What the node calls, if that is a local function."""
    return (domain_of(node.domain), node.op_type, node.overload)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Graphs among the attributes of `node`."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_graph(graph: onnx.GraphProto, outer: tuple[set[str], ...], where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidModel(f"subgraphs are nested more than {MAX_DEPTH} deep", where=where)
    known: set[str] = set()
    values = (*graph.input, *graph.output)
    _check_text(where, graph.name, *(v.name for v in values), *(d.dim_param for v in values for d in dims_of(v)))
    for info in graph.input:
        if not info.name or info.name in known:
            what = f"two inputs are called {info.name!r}" if info.name else "an input has no name"
            raise InvalidModel(what, where=where)
        known.add(info.name)
    tensors = [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    _check_text(where, *tensors)
    seen: set[str] = set()
    for name in tensors:
        if not name or name in seen:
            what = f"two initializers are called {name!r}" if name else "an initializer has no name"
            raise InvalidModel(what, where=where)
        seen.add(name)
    scopes = (*outer, known | seen)
    _check_nodes(graph.node, scopes, where, depth)
    _check_outputs([o.name for o in graph.output], scopes, where)


def dims_of(info: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    """The declared dimensions of a tensor; none for other types."""
    return tuple(info.type.tensor_type.shape.dim) if info.type.WhichOneof("value") == "tensor_type" else ()


def _check_text(where: str, *names: str) -> None:
    """Protobuf gives a string that is not UTF-8 as bytes."""
    for name in names:
        if not isinstance(name, str):
            raise InvalidModel(f"the name {name!r} is not UTF-8", where=where)


def _check_outputs(outputs: Sequence[str], scopes: Sequence[set[str]], where: str) -> None:
    for name in outputs:
        if not any(name in s for s in scopes):
            raise InvalidModel(f"nothing produces the output {name!r}", where=where, fix="export the model again")


def _check_nodes(nodes: Sequence[onnx.NodeProto], scopes: tuple[set[str], ...], where: str, depth: int) -> None:
    """Every input is produced before it is read, and nothing is produced twice. Adds to the innermost scope."""
    own = scopes[-1]
    for index, node in enumerate(nodes):
        label = f"{where}, node {node.name or f'{node.op_type}_{index}'!r}"
        _check_text(label, node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        _check_text(label, *(t for a in node.attribute for t in (a.name, a.ref_attr_name)))
        if not node.op_type:
            raise InvalidModel("a node has no op type", where=label)
        for name in node.input:
            if name and not any(name in s for s in scopes):
                raise _undefined(name, nodes, index, label)
        for graph in subgraphs(node):
            _check_graph(graph, scopes, label, depth + 1)
        for name in node.output:
            if name and name in own:
                raise InvalidModel(f"the value {name!r} is produced twice", where=label)
            own.add(name)
    own.discard("")


def _undefined(name: str, nodes: Sequence[onnx.NodeProto], index: int, where: str) -> InvalidModel:
    """Why `name`, read by node `index`, is not there: a cycle, a wrong order, or nothing produces it."""
    producers = {out: k for k, node in enumerate(nodes) for out in node.output if out}
    if name not in producers:
        return InvalidModel(f"the value {name!r} is used and nothing produces it", where=where)
    back, stack = {producers[name]: -1}, [producers[name]]
    while stack:
        k = stack.pop()
        if k == index:
            path = [k]
            while back[path[-1]] >= 0:
                path.append(back[path[-1]])
            cycle = " -> ".join(nodes[j].name or f"{nodes[j].op_type}_{j}" for j in (*path, k))
            return InvalidModel(f"the graph has a cycle: {cycle}", where=where)
        for source in nodes[k].input:
            if source in producers and producers[source] not in back:
                back[producers[source]] = k
                stack.append(producers[source])
    return InvalidModel(
        f"the value {name!r} is used before it is produced", where=where, fix="sort the nodes topologically"
    )


class _Expansion:
    """Recursion and size of what function calls expand to."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._size: dict[FunctionKey, int] = {}
        self._calls: list[FunctionKey] = []

    def check(self, graph: onnx.GraphProto) -> None:
        size = self._nodes(graph.node)
        for key in self._functions:
            self._function(key)
        if size > MAX_NODES:
            raise InvalidModel(f"the model has {size} nodes once its functions are inlined; the limit is {MAX_NODES}")

    def _nodes(self, nodes: Sequence[onnx.NodeProto]) -> int:
        size = 0
        for node in nodes:
            size += 1
            if (key := call_key(node)) in self._functions:
                size += self._function(key)
            size += sum(self._nodes(g.node) for g in subgraphs(node))
        return size

    def _function(self, key: FunctionKey) -> int:
        if key in self._calls:
            path = [*self._calls[self._calls.index(key) :], key]
            raise InvalidModel(f"local functions call each other in a circle: {' -> '.join(map(_shown, path))}")
        if len(self._calls) >= MAX_DEPTH:
            raise InvalidModel(f"local functions call each other more than {MAX_DEPTH} deep")
        if key not in self._size:
            self._calls.append(key)
            self._size[key] = self._nodes(self._functions[key].node)
            self._calls.pop()
        return self._size[key]


def _shown(key: FunctionKey) -> str:
    domain, name, overload = key
    return ".".join(part for part in (domain, name) if part) + (f":{overload}" if overload else "")
