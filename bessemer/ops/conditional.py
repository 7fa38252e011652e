"""Where, Clip and IsInf."""

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


def _where_dtype(dtypes: Sequence[DType], attrs: Mapping[str, Attr]) -> DType:
    if dtypes[0] != dt.bool_ or dtypes[1] != dtypes[2]:
        raise ValueError(f"where takes (bool, T, T), not ({', '.join(map(str, dtypes))})")
    return dtypes[1]


def _where_reference(c: np.ndarray, x: np.ndarray, y: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    return np.where(c.astype(bool), x, y)


register_pointwise(
    "where", 3,
    _where_reference,
    lambda c, x, y, attrs: ex.Select(c, x, y),
    lambda rng: [
        Sample((s.inputs[0].astype(bool), *s.inputs[1:]))  # type: ignore[union-attr]
        for s in draw_samples(("truth", "real", "real"), ("f32", "i64", "f16", "u8"))(rng)
    ],
    out=_where_dtype, symbolic=True,
)  # fmt: skip


@onnx_op("Where", since=(9, 16))
def _where(ctx: ImportContext) -> Values:
    return ctx.emit("where", ctx.input(0), ctx.input(1), ctx.input(2))


@onnx_op("Clip", since=(6,))
def _clip_attributes(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    for name, op in (("min", "max"), ("max", "min")):
        if name in ctx.attributes:
            x = ctx.emit(op, x, ctx.const(ctx.attr(name), ctx.dtype(x)))
    return x


@onnx_op("Clip", since=(11, 12, 13))
def _clip(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    for k, op in ((1, "max"), (2, "min")):  # the lower limit first: where the limits cross, the upper one wins
        x = ctx.emit(op, x, ctx.input(k)) if ctx.has(k) else x
    return x


def _isinf_scalar(x: ex.Expr, attrs: Mapping[str, Any]) -> ex.Expr:
    infinities = [v for v, asked in ((np.inf, attrs["positive"]), (-np.inf, attrs["negative"])) if asked]
    found: ex.Expr = ex.lit(False, dt.bool_)
    for value in infinities:
        hit = ex.call("eq", x, ex.lit(value, x.dtype))
        found = hit if value == infinities[0] else ex.call("or", found, hit)
    return found


def _isinf_reference(x: np.ndarray, attrs: Mapping[str, Any]) -> Any:
    return np.isinf(x) & (((x > 0) & attrs["positive"]) | ((x < 0) & attrs["negative"]))


register_pointwise(
    "isinf", 1, _isinf_reference, _isinf_scalar,
    lambda rng: [
        s
        for positive, negative in ((True, True), (True, False), (False, True), (False, False))
        for s in draw_samples(("special",), ("f32", "f16"), {"positive": positive, "negative": negative})(rng)[:2]
    ],
    out=lambda dtypes, attrs: dt.bool_,
)  # fmt: skip


@onnx_op("IsInf", since=(10, 20))
def _isinf(ctx: ImportContext) -> Values:
    positive, negative = bool(ctx.attr("detect_positive", 1)), bool(ctx.attr("detect_negative", 1))
    return ctx.emit("isinf", ctx.input(0), positive=positive, negative=negative)
