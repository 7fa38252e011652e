"""Layer norm and RMS norm from their parts.

    d = x - mean(x);  y = d / sqrt(mean(d * d) + eps)  [* scale] [+ bias]        layer norm
    y = x / sqrt(mean(x * x) + eps)  [* scale]                                   RMS norm

with the variance written as a square, a product or a pow, the division as a product with a reciprocal or rsqrt, and the
scale and bias as constants over the normalised axes.
"""

from __future__ import annotations

from bessemer.core.dim import Dim
from bessemer.ir.graph import Attr, Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions
from bessemer.passes.fusion.match import sides, with_scalar

BEFORE = """
graph "normalize"(%x: f32[2,8]) -> (%y) {
  %epsilon: f32[] = constant 0.0009765625
  %scale: f32[8] = constant "normal:1"
  %bias: f32[8] = constant "normal:2"
  %mean: f32[2,1] = reduce(%x) {kind = "mean", axes = (1), keepdims = true}
  %centred: f32[2,8] = sub(%x, %mean)
  %square: f32[2,8] = mul(%centred, %centred)
  %variance: f32[2,1] = reduce(%square) {kind = "mean", axes = (1), keepdims = true}
  %safe: f32[2,1] = add(%variance, %epsilon)
  %deviation: f32[2,1] = sqrt(%safe)
  %normal: f32[2,8] = div(%centred, %deviation)
  %scaled: f32[2,8] = mul(%normal, %scale)
  %y: f32[2,8] = add(%scaled, %bias)
}
"""
AFTER = """
graph "normalize"(%x: f32[2,8]) -> (%v0) {
  %c0: f32[8]
  %c1: f32[8]
  %v0: f32[2,8] = layer_norm(%x, %c0, %c1)
    {axis = 1, epsilon = 0.0009765625, mode = "layer", has_scale = true, has_bias = true}
}
"""


def fuse_normalize(e: Editor, options: PassOptions) -> None:
    """Start at every root of a mean of squares, then attach scale and bias."""
    for node in e.nodes():
        if node.op in ("div", "mul") and e.alive(node):
            _fuse_core(e, node)
    for node in e.nodes():
        if node.op == "layer_norm" and e.alive(node):
            _attach(e, node)


def _fuse_core(e: Editor, node: Node) -> None:
    for value, root in [tuple(node.inputs)] if node.op == "div" else list(sides(node)):
        found = _inverse_root(e, root, node.op)
        if found is None:
            continue
        squared, axis, epsilon, inner = found
        if squared != value or e.type(value) != e.type(node.outputs[0]):
            continue
        centred = _centred(e, value, axis)
        x, mode = (centred, "layer") if centred is not None else (value, "rms")
        attrs: dict[str, Attr] = {"axis": axis, "epsilon": epsilon, "mode": mode, "has_scale": False, "has_bias": False}
        e.replace(node.outputs[0], e.emit("layer_norm", (x,), attrs, like=(*inner, node)))
        return


def _inverse_root(e: Editor, value: str, op: str) -> tuple[str, int, float, list[Node]] | None:
    """(d, axis, epsilon) where `value` is sqrt(mean(d^2) + eps) (op div) or its reciprocal (op mul)."""
    node = e.producer(value)
    if node is None:
        return None
    nodes = [node]
    if op == "mul":
        if node.op in ("reciprocal", "div"):
            if node.op == "div" and e.scalar(node.inputs[0]) != 1.0:
                return None
            node = e.producer(node.inputs[-1], "sqrt")
        elif node.op != "rsqrt":
            return None
    if node is None or node.op not in ("sqrt", "rsqrt") or (op == "div" and node.op != "sqrt"):
        return None
    add = e.producer(node.inputs[0], "add")
    found = with_scalar(e, add) if add is not None else None
    if found is None:
        return None
    mean = e.producer(found[0], "reduce")
    axis = _mean_axis(e, mean) if mean is not None else None
    squared = _square_of(e, mean.inputs[0]) if mean is not None else None
    if axis is None or squared is None or mean is None or not mean.attrs["keepdims"]:
        return None
    return squared, axis, found[1], [*nodes, mean]


def _mean_axis(e: Editor, node: Node) -> int | None:
    """The first of the trailing axes that a mean goes over, or None."""
    axes, rank = node.attrs["axes"], e.type(node.inputs[0]).rank
    assert isinstance(axes, tuple)
    trailing = tuple(range(rank - len(axes), rank))
    return trailing[0] if node.attrs["kind"] == "mean" and axes == trailing and trailing else None


def _square_of(e: Editor, value: str) -> str | None:
    node = e.producer(value)
    if node is not None and node.op == "mul" and node.inputs[0] == node.inputs[1]:
        return node.inputs[0]
    if node is not None and node.op == "pow" and e.scalar(node.inputs[1]) == 2.0:
        return node.inputs[0]
    return None


def _centred(e: Editor, value: str, axis: int) -> str | None:
    """x where `value` is x - mean(x) over the same axes."""
    sub = e.producer(value, "sub")
    mean = e.producer(sub.inputs[1], "reduce") if sub is not None else None
    if sub is None or mean is None or mean.inputs[0] != sub.inputs[0] or _mean_axis(e, mean) != axis:
        return None
    return sub.inputs[0] if mean.attrs["keepdims"] else None  # else it broadcasts over other axes


def _attach(e: Editor, norm: Node) -> None:
    """Take a following scale (before any bias) and bias into the norm."""
    while True:
        user = e.only_user(norm.outputs[0])
        wanted = "has_bias" if user is not None and user.op == "add" else "has_scale"
        if user is None or user.op not in ("mul", "add") or norm.attrs[wanted] or norm.attrs["has_bias"]:
            return
        if user.op == "add" and norm.attrs["mode"] == "rms":
            return
        other = next((i for i in user.inputs if i != norm.outputs[0]), None)
        if other is None or not _spans(e, other, norm):
            return
        inputs, attrs = list(norm.inputs), {**norm.attrs, wanted: True}
        shape = _normalised(e, norm)
        if e.type(other).shape != shape:
            other = e.emit("reshape", (other,), {"shape": shape}, like=(user,))
        if user.op == "add" and not norm.attrs["has_scale"]:
            return
        new = e.emit("layer_norm", (*inputs, other), attrs, like=(norm, user))
        e.replace(user.outputs[0], new)
        producer = e.producer(new)
        assert producer is not None
        norm = producer


def _spans(e: Editor, value: str, norm: Node) -> bool:
    """Whether a constant has exactly the normalised axes (leading ones aside)."""
    t, out, tail = e.type(value), e.type(norm.outputs[0]), _normalised(e, norm)
    if e.constant_of(value) is None or t.dtype != out.dtype or t.rank < len(tail) or t.rank > out.rank:
        return False
    split = t.rank - len(tail)
    return t.shape[split:] == tail and all(d == 1 for d in t.shape[:split])


def _normalised(e: Editor, norm: Node) -> tuple[Dim, ...]:
    """The sizes of the axes that a norm goes over."""
    axis = norm.attrs["axis"]
    assert isinstance(axis, int)
    return e.type(norm.outputs[0]).shape[axis:]


PASS = Pass("fuse_normalize", fuse_normalize)
