"""Importing nodes: dispatch to importers, inline functions and subgraphs, and collect what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from bessemer.core import dtype as dt
from bessemer.core.errors import BessemerError, InvalidModel, ShapeError
from bessemer.frontend import attributes, functions, opsets
from bessemer.frontend.choices import check_choices
from bessemer.frontend.opsets import OpVersion
from bessemer.frontend.problems import Problem
from bessemer.frontend.scope import ABSENT, Scope, Skipped
from bessemer.frontend.signature import declared_type
from bessemer.frontend.sizes import check_result, check_sizes
from bessemer.frontend.structure import MAX_NODES, Functions, call_key, subgraphs
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Graph, TensorType
from bessemer.ir.importer import ImportContext, Refusal

_BROKEN = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


class NodeImporter:
    """Imports the nodes of one model; `problems` fills up with what is refused."""

    def __init__(self, local_functions: Functions) -> None:
        self._functions = local_functions
        self._count = 0
        self.problems: list[Problem] = []

    def nodes(self, scope: Scope, nodes: Sequence[onnx.NodeProto]) -> None:
        """Import `nodes` in order into the scope's graph."""
        for index, node in enumerate(nodes):
            name = scope.path + (node.name or f"{node.op_type}_{index}")
            self._node(scope, node, name)

    def outputs(self, scope: Scope, names: Sequence[str]) -> tuple[str, ...]:
        """The values of a graph's outputs, each written inside that graph and distinct from its inputs."""
        out: list[str] = []
        for name in names:
            value = scope.lookup(name)
            builder = scope.builder
            if value in builder.sequences:
                raise Refusal(f"output {name!r} is a sequence; sequences exist only between nodes")
            if value not in builder.types or value in out:
                mark = builder.mark
                (copy,) = builder.emit("reshape", (value,), {"shape": builder.type(value).shape})
                value = builder.rename(copy, name, mark)
            out.append(value)
        return tuple(out)

    # -- one node -------------------------------------------------------------------------------------------------

    def _node(self, scope: Scope, node: onnx.NodeProto, name: str) -> None:
        self._count += 1
        if self._count > MAX_NODES:  # bodies of loops are imported more than once, and may be nested
            raise InvalidModel(f"the model holds more than {MAX_NODES} nodes", where=f"node {name!r}")
        key = call_key(node)
        version = None if key in self._functions else opsets.find(key[0], key[1], scope.opsets.get(key[0]))
        label = f"node {name!r} ({version or node.op_type})"
        mark = scope.builder.mark
        try:
            inputs = tuple((scope.lookup(i) or None) if i else None for i in node.input)
            if version is not None and version.reason:
                raise Refusal(version.reason)
            given = attributes.resolved(scope, node, label)
            if version is None:
                results = self._call_local(scope, node, given, inputs, name)
            else:
                results = self._import(scope, node, version, given, inputs, name, label)
            self._bind(scope, node, results, mark)
            return
        except Skipped:
            self._survey(scope, node, name, version)
        except Refusal as refusal:
            self.problems.append(Problem(str(version or node.op_type), name, str(refusal)))
            self._survey_inside(scope, node, name)
        except BessemerError as error:
            if error.where is not None:
                raise
            if isinstance(error, ShapeError):
                raise error.at(label) from error
            raise type(error)(error.what, where=label, fix=error.fix) from error
        except _BROKEN as error:
            raise InvalidModel(f"{node.op_type} cannot be imported: {error}", where=label) from error
        for out in node.output:
            scope.values[out] = None

    def _import(
        self, scope: Scope, node: onnx.NodeProto, version: OpVersion, given: Mapping[str, onnx.AttributeProto],
        inputs: tuple[str | None, ...], name: str, label: str,
    ) -> tuple[str, ...]:  # fmt: skip
        builder = scope.builder
        types = [None if i is None or i in builder.sequences else builder.type(i) for i in inputs]
        if version.schema is not None:
            attributes.check(given, version, types, len(node.output), label)
        if version.is_constant:
            return (self._constant(scope, given, node.output[0]),)
        if version.importer is None:
            function = functions.of_schema(version, scope.opsets[version.domain], node, given, types)
            bound = {**functions.schema_defaults(version), **given}
            return self._inline(scope, function, bound, inputs, node.output, name)
        if not version.takes_sequences and any(i in scope.builder.sequences for i in inputs):
            raise Refusal("an input is a sequence")
        narrow = next((t.dtype for t in types if t is not None and t.dtype.kind == "n"), None)
        if narrow is not None and not version.takes_narrow:
            raise Refusal(f"an input is {narrow}; only casts and quantization take it")
        values, dtypes = attributes.python_values(scope, given)
        check_sizes(version.name, values, types)
        check_choices(version.name, values)

        def subgraph(proto: onnx.GraphProto, input_types: Sequence[TensorType] | None) -> Graph:
            return self._subgraph(scope, proto, input_types, f"{name}/")

        def inline(proto: onnx.GraphProto) -> tuple[str, ...]:
            return self._inline_subgraph(scope, proto, f"{name}/")

        context = ImportContext(
            version.name, version.domain, version.since, name, inputs, tuple(node.output), values, scope.builder,
            subgraph, inline, dtypes,
        )  # fmt: skip
        results = version.importer(context)
        return (results,) if isinstance(results, str) else tuple(results)

    def _bind(self, scope: Scope, node: onnx.NodeProto, results: Sequence[str], mark: int) -> None:
        """Let the node's output names stand for `results`; what the node itself made is called after them."""
        made = {out for n in scope.builder.since(mark) for out in n.outputs}
        for k, out in enumerate(node.output):
            if not out:
                continue
            if k >= len(results) or not results[k]:
                raise Refusal(f"output {k} is not supported")
            value = results[k]
            if value not in scope.builder.sequences:
                check_result(scope.builder.type(value))
            fresh = value in made and list(results).count(value) == 1
            scope.values[out] = scope.builder.rename(value, out, mark) if fresh else value

    def _constant(self, scope: Scope, given: Mapping[str, onnx.AttributeProto], name: str) -> str:
        if len(given) != 1:
            raise InvalidModel(f"a Constant has one attribute, not {len(given)}", where=f"value {name!r}")
        ((key, attribute),) = given.items()
        if key == "value":
            return scope.builder.constant(scope.weights.constant(attribute.t), name=name)
        if key == "sparse_value":
            return scope.builder.constant(scope.weights.sparse(attribute.sparse_tensor), name=name)
        if key.startswith("value_string"):
            raise Refusal("strings are not supported")
        values, _ = attributes.python_values(scope, given)
        dtype = dt.f32 if key.startswith("value_float") else dt.i64
        return scope.builder.constant(np.asarray(values[key], dtype.numpy), dtype, name)

    # -- functions and subgraphs ----------------------------------------------------------------------------------

    def _call_local(
        self, scope: Scope, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto],
        inputs: tuple[str | None, ...], name: str,
    ) -> tuple[str, ...]:  # fmt: skip
        function = self._functions[call_key(node)]
        known = {*function.attribute, *(a.name for a in function.attribute_proto)}
        extra = [a for a in given if a not in known]
        if extra or len(inputs) > len(function.input) or len(node.output) > len(function.output):
            what = f"attribute {extra[0]}" if extra else f"{len(inputs)} inputs and {len(node.output)} outputs"
            raise InvalidModel(f"the local function {node.op_type} does not take {what}", where=f"node {name!r}")
        bound = {**{a.name: a for a in function.attribute_proto}, **given}
        return self._inline(scope, function, bound, inputs, node.output, name)

    def _inline(
        self, scope: Scope, function: onnx.FunctionProto, bound: Mapping[str, onnx.AttributeProto],
        inputs: Sequence[str | None], wanted: Sequence[str], name: str,
    ) -> tuple[str, ...]:  # fmt: skip
        """Import the body of a function into the caller's graph. Outputs that are not wanted may be missing in it."""
        imports = opsets.read_opsets(function.opset_import, f"function {function.name}", scope.opsets)
        inner = Scope(
            scope.builder, imports, scope.weights, attributes=bound, path=f"{name}/", depth=scope.depth + 1
        )
        for k, formal in enumerate(function.input):
            inner.values[formal] = (inputs[k] if k < len(inputs) else None) or ABSENT
        self.nodes(inner, function.node)
        return tuple(inner.lookup(o) if w else ABSENT for o, w in zip(function.output, wanted))

    def _subgraph(
        self, scope: Scope, proto: onnx.GraphProto, types: Sequence[TensorType] | None, path: str
    ) -> Graph:
        """Import a subgraph as a graph of its own that reads values of `scope`."""
        inner = self._inner(scope, GraphBuilder(proto.name or "body", parent=scope.builder), path)
        if types is not None and len(types) != len(proto.input):
            raise InvalidModel(f"the subgraph {proto.name!r} has {len(proto.input)} inputs, not {len(types)}")
        for k, info in enumerate(proto.input):
            type_ = types[k] if types is not None else declared_type(info)
            inner.values[info.name] = inner.builder.input(info.name, type_)
        inner.add_initializers(proto)
        self.nodes(inner, proto.node)
        return inner.builder.finish(self.outputs(inner, [o.name for o in proto.output]))

    def _inline_subgraph(self, scope: Scope, proto: onnx.GraphProto, path: str) -> tuple[str, ...]:
        inner = self._inner(scope, scope.builder, path)
        inner.add_initializers(proto)
        self.nodes(inner, proto.node)
        return tuple(inner.lookup(o.name) for o in proto.output)

    def _inner(self, scope: Scope, builder: GraphBuilder, path: str) -> Scope:
        return Scope(builder, scope.opsets, scope.weights, scope, scope.attributes, path, scope.depth + 1)

    # -- nodes that cannot be imported because an earlier one was refused ------------------------------------------

    def _survey(self, scope: Scope, node: onnx.NodeProto, name: str, version: OpVersion | None) -> None:
        """Report a skipped node if it is unsupported itself, and look inside it."""
        if version is not None and version.reason:
            self.problems.append(Problem(str(version), name, version.reason))
        elif version is None:
            function = self._functions[call_key(node)]
            imports = opsets.read_opsets(function.opset_import, f"function {function.name}", scope.opsets)
            inner = Scope(scope.builder, imports, scope.weights, depth=scope.depth + 1)
            self._survey_nodes(inner, function.node, f"{name}/")
        self._survey_inside(scope, node, name)

    def _survey_inside(self, scope: Scope, node: onnx.NodeProto, name: str) -> None:
        for graph in subgraphs(node):
            self._survey_nodes(scope, graph.node, f"{name}/")

    def _survey_nodes(self, scope: Scope, nodes: Sequence[onnx.NodeProto], path: str) -> None:
        for index, node in enumerate(nodes):
            key = call_key(node)
            version = None if key in self._functions else opsets.find(key[0], key[1], scope.opsets.get(key[0]))
            self._survey(scope, node, path + (node.name or f"{node.op_type}_{index}"), version)
