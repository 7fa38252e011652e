"""Zero padding before a convolution becomes the convolution's own padding."""

from __future__ import annotations

from bessemer.core.interval import bounds
from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions


def fold_pad(e: Editor, options: PassOptions) -> None:
    """conv(pad(x, spatial axes, 0)) -> conv(x) with larger pads."""
    for node in e.nodes():
        if node.op == "conv" and e.alive(node):
            pad = e.producer(node.inputs[0], "pad")
            if pad is not None:
                _fold(e, node, pad)


def _fold(e: Editor, conv: Node, pad: Node) -> None:
    pads, own = pad.attrs["pads"], conv.attrs["pads"]
    assert isinstance(pads, tuple) and isinstance(own, tuple)
    rank = len(pads) // 2
    zero = len(pad.inputs) < 2 or not pad.inputs[1] or e.scalar(pad.inputs[1]) == 0.0
    spatial = range(2, rank) if conv.attrs["layout"] == "NCHW" else range(1, rank - 1)
    outside = [p for k, p in enumerate(pads) if k % rank not in spatial]
    inside = [pads[k] for k in spatial] + [pads[rank + k] for k in spatial]
    if pad.attrs["mode"] != "constant" or not zero or any(p != 0 for p in outside):
        return
    if any(bounds(p, e.ranges)[0] < 0 for p in inside):  # type: ignore[arg-type]
        return  # a crop, at some sizes at least
    total = tuple(a + b for a, b in zip(own, inside))  # type: ignore[operator,arg-type]
    new = e.emit("conv", (pad.inputs[0], conv.inputs[1]), {**conv.attrs, "pads": total}, like=(pad, conv))
    e.replace(conv.outputs[0], new)


PASS = Pass("fold_pad", fold_pad)
