"""Pow, whose exponent may have a dtype of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Sample
from bessemer.ops.elementwise import draw_samples, register_pointwise


def _first(dtypes: Sequence[DType], attrs: Mapping[str, Attr]) -> DType:
    return dtypes[0]


def _reference(x: np.ndarray, y: np.ndarray, attrs: Mapping[str, Attr]) -> Any:
    if x.dtype.kind in "iu" and y.dtype.kind in "iu":
        inverse = np.where(np.abs(x) == 1, x ** np.abs(y % 2), 0)  # 1 and -1 are the only integers with an inverse
        return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0).astype(x.dtype))).astype(x.dtype)
    if x.dtype.kind == "f" and y.dtype.kind in "iu":
        return np.power(x, y.astype(x.dtype))
    if (y == 0.5).any():  # numpy takes roots where one exponent is broadcast: of -inf no number, where pow gives inf
        y = np.array(np.broadcast_to(y, np.broadcast_shapes(x.shape, y.shape)))
    return np.power(x, y).astype(x.dtype)


def _scalar(x: ex.Expr, y: ex.Expr, attrs: Mapping[str, Attr]) -> ex.Expr:
    if x.dtype.is_float:
        wide = dt.f64 if dt.f64 in (x.dtype, y.dtype) else x.dtype if x.dtype == y.dtype else dt.f32
        return ex.cast(ex.call("pow", ex.cast(x, wide), ex.cast(y, wide)), x.dtype)
    return ex.cast(ex.call("pow", ex.cast(x, dt.f64), ex.cast(y, dt.f64)), x.dtype)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    mixed = Sample((rng.uniform(0.1, 3, (4, 3)).astype(np.float32), rng.integers(-2, 4, (3,))))
    whole = Sample((rng.integers(-5, 6, (4, 3)), rng.integers(0, 4, (3,))))
    return (*draw_samples(("positive", "unit"), ("f32", "f16", "f64"))(rng), mixed, whole)


register_pointwise("pow", 2, _reference, _scalar, _samples, out=_first)


@onnx_op("Pow", since=(7, 12, 13, 15))
def _pow(ctx: ImportContext) -> Values:
    return ctx.emit("pow", ctx.input(0), ctx.input(1))
