"""Which sizes a node takes to be equal without that being part of the types of its operands.

Each op tells its own (`OpDef.taken`, next to what infers its types); operands that are broadcast are here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bessemer.core.dim import Dim
from bessemer.core.interval import Range, compare
from bessemer.engine.program import Equality
from bessemer.ir.graph import Node, TensorType
from bessemer.ir.opdef import OPS, Fusion, InferContext


def equalities_of(node: Node, types: Mapping[str, TensorType], ranges: Mapping[str, Range]) -> Iterator[Equality]:
    """Those of a node that sizes within these ranges may break."""
    nodes = ", ".join(node.origin) or node.name
    taken = OPS.get(node.op).taken
    context = InferContext(tuple(types[i] if i else None for i in node.inputs), node.attrs, ranges)
    for left, right in taken(context) if taken else ():
        if compare(left, right, ranges)[0] is None:
            yield Equality(left, right, nodes)
    for left, right in _broadcast(node, types):
        if compare(left, right, ranges)[0] is None and compare(left, 1, ranges)[0] is not True:
            yield Equality(left, right, nodes, or_one=True)


def _broadcast(node: Node, types: Mapping[str, TensorType]) -> Iterator[tuple[Dim, Dim]]:
    """The sizes of operands, each of which is 1 or that of the result."""
    if OPS.get(node.op).fusion is Fusion.POINTWISE or node.op == "expand":
        whole = types[node.outputs[0]].shape
        for shape in (types[i].shape for i in node.inputs if i):
            yield from zip(reversed(shape), reversed(whole))
