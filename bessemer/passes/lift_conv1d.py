"""One-dimensional convolutions and pools become two-dimensional ones of height 1, so that one set of kernels serves."""

from __future__ import annotations

from bessemer.ir.graph import Attr, Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

PER_AXIS = {"strides": 1, "dilations": 1, "kernel": 1, "output_padding": 0, "out": 1}


def lift_conv1d(e: Editor, options: PassOptions) -> None:
    """[N, C, W] -> [N, C, 1, W] around the op; the reshapes are views."""
    for node in e.nodes():
        if node.op in ("conv", "conv_transpose", "pool") and e.type(node.inputs[0]).rank == 3:
            if node.attrs["layout"] == "NCHW" and len(node.outputs) == 1:
                _lift(e, node)


def _lift(e: Editor, node: Node) -> None:
    n, c, w = e.type(node.inputs[0]).shape
    inputs = [e.emit("reshape", (node.inputs[0],), {"shape": (n, c, 1, w)}, like=(node,))]
    for weight in node.inputs[1:]:
        shape = e.type(weight).shape
        inputs.append(e.emit("reshape", (weight,), {"shape": (*shape[:2], 1, *shape[2:])}, like=(node,)))
    attrs: dict[str, Attr] = dict(node.attrs)
    for name, value in PER_AXIS.items():
        if isinstance(attrs.get(name), tuple):
            attrs[name] = (value, *attrs[name])  # type: ignore[misc]
    pads = attrs["pads"]
    assert isinstance(pads, tuple)
    attrs["pads"] = (0, pads[0], 0, pads[1])
    out = e.emit(node.op, inputs, attrs, like=(node,))
    old = node.outputs[0]
    e.replace(old, e.emit("reshape", (out,), {"shape": e.type(old).shape}, like=(node,), hint=old))


PASS = Pass("lift_conv1d", lift_conv1d)
