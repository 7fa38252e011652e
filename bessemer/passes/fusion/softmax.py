"""Softmax from its parts: e / sum(e) with e = exp(x - max(x)), or e = exp(x)."""

from __future__ import annotations

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "softmax"(%x: f32[N,8]) -> (%y) {
  sym N = [1, 64] opt 4
  %peak: f32[N,1] = reduce(%x) {kind = "max", axes = (1), keepdims = true}
  %shifted: f32[N,8] = sub(%x, %peak)
  %exp: f32[N,8] = exp(%shifted)
  %sum: f32[N,1] = reduce(%exp) {kind = "sum", axes = (1), keepdims = true}
  %y: f32[N,8] = div(%exp, %sum)
}
"""
AFTER = """
graph "softmax"(%x: f32[N,8]) -> (%v0) {
  sym N = [1, 64] opt 4
  %v0: f32[N,8] = softmax(%x) {axis = 1, log = false}
}
"""


def fuse_softmax(e: Editor, options: PassOptions) -> None:
    """Look at every division of an exponential by its own sum."""
    for node in e.nodes():
        if node.op == "div" and e.alive(node):
            _fuse(e, node)


def _fuse(e: Editor, div: Node) -> None:
    exp, total = e.producer(div.inputs[0], "exp"), e.producer(div.inputs[1], "reduce")
    if exp is None or total is None or total.inputs[0] != exp.outputs[0]:
        return
    axes = total.attrs["axes"]
    assert isinstance(axes, tuple)
    if total.attrs["kind"] != "sum" or not total.attrs["keepdims"] or len(axes) != 1:
        return
    x = exp.inputs[0]
    sub = e.producer(x, "sub")
    peak = e.producer(sub.inputs[1], "reduce") if sub is not None else None
    if sub is not None and peak is not None and peak.inputs[0] == sub.inputs[0]:
        if peak.attrs["kind"] == "max" and peak.attrs["axes"] == axes and peak.attrs["keepdims"]:
            x = sub.inputs[0]  # softmax subtracts the maximum itself
    e.replace(div.outputs[0], e.emit("softmax", (x,), {"axis": axes[0], "log": False}, like=(exp, total, div)))


PASS = Pass("fuse_softmax", fuse_softmax)
