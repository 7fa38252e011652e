"""Determinants of stacked square matrices, on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.interval import compare
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    if x.rank < 2 or compare(x.shape[-1], x.shape[-2], ctx.ranges)[0] is False:
        raise ValueError(f"{x} holds no square matrices")
    return (TensorType(x.dtype, x.shape[:-2]),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype),)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    return (Sample((x,)), Sample((x[0, 0],)))


register(OpDef("det", _infer, _reference, Fusion.HOST, samples=_samples))


@onnx_op("Det", since=(11, 22))
def _det(ctx: ImportContext) -> Values:
    return ctx.emit("det", ctx.input(0))
