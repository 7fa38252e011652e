"""Which nodes cost nothing: views (the same bytes as their input, or a run of them), and joins of what is written in
place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.dim import Dim, product
from bessemer.core.interval import divisor
from bessemer.ir.graph import Graph, Node, TensorType
from bessemer.ir.opdef import OPS, Fusion

ALIGN = 64  # bytes: kernels are compiled for operands that start at such an address at least


def view_offset(node: Node, graph: Graph, types: Mapping[str, TensorType]) -> Dim | None:
    """Bytes from the start of the input to the start of the output, or None where `node` is no view.

    A reshape is one; so is a slice along the outermost axis that is longer than 1, if what it slices is made by a
    kernel of this graph (the caller's buffers and weights are only used from their start). Sizes inside that axis may
    be symbolic, and then the offset is.
    """
    if OPS.get(node.op).fusion is Fusion.VIEW:
        return 0
    if node.op != "slice" or not _made_here(node.inputs[0], graph, types):
        return None
    shape = types[node.inputs[0]].shape
    starts: tuple[Any, ...] = node.attrs["starts"]  # type: ignore[assignment]
    sizes: tuple[Any, ...] = node.attrs["sizes"]  # type: ignore[assignment]
    steps: tuple[Any, ...] = node.attrs["steps"]  # type: ignore[assignment]
    axis = next((k for k, d in enumerate(shape) if d != 1), len(shape))
    if axis == len(shape) or any(s != 1 for s in steps):
        return None
    if not all(isinstance(d, int) for d in (shape[axis], *starts, sizes[axis])):
        return None
    if any(size != d for k, (size, d) in enumerate(zip(sizes, shape)) if k != axis):
        return None
    offset = starts[axis] * product(shape[axis + 1 :]) * types[node.inputs[0]].dtype.itemsize
    return offset if divisor(offset, graph.ranges) % ALIGN == 0 else None


def join_offsets(node: Node, graph: Graph, types: Mapping[str, TensorType]) -> tuple[int, ...] | None:
    """Bytes from the start of the output at which the inputs are written in place, or None where they cannot be.

    A concatenation along the outermost axis that is longer than 1 is a join, if kernels of this graph make all inputs,
    and at least one is the result of a sum: fusing could not move that one into a kernel of the concatenation.
    """
    if node.op != "concat" or node.outputs[0] in graph.outputs or len(set(node.inputs)) < len(node.inputs):
        return None
    (out,), axis = node.outputs, node.attrs["axis"]
    if not isinstance(axis, int) or any(d != 1 for d in types[out].shape[:axis]):
        return None
    offsets, end = [], 0
    for part in node.inputs:
        nbytes = types[part].nbytes
        if not isinstance(nbytes, int) or end % ALIGN or not _placeable(part, node, graph, types):
            return None
        offsets.append(end)
        end += nbytes
    return tuple(offsets) if any(_is_sum(part, graph, types) for part in node.inputs) else None


def _placeable(part: str, join: Node, graph: Graph, types: Mapping[str, TensorType]) -> bool:
    """Whether a kernel writes `part` wherever it is told to: it is no view, no output, and no other concatenation's."""
    producer = graph.producers.get(part)
    if producer is None or part in graph.outputs or OPS.get(producer.op).fusion in (Fusion.HOST, Fusion.CONTROL):
        return False
    if view_offset(producer, graph, types) is not None or join_offsets(producer, graph, types) is not None:
        return False
    return all(user is join or user.op != "concat" for user in graph.consumers.get(part, ()))


def _is_sum(value: str, graph: Graph, types: Mapping[str, TensorType]) -> bool:
    """Whether a template or a reduction makes `value`, up to pointwise ops."""
    producer = graph.producers.get(value)
    while producer is not None and OPS.get(producer.op).fusion is Fusion.POINTWISE:
        same = (i for i in producer.inputs if i in graph.producers and types[i].shape == types[value].shape)
        producer = graph.producers.get(next(same, ""))
    return producer is not None and OPS.get(producer.op).fusion in (Fusion.TEMPLATE, Fusion.REDUCTION)


def _made_here(value: str, graph: Graph, types: Mapping[str, TensorType]) -> bool:
    """Whether one kernel of `graph` writes the bytes of `value`: not its caller, nor those that write parts of it."""
    producer = graph.producers.get(value)
    while producer is not None and view_offset(producer, graph, types) is not None:
        value = producer.inputs[0]
        producer = graph.producers.get(value)
    return producer is not None and join_offsets(producer, graph, types) is None
