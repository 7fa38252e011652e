"""Layer or RMS norm over the last axis, and a product with constant weights behind it: op `norm_matmul`.

It stands for what one kernel may compute, and `lower` makes it of a layer_norm and a matmul. With mean m (0 for RMS
norm) and deviation s of a row of x,

    y = ((x @ w) - m sums[0]) / s + sums[1]

where w holds the norm's scale, sums[0] are the column sums of w, and sums[1] is the norm's bias times the product's
weights. Where `keep`, the second output is the norm itself: (x - m) / s * affine[0] + affine[1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import Fusion, InferContext, OpDef, register
from bessemer.ops.broadcasting import broadcast_shapes, same_dim


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, w, sums = ctx.type(0), ctx.type(1), ctx.type(2)
    n, k = w.shape[-2:] if ctx.attr("transpose_b") else w.shape[:-3:-1]
    if x.dtype != w.dtype or sums.dtype != dt.f32 or sums.shape != (*w.shape[:-2], 2, n):
        raise ValueError(f"norm_matmul takes tokens and weights of one dtype and f32 sums, not {x}, {w} and {sums}")
    same_dim(x.shape[-1], k, ctx.ranges)
    out = TensorType(x.dtype, (*broadcast_shapes([x.shape[:-2], w.shape[:-2]], ctx.ranges), x.shape[-2], n))
    if not ctx.attr("keep"):
        return (out,)
    if ctx.type(3) != TensorType(dt.f32, (2, k)):
        raise ValueError(f"norm_matmul takes a scale and a shift of {k} elements each, not {ctx.type(3)}")
    return (out, x)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Computed in f64."""
    x, w, sums = (np.asarray(i, np.float64) for i in inputs[:3] if i is not None)
    mean = x.mean(axis=-1, keepdims=True) if attrs["mode"] == "layer" else np.zeros((*x.shape[:-1], 1))
    centred = x - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + attrs["epsilon"])
    product = np.matmul(x, np.swapaxes(w, -1, -2) if attrs["transpose_b"] else w)
    out = (product - mean * sums[..., :1, :]) * inverse + sums[..., 1:, :]
    dtype = inputs[0].dtype  # type: ignore[union-attr]
    if not attrs["keep"]:
        return (out.astype(dtype),)
    affine = inputs[3]
    assert affine is not None
    return (out.astype(dtype), (centred * inverse * affine[0] + affine[1]).astype(dtype))


def _flops(ctx: InferContext) -> Dim:
    return 2 * _infer(ctx)[0].numel * ctx.type(0).shape[-1]


register(OpDef("norm_matmul", _infer, _reference, Fusion.TEMPLATE, flops=_flops))
