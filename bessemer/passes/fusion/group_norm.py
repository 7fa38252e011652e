"""Group norm from its instance-norm spelling.

    y = reshape(instance_norm(reshape(x, [N, G, -1])), shape of x) [* scale] [+ bias]      scale, bias per channel
"""

from __future__ import annotations

import numpy as np

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "group_norm"(%x: f32[2,4,3,5]) -> (%y) {
  %ones: f32[2] = constant [1.0, 1.0]
  %zeros: f32[2] = constant [0.0, 0.0]
  %scale: f32[4,1,1] = constant "normal:1"
  %bias: f32[4,1,1] = constant "normal:2"
  %groups: f32[2,2,30] = reshape(%x) {shape = (2, 2, 30)}
  %normal: f32[2,2,30] = group_norm(%groups, %ones, %zeros) {groups = 2, epsilon = 1e-05, layout = "NCHW"}
  %back: f32[2,4,3,5] = reshape(%normal) {shape = (2, 4, 3, 5)}
  %scaled: f32[2,4,3,5] = mul(%back, %scale)
  %y: f32[2,4,3,5] = add(%scaled, %bias)
}
"""
AFTER = """
graph "group_norm"(%x: f32[2,4,3,5]) -> (%v0) {
  %c0: f32[4]
  %c1: f32[4]
  %v0: f32[2,4,3,5] = group_norm(%x, %c0, %c1) {groups = 2, epsilon = 1e-05, layout = "NCHW"}
}
"""


def fuse_group_norm(e: Editor, options: PassOptions) -> None:
    """Undo the reshapes around an instance norm, then attach a per-channel scale and bias."""
    for node in e.nodes():
        if node.op == "group_norm" and e.alive(node):
            _undo_reshape(e, node)
    for node in e.nodes():
        if node.op == "group_norm" and e.alive(node):
            _attach(e, node)


def _undo_reshape(e: Editor, norm: Node) -> None:
    before, after = e.producer(norm.inputs[0], "reshape"), e.only_user(norm.outputs[0])
    if before is None or after is None or after.op != "reshape":
        return
    x, y = before.inputs[0], after.outputs[0]
    groups = norm.attrs["groups"]
    t, grouped = e.type(x), e.type(norm.inputs[0])
    if e.type(y) != t or t.rank < 3 or grouped.shape[0] != t.shape[0] or grouped.shape[1] != groups:
        return
    scale, bias = (e.scalar_fill(norm.inputs[k]) for k in (1, 2))
    channels = t.shape[1]
    if scale != 1.0 or bias != 0.0 or not isinstance(channels, int) or channels % int(groups):  # type: ignore[arg-type]
        return
    ones = e.constant(np.ones(channels, np.float32))
    zeros = e.constant(np.zeros(channels, np.float32))
    if e.type(ones).dtype != t.dtype:
        ones, zeros = (e.emit("cast", (c,), {"to": t.dtype}, like=(norm,)) for c in (ones, zeros))
    new = e.emit("group_norm", (x, ones, zeros), norm.attrs, like=(before, norm, after), hint=y)
    e.replace(y, new)


def _attach(e: Editor, norm: Node) -> None:
    """scale' = scale * s, bias' = bias * s + b for a per-channel s and b that follow."""
    while True:
        user = e.only_user(norm.outputs[0])
        if user is None or user.op not in ("mul", "add") or norm.attrs["layout"] != "NCHW":
            return
        other = next((i for i in user.inputs if i != norm.outputs[0]), None)
        vector = _per_channel(e, other, norm) if other is not None else None
        if vector is None:
            return
        x, scale, bias = norm.inputs
        if user.op == "mul":
            scale, bias = (e.emit("mul", (v, vector), like=(user,)) for v in (scale, bias))
        else:
            bias = e.emit("add", (bias, vector), like=(user,))
        new = e.emit("group_norm", (x, scale, bias), norm.attrs, like=(norm, user))
        e.replace(user.outputs[0], new)
        producer = e.producer(new)
        assert producer is not None
        norm = producer


def _per_channel(e: Editor, value: str, norm: Node) -> str | None:
    """A constant [.., C, 1, ..] over the norm's channels, as a vector [C]."""
    t, out = e.type(value), e.type(norm.outputs[0])
    shape = (*(1,) * (out.rank - t.rank), *t.shape)
    if e.constant_of(value) is None or t.dtype != out.dtype or e.type(norm.inputs[1]).dtype != t.dtype:
        return None
    if len(shape) != out.rank or shape[1] != out.shape[1] or any(d != 1 for k, d in enumerate(shape) if k != 1):
        return None
    return e.emit("reshape", (value,), {"shape": (out.shape[1],)}, like=(norm,))


PASS = Pass("fuse_group_norm", fuse_group_norm)
