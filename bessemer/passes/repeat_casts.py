"""A cast from 16 bits to fp32, with its factor where it has one, is repeated for each of its readers.

Each kernel then reads the 16 bits and casts; a cast that kernels share would be one more kernel, and twice the bytes.
"""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.ir.graph import Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

FUSED = frozenset({Fusion.POINTWISE, Fusion.INJECTIVE, Fusion.REDUCTION})


def repeat_casts(e: Editor, options: PassOptions) -> None:
    """Last readers first, so that a factor is repeated before the cast that it reads."""
    for node in reversed(list(e.nodes())):
        if _is_cast(e, node) or _is_factor(e, node):
            readers = [u for u in e.users(node.outputs[0]) if OPS.get(u.op).fusion in FUSED]
            first = 0 if len(readers) < _uses(e, node) else 1
            for reader in readers[first:]:
                copy = e.emit(node.op, node.inputs, node.attrs, like=(node,))
                inputs = tuple(copy if i == node.outputs[0] else i for i in reader.inputs)
                e.update(reader, inputs=inputs)


def _uses(e: Editor, node: Node) -> int:
    return len(e.users(node.outputs[0])) + (node.outputs[0] in e.outputs)


def _is_cast(e: Editor, node: Node) -> bool:
    return node.op == "cast" and node.attrs["to"] == dt.f32 and e.type(node.inputs[0]).dtype in (dt.f16, dt.bf16)


def _is_factor(e: Editor, node: Node) -> bool:
    """Whether `node` multiplies such a cast by a number."""
    if node.op != "mul" or e.scalar(node.inputs[1]) is None:
        return False
    cast = e.producer(node.inputs[0], "cast")
    return cast is not None and _is_cast(e, cast) and e.type(node.inputs[0]) == e.type(node.outputs[0])


PASS = Pass("repeat_casts", repeat_casts)
