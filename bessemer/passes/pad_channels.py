"""Images of few channels get as many as a GPU reads at once: 16 bytes, for the convolutions of 16-bit types.

The convolution's own padding is then written with them, so that its windows lie inside the image.
"""

from __future__ import annotations

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

RUN = 8  # channels of 16 bits in 16 bytes
LAYOUT_ONLY = frozenset({"cast", "reshape", "transpose"})  # what is done to an input ahead of its first convolution


def pad_channels(e: Editor, options: PassOptions) -> None:
    """conv(x, w) -> conv(pad(x), pad(w)) with channels of zeros, and without pads, where x is an input of the network.

    The padding is part of the kernel that changes the input's layout and dtype; elsewhere it would be one more pass
    over memory.
    """
    if options.target != "cuda" or options.precision == "fp32":
        return
    for node in e.nodes():
        if node.op == "conv" and node.attrs["layout"] == "NHWC" and node.attrs["groups"] == 1:
            channels = e.type(node.inputs[0]).shape[-1]
            narrow = e.type(node.inputs[0]).dtype.itemsize == 2
            if isinstance(channels, int) and channels % RUN and narrow and _from_input(e, node.inputs[0]):
                _pad(e, node, -channels % RUN)


def _from_input(e: Editor, value: str) -> bool:
    """Whether `value` is an input of the graph, in another layout and dtype, and is used once."""
    changed = False
    while (producer := e.producer(value)) is not None:
        if producer.op not in LAYOUT_ONLY or e.only_user(value) is None:
            return False
        value, changed = producer.inputs[0], True
    return changed and e.constant_of(value) is None


def _pad(e: Editor, conv: Node, count: int) -> None:
    x, w = conv.inputs[:2]
    rank = e.type(x).rank
    own = conv.attrs["pads"]
    assert isinstance(own, tuple)
    before, after = own[: rank - 2], own[rank - 2 :]
    around_x = (0, *before, 0, 0, *after, count)
    behind_w = tuple(count if k == rank + 1 else 0 for k in range(2 * rank))
    wider = [
        e.emit("pad", (value,), {"pads": pads, "mode": "constant"}, like=(conv,))
        for value, pads in ((x, around_x), (w, behind_w))
    ]
    attrs = {**conv.attrs, "pads": (0,) * len(own)}
    e.replace(conv.outputs[0], e.emit("conv", (*wider, *conv.inputs[2:]), attrs, like=(conv,)))


PASS = Pass("pad_channels", pad_channels)
