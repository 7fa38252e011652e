"""What a command reads is not written over: neither by its own path nor by a link or another spelling of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bessemer.core.errors import InputError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

Read = tuple[str, str | Path]  # what a file is to the command, and its path


def check_kept(option: str, output: Path | None, read: Iterable[Read]) -> None:
    """InputError where `output`, which `option` named, is a file that the command reads."""
    for what, path in read if output is not None else ():
        if _same(str(output), str(path)):
            raise InputError(f"{option} would write over {what}", where=str(output), fix="name another file")


def _same(a: str, b: str) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one is not there (yet)
        return os.path.realpath(a) == os.path.realpath(b)


def files_of(model: Path) -> Iterator[Read]:
    """The model's own file, and those that hold its weights."""
    yield "the model", model
    from bessemer.frontend import loading

    proto = loading.load(model).proto
    tensors = [t for nodes in (f.node for f in proto.functions) for t in _of_nodes(nodes)]
    tensors += _of_graph(proto.graph)
    locations = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    for location in sorted(locations):
        yield "weights of the model", model.parent / location


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    from bessemer.frontend.structure import subgraphs

    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for graph in subgraphs(node):
            yield from _of_graph(graph)
