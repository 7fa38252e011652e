"""Concatenations along the last axis whose parts are written where they lie: each is columns of the whole, which the
kernel that makes it stores between those of the others."""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.core.dim import symbols
from bessemer.core.interval import Ranges
from bessemer.ir import expr as ex
from bessemer.ir.graph import Graph, Node, TensorType
from bessemer.ir.opdef import OPS, Fusion
from bessemer.kernels.base import Into, Operand, Problem
from bessemer.lower.views import join_offsets, view_offset


def columns_of(node: Node, types: Mapping[str, TensorType]) -> dict[str, Into]:
    """Where each part of a concatenation along the last axis lies; none where `node` is no such, a part is there twice,
    or a width is not known."""
    if node.op != "concat" or node.attrs["axis"] != types[node.outputs[0]].rank - 1:
        return {}
    if not 1 < len(set(node.inputs)) == len(node.inputs):
        return {}
    widths = [d for part in node.inputs if isinstance(d := types[part].shape[-1], int) and d > 0]
    if len(widths) < len(node.inputs):
        return {}
    return {part: Into(sum(widths[:k]), sum(widths)) for k, part in enumerate(node.inputs)}


def made_for(part: str, join: Node, graph: Graph, types: Mapping[str, TensorType]) -> bool:
    """Whether a kernel makes `part` and nothing else, and only `join` reads it."""
    producer = graph.producers.get(part)
    if producer is None or len(producer.outputs) != 1 or OPS.get(producer.op).fusion in (Fusion.HOST, Fusion.CONTROL):
        return False
    if view_offset(producer, graph, types) is not None or join_offsets(producer, graph, types) is not None:
        return False
    return part not in graph.outputs and graph.consumers[part] == (join,)


def copying(type_: TensorType, constant: bool, into: Into | None, ranges: Ranges) -> Problem:
    """Copies a tensor, into columns of a wider one or as it is."""
    body = ex.ComputeDef(type_.shape, type_.dtype, ex.load(0, ex.out_axes(type_.rank), type_.dtype))
    used = tuple((s, ranges[s]) for s in sorted({s for d in type_.shape for s in symbols(d)}))
    return Problem("group", (Operand(type_, constant),), (type_,), body=body, ranges=used, into=into)
