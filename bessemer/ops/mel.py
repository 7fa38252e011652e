"""MelWeightMatrix: op `mel_weights`, the filters from a spectrogram to mel bins. Its operands are five scalars, nearly
always constant, so that it folds while importing; else it runs on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    def known(k: int, hint: str) -> Dim | None:
        value = ctx.value(k)
        assert ctx.fresh is not None
        return int(value.reshape(())) if value is not None and value.dtype != object else ctx.fresh(hint, None)

    bins, length = known(0, "mels"), known(1, "frequencies")
    frequencies = length // 2 + 1 if isinstance(length, int) else length
    assert bins is not None and frequencies is not None
    return (TensorType(ctx.attr("dtype"), (frequencies, bins)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Triangles between neighbouring mel frequencies, each rounded down to a bin of the spectrogram."""
    bins, length, rate, low, high = (float(np.asarray(i).reshape(())) for i in inputs)
    count = int(bins)
    ends = [2595 * math.log10(1 + edge / 700) for edge in (low, high)]
    mels = ends[0] + np.arange(count + 2) * (ends[1] - ends[0]) / (count + 2)
    points = ((length + 1) * 700 * (10 ** (mels / 2595) - 1) // rate).astype(np.int64)
    out = np.zeros((int(length) // 2 + 1, count))
    for k, (left, center, right) in enumerate(zip(points, points[1:], points[2:])):
        if left == center:
            out[center, k] = 1
        else:
            out[left : center + 1, k] = np.arange(center - left + 1) / (center - left)
        if right > center:
            out[center:right, k] = np.arange(right - center, 0, -1) / (right - center)
    return (out.astype(attrs["dtype"].numpy),)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    scalars = (np.array(8), np.array(32), np.array(8192), np.array(rng.uniform(0, 50), np.float32), np.float32(4096))
    return (Sample(tuple(np.asarray(s) for s in scalars), {"dtype": dt.f32}),)


register(OpDef("mel_weights", _infer, _reference, Fusion.HOST, samples=_samples))


@onnx_op("MelWeightMatrix", since=(17,))
def _import(ctx: ImportContext) -> Values:
    dtype = ctx.dtype_attr("output_datatype", dt.f32)
    return ctx.emit("mel_weights", *(ctx.input(k) for k in range(5)), dtype=dtype)
