"""ONNX models in, graphs out.

    graph = import_model("model.onnx", profiles=[Profile({"x": ((1, 3, 64, 64), (1, 3, 224, 224), (8, 3, 512, 512))})])

Everything wrong with a model is an error of one tree: InvalidModel for a malformed one (the first fault found),
UnsupportedModel for a valid one that holds what is not supported (all of it at once), ShapeError for shapes and
profiles that do not fit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from bessemer.core.errors import InvalidModel, ShapeError
from bessemer.core.interval import compare
from bessemer.frontend import loading, opsets, signature
from bessemer.frontend.multiples import MultipleSearch
from bessemer.frontend.nodes import NodeImporter
from bessemer.frontend.problems import Problem, error_of
from bessemer.frontend.profile import Profile
from bessemer.frontend.same_sizes import SameSizes
from bessemer.frontend.scope import Scope, Skipped
from bessemer.frontend.structure import Functions, subgraphs, validate
from bessemer.frontend.weights import Weights
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Graph
from bessemer.ir.importer import ONNX_DTYPES, Refusal

log = logging.getLogger(__name__)


def import_model(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    profiles: Sequence[Profile] | None = None,
) -> Graph:
    """Import `model`. `shapes` fixes inputs, `profiles` give the ranges of the dynamic ones (their union is allowed).

    A dynamic dimension with neither is any size from 1 to 2**20, tuned at 1 on the first axis and 128 on others. Where
    the model's shapes fit at multiples of 2, 4, ... 64 only, the dimension is held to these (its range says so), and
    where they fit only if two dimensions are equal that have names of their own, one is taken to be the other.
    The graph keeps the names and order of inputs and outputs, the metadata, and the ONNX node names as origins.
    An input that has an initializer is that constant, unless `shapes` or a profile names it.
    """
    loaded = loading.load(model)
    proto = loaded.proto
    functions = validate(proto)
    search, same = MultipleSearch(), SameSizes()
    while True:
        try:
            graph = _import(loaded, functions, shapes, profiles, search, same)
        except ShapeError as error:
            if not same.advance(error, search.ranges) and not search.advance(error):
                raise search.told(error) from error
            continue
        search.report()
        same.report()
        return graph


def _import(
    loaded: loading.Loaded, functions: Functions, shapes: Mapping[str, Sequence[int]] | None,
    profiles: Sequence[Profile] | None, search: MultipleSearch, same: SameSizes,
) -> Graph:  # fmt: skip
    proto = loaded.proto
    imports = opsets.read_opsets(proto.opset_import, loaded.source)
    if not imports:
        raise InvalidModel("the model imports no opset", where=loaded.source, fix="export it again")
    named = {*(shapes or {}), *(name for p in profiles or () for name in p.inputs)}
    preset = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    infos = [i for i in proto.graph.input if i.name not in preset or i.name in named]
    importer = NodeImporter(functions)
    refused = {i.name: reason for i in infos if (reason := signature.refusal(i))}
    importer.problems += [Problem("input", name, reason) for name, reason in refused.items()]
    supported = [i for i in infos if i.name not in refused]
    shapes = {name: shape for name, shape in (shapes or {}).items() if name not in refused}
    profiles = [Profile({n: r for n, r in p.inputs.items() if n not in refused}) for p in profiles or ()]
    resolved = signature.signature(supported, shapes, profiles, search.multiples, same)
    search.ranges, search.inputs = resolved.ranges, resolved.types
    builder = GraphBuilder(proto.graph.name or "main", resolved.ranges)
    same.builder = builder
    scope = Scope(builder, imports, Weights(loaded.folder, loaded.slices))
    scope.add_initializers(proto.graph)
    for info in infos:
        scope.pending.pop(info.name, None)
        type_ = resolved.types.get(info.name)
        scope.values[info.name] = None if type_ is None else builder.input(info.name, type_)
    importer.nodes(scope, proto.graph.node)
    names = tuple(o.name for o in proto.graph.output)
    values = _outputs(importer, scope, names)
    if importer.problems:
        raise error_of(importer.problems)
    for info, value in zip(proto.graph.output, values):
        _check_output(builder, info, value)
    graph = builder.finish(values, {p.key: p.value for p in proto.metadata_props}, names)
    return replace(graph, source_nodes=_node_count(proto.graph))


def _node_count(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of the graphs nested in it."""
    return sum(1 + sum(_node_count(inner) for inner in subgraphs(node)) for node in graph.node)


def _outputs(importer: NodeImporter, scope: Scope, names: Sequence[str]) -> tuple[str, ...]:
    try:
        return importer.outputs(scope, names)
    except Skipped:
        return ()
    except Refusal as refusal:
        importer.problems.append(Problem("output", ", ".join(names), str(refusal)))
        return ()


def _check_output(builder: GraphBuilder, info: onnx.ValueInfoProto, value: str) -> None:
    """Compare an output with its declaration: another element type is an error, another shape is logged.

    Exporters write wrong output shapes (even wrong ranks) into models that run well, so inference is believed.
    """
    if info.type.WhichOneof("value") != "tensor_type":
        return
    inferred, tensor = builder.type(value), info.type.tensor_type
    declared = ONNX_DTYPES.get(tensor.elem_type)
    if tensor.elem_type and declared != inferred.dtype:
        raise InvalidModel(
            f"output {info.name!r} is declared {declared or tensor.elem_type}, and its node gives {inferred.dtype}",
            fix="export the model again; its declaration contradicts its nodes",
        )
    if not tensor.HasField("shape"):
        return
    dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim]
    agree = len(dims) == inferred.rank and all(
        d is None or d < 0 or compare(d, i, builder.ranges)[0] is not False for d, i in zip(dims, inferred.shape)
    )
    if not agree:
        log.warning("output %r is declared with shape %s; its nodes give %s", info.name, dims, inferred)
