"""Rounding of convolution weights to 16 bits so that every spatial filter keeps its sum.

What a convolution reads is mostly smooth: neighbours differ little, and after a ReLU nothing is negative. The error of
rounded weights is then about the error of their sum, the more so where the weights of a filter cancel, as in the first
depthwise layers of trained networks. So each tap takes over what rounding left of those before it. It costs nothing at
run time, and halves the error of MobileNetV2's weights.
"""

from __future__ import annotations

import numpy as np

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Constant, Node, TensorType
from bessemer.ir.rewrite import Editor

LONGEST = 64  # taps; longer filters are those of sound, which is not smooth


def has_filters(weight: TensorType) -> bool:
    """Whether weights [O, I, ...] of a convolution are filters of several taps, and not too many."""
    window = weight.shape[2:]
    if not all(isinstance(d, int) for d in window):
        return False
    return 1 < int(np.prod(window)) <= LONGEST  # type: ignore[arg-type]


def low_weight(e: Editor, node: Node, value: str, low: DType) -> str:
    """The f32 input `value` of `node` as `low`; a constant with filters of a convolution rounded as above."""
    constant = e.constant_of(value)
    if constant is not None and node.op == "conv" and value != node.inputs[0] and has_filters(constant.type):
        return e.constant(rounded(constant, low), hint=value)
    return e.emit("cast", (value,), {"to": low}, like=(node,))


def rounded(weight: Constant, low: DType) -> Constant:
    """f32 weights [O, I, ...] as `low`, f16 or bf16; computed when they are loaded."""

    def load() -> np.ndarray:
        array = weight.load()
        stored = keep_sums(array.reshape(*array.shape[:2], -1), low).reshape(array.shape)
        return dt.to_bf16(stored) if low == dt.bf16 else stored.astype(np.float16)

    return Constant(TensorType(low, weight.type.shape), load, canon.digest(["keep_sums", weight.key, low.name]))


def keep_sums(filters: np.ndarray, low: DType) -> np.ndarray:
    """[..., taps] rounded to `low`, held in f32; the sum over the taps is as near as the smallest of them allows."""
    order = np.argsort(-np.abs(filters), axis=-1)
    taps = np.take_along_axis(filters, order, -1).astype(np.float64)
    left = np.zeros(filters.shape[:-1])
    for k in range(filters.shape[-1]):
        wanted = taps[..., k] + left
        with np.errstate(over="ignore", invalid="ignore"):
            taps[..., k] = _nearest(wanted, low)
            left = np.where(np.isfinite(taps[..., k]), wanted - taps[..., k], 0)
    out = np.empty_like(filters, np.float32)
    np.put_along_axis(out, order, taps.astype(np.float32), -1)
    return out


def _nearest(values: np.ndarray, low: DType) -> np.ndarray:
    if low == dt.bf16:
        return dt.from_bf16(dt.to_bf16(values)).astype(np.float64)
    return values.astype(np.float16).astype(np.float64)
