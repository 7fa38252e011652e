"""Scales and shifts after a convolution or matmul go into its weights.

    y = conv(x, w) * s          ->  conv(x, w * s)                  s per output channel
    y = (conv(x, w) + b) * s    ->  conv(x, w * s) + b * s

so that batch norm after a convolution costs nothing. The new weights are lazy: computed when the engine is written.
16-bit ones are looked at before: where one would leave the range of its dtype, the scale stays where it is.
"""

from __future__ import annotations

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir.graph import Node, TensorType
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

LARGEST = {dt.f16: 65504.0, dt.bf16: float.fromhex("0x1.fep127")}
SMALLEST = {dt.f16: 2.0**-14, dt.bf16: 2.0**-126}  # that have all digits


def fold_affine(e: Editor, options: PassOptions) -> None:
    """Apply the rules above until no scale is left behind a linear op."""
    for node in e.nodes():
        if node.op != "mul" or not e.alive(node):
            continue
        for k in (0, 1):
            if e.constant_of(node.inputs[k]) is not None and _fold(e, node, node.inputs[1 - k], node.inputs[k]):
                break


def _fold(e: Editor, node: Node, value: str, scale: str) -> bool:
    if e.only_user(value) is None or e.type(value) != e.type(node.outputs[0]):
        return False
    add = e.producer(value, "add")
    if add is not None:
        for k in (0, 1):
            bias, linear = add.inputs[k], add.inputs[1 - k]
            if e.constant_of(bias) is None or e.only_user(linear) is None or e.type(linear) != e.type(value):
                continue
            # A shift that loses digits to its size loses no more than the sum that it goes into.
            scaled = _scaled(e, linear, scale) if _fits(e, bias, scale, subnormal=True) else None
            if scaled is not None:
                shift = e.emit("mul", (bias, scale), like=(node,))
                e.replace(node.outputs[0], e.emit("add", (scaled, shift), like=(add, node)))
                return True
        return False
    scaled = _scaled(e, value, scale)
    if scaled is not None:
        e.replace(node.outputs[0], scaled)
    return scaled is not None


def _scaled(e: Editor, value: str, scale: str) -> str | None:
    """The linear op behind `value` with `scale` in its weights, or None."""
    node = e.producer(value)
    if node is None or node.op not in ("conv", "matmul") or e.constant_of(node.inputs[1]) is None:
        return None
    out, s = e.type(value), e.type(scale)
    axis = _channel_axis(node, out)
    lead = out.rank - s.rank
    if any(d != 1 for k, d in enumerate(s.shape) if k + lead != axis) or s.dtype != out.dtype:
        return None
    weight = e.type(node.inputs[1])
    count = s.shape[axis - lead] if axis >= lead else 1
    if node.op == "conv":
        shape = (count, *(1,) * (weight.rank - 1))
    elif weight.rank == 2:
        shape = (count, 1) if node.attrs["transpose_b"] else (1, count)
    else:
        return None
    factor = e.emit("reshape", (scale,), {"shape": shape}, like=(node,))
    if not _fits(e, node.inputs[1], factor):
        return None
    new = e.emit("mul", (node.inputs[1], factor), like=(node,))
    return e.emit(node.op, (node.inputs[0], new), node.attrs, like=(node,))


def _fits(e: Editor, value: str, factor: str, subnormal: bool = False) -> bool:
    """Whether no element of a 16-bit constant times a factor overflows, nor is too small to keep its digits."""
    dtype = e.type(value).dtype
    if dtype not in LARGEST:
        return True
    a, b = e.array(value), e.array(factor)
    assert a is not None and b is not None
    with np.errstate(all="ignore"):
        size = np.abs(a.astype(np.float32) * b.astype(np.float32))
    # Exact in f32, but beyond its range, where 16 bits hold nothing either.
    least = 0.0 if subnormal else SMALLEST[dtype]
    small = (size < least) & (a != 0) & (b != 0)
    return bool((size <= LARGEST[dtype]).all() and not small.any())


def _channel_axis(node: Node, out: TensorType) -> int:
    return 1 if node.op == "conv" and node.attrs["layout"] == "NCHW" else out.rank - 1


PASS = Pass("fold_affine", fold_affine, repeat=True)
