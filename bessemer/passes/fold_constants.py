"""Computes what depends on constants alone: the nodes that importing leaves for passes to see (see OpDef.explicit)."""

from __future__ import annotations

from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions


def fold_constants(e: Editor, options: PassOptions) -> None:
    """Nodes over constants become constants, loaded when they are needed; what follows them follows."""
    for node in e.nodes():
        op = OPS.get(node.op)
        fixed = all(isinstance(d, int) for o in node.outputs if o for d in e.type(o).shape)
        if op.random or op.fusion is Fusion.CONTROL or not fixed or not node.inputs:
            continue
        if all(e.constant_of(i) is not None for i in node.inputs if i):
            for old, new in zip(node.outputs, e.emit_all(node.op, node.inputs, node.attrs, like=(node,))):
                e.replace(old, new)


PASS = Pass("fold_constants", fold_constants)
