"""Slices move behind reshapes that add or drop axes of size one: a kernel reads a slice as it goes, but no view of one.

    reshape(slice(x))   ->   slice(reshape(x))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import Dim
from bessemer.ir.graph import Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "late_slices"(%x: f32[4,6]) -> (%y) {
  %s: f32[4,2] = slice(%x) {starts = (0, 3), sizes = (4, 2), steps = (1, 1)}
  %r: f32[4,1,1,2] = reshape(%s) {shape = (4, 1, 1, 2)}
  %y: f32[4,1,1,2] = relu(%r)
}
"""
AFTER = """
graph "late_slices"(%x: f32[4,6]) -> (%y) {
  %v0: f32[4,1,1,6] = reshape(%x) {shape = (4, 1, 1, 6)}
  %r: f32[4,1,1,2] = slice(%v0) {starts = (0, 0, 0, 3), sizes = (4, 1, 1, 2), steps = (1, 1, 1, 1)}
  %y: f32[4,1,1,2] = relu(%r)
}
"""


def late_slices(e: Editor, options: PassOptions) -> None:
    """Where nothing else reads the slice."""
    for node in e.nodes():
        sliced = e.producer(node.inputs[0], "slice") if node.op == "reshape" else None
        if sliced is None or e.only_user(sliced.outputs[0]) is not node or not _pays(e, sliced, node):
            continue
        shape = e.type(node.outputs[0]).shape
        kept = _axes(e.type(sliced.inputs[0]).shape, e.type(sliced.outputs[0]).shape, shape)
        if kept is None:
            continue
        before = e.type(sliced.inputs[0]).shape
        whole = tuple(1 if k is None else before[k] for k in kept)
        attrs: dict[str, Any] = {"starts": 0, "sizes": 1, "steps": 1}
        for name, value in attrs.items():
            given: Any = sliced.attrs[name]
            attrs[name] = tuple(value if k is None else given[k] for k in kept)
        view = e.emit("reshape", (sliced.inputs[0],), {"shape": whole}, like=(node,))
        e.replace(node.outputs[0], e.emit("slice", (view,), attrs, like=(sliced,), hint=node.outputs[0]))


def _pays(e: Editor, sliced: Node, view: Node) -> bool:
    """Whether kernels of the view's readers can take the slice in, and none could compute it with what it reads."""
    readers = e.users(view.outputs[0])
    if view.outputs[0] in e.outputs or any(OPS.get(r.op).fusion is not Fusion.POINTWISE for r in readers):
        return False
    maker = e.producer(sliced.inputs[0])
    alone = maker is not None and e.only_user(sliced.inputs[0]) is sliced
    return not (alone and maker is not None and OPS.get(maker.op).fusion in (Fusion.POINTWISE, Fusion.INJECTIVE))


def _axes(before: Sequence[Dim], sliced: Sequence[Dim], shape: Sequence[Dim]) -> list[int | None] | None:
    """For each axis of the reshape's result the slice's axis that it is, or None for a new one of size one; None where
    the reshape does more than to add axes of size one and to drop such as the slice's input has too."""
    kept: list[int | None] = []
    k = 0
    for size in shape:
        while k < len(sliced) and sliced[k] != size and before[k] == 1:
            k += 1
        if k < len(sliced) and sliced[k] == size:
            kept.append(k)
            k += 1
        elif size == 1:
            kept.append(None)
        else:
            return None
    return kept if all(d == 1 for d in before[k:]) else None


PASS = Pass("late_slices", late_slices)
