"""Which nodes are views: the same bytes as their input, or a run of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.dim import product
from bessemer.ir.graph import Graph, Node, TensorType
from bessemer.ir.opdef import OPS, Fusion

ALIGN = 64  # bytes: kernels are compiled for operands that start at such an address at least


def view_offset(node: Node, graph: Graph, types: Mapping[str, TensorType]) -> int | None:
    """Bytes from the start of the input to the start of the output, or None where `node` is no view.

    A reshape is one; so is a slice along the outermost axis that is longer than 1, if what it slices is made by a
    kernel of this graph (the caller's buffers and weights are only used from their start).
    """
    if OPS.get(node.op).fusion is Fusion.VIEW:
        return 0
    if node.op != "slice" or not _made_here(node.inputs[0], graph, types):
        return None
    shape = types[node.inputs[0]].shape
    starts: tuple[Any, ...] = node.attrs["starts"]  # type: ignore[assignment]
    sizes: tuple[Any, ...] = node.attrs["sizes"]  # type: ignore[assignment]
    steps: tuple[Any, ...] = node.attrs["steps"]  # type: ignore[assignment]
    if not all(isinstance(d, int) for d in (*shape, *starts, *sizes)) or any(s != 1 for s in steps):
        return None
    axis = next((k for k, d in enumerate(shape) if d != 1), len(shape))
    if any(size != d for k, (size, d) in enumerate(zip(sizes, shape)) if k != axis) or axis == len(shape):
        return None
    offset = starts[axis] * product(shape[axis + 1 :]) * types[node.inputs[0]].dtype.itemsize
    return offset if isinstance(offset, int) and offset % ALIGN == 0 else None


def _made_here(value: str, graph: Graph, types: Mapping[str, TensorType]) -> bool:
    """Whether the bytes of `value` are written by a kernel of `graph`, and not by its caller."""
    producer = graph.producers.get(value)
    while producer is not None and view_offset(producer, graph, types) is not None:
        value = producer.inputs[0]
        producer = graph.producers.get(value)
    return producer is not None
