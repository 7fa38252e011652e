"""Activation functions. 16-bit floats are computed in f32 and rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Sample
from bessemer.ops.elementwise import draw_samples, register_pointwise
from bessemer.ops.pointwise import FLOATS, erf, sigmoid

Attrs = Mapping[str, Any]
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
GELU_TANH = math.sqrt(2 / math.pi)


def _call(fn: str) -> Callable[..., ex.Expr]:
    """A scalar function whose plain numbers take the dtype of the first expression."""

    def apply(*args: ex.Expr | float) -> ex.Expr:
        dtype = next(a.dtype for a in args if not isinstance(a, (int, float)))
        return ex.call(fn, *(ex.lit(a, dtype) if isinstance(a, (int, float)) else a for a in args))

    return apply


_add, _sub, _mul, _div, _min, _max = (_call(fn) for fn in ("add", "sub", "mul", "div", "min", "max"))
_lt, _gt = _call("lt"), _call("gt")


def _where(cond: ex.Expr, a: ex.Expr | float, b: ex.Expr | float) -> ex.Expr:
    dtype = next(v.dtype for v in (a, b) if not isinstance(v, (int, float)))
    return ex.Select(cond, *(ex.lit(v, dtype) if isinstance(v, (int, float)) else v for v in (a, b)))


def _softplus(x: ex.Expr) -> ex.Expr:
    return _add(_max(x, 0), ex.call("log1p", ex.call("exp", ex.call("neg", ex.call("abs", x)))))


def _softplus_numpy(x: np.ndarray) -> Any:
    return np.logaddexp(x, np.zeros((), x.dtype))


def _gelu(x: ex.Expr, a: Attrs) -> ex.Expr:
    if a["approximate"] == "tanh":
        cubic = _mul(_mul(_mul(x, x), x), 0.044715)
        inner = ex.call("tanh", _mul(_add(x, cubic), GELU_TANH))
    else:
        inner = ex.call("erf", _mul(x, math.sqrt(0.5)))
    return _mul(_mul(x, 0.5), _add(inner, 1.0))


def _gelu_numpy(x: np.ndarray, a: Attrs) -> Any:
    if a["approximate"] == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2.0).astype(x.dtype)))


def _shrink(x: ex.Expr, a: Attrs) -> ex.Expr:
    return _where(_lt(x, -a["lambd"]), _add(x, a["bias"]), _where(_gt(x, a["lambd"]), _sub(x, a["bias"]), 0))


def _hard_sigmoid(x: ex.Expr, alpha: float, beta: float) -> ex.Expr:
    return _max(_min(_add(_mul(x, alpha), beta), 1), 0)


# name: (numpy, scalar, sample attributes)
TABLE: dict[str, tuple[Callable[..., Any], Callable[..., ex.Expr], Sequence[Mapping[str, Attr]]]] = {
    "leaky_relu": (
        lambda x, a: np.where(x < 0, a["alpha"] * x, x),
        lambda x, a: _where(_lt(x, 0), _mul(x, a["alpha"]), x),
        [{"alpha": 0.07}],
    ),
    "elu": (
        lambda x, a: np.where(x < 0, a["alpha"] * np.expm1(x), x),
        lambda x, a: _where(_lt(x, 0), _mul(ex.call("expm1", x), a["alpha"]), x),
        [{"alpha": 1.3}],
    ),
    "selu": (
        lambda x, a: a["gamma"] * np.where(x < 0, a["alpha"] * np.expm1(x), x),
        lambda x, a: _mul(_where(_lt(x, 0), _mul(ex.call("expm1", x), a["alpha"]), x), a["gamma"]),
        [{"alpha": SELU_ALPHA, "gamma": SELU_GAMMA}],
    ),
    "celu": (
        lambda x, a: np.maximum(x, 0) + np.minimum(0, a["alpha"] * np.expm1(x / a["alpha"])),
        lambda x, a: _where(_lt(x, 0), _mul(ex.call("expm1", _div(x, a["alpha"])), a["alpha"]), x),
        [{"alpha": 1.7}],
    ),
    "hard_sigmoid": (
        lambda x, a: np.clip(a["alpha"] * x + a["beta"], 0, 1),
        lambda x, a: _hard_sigmoid(x, a["alpha"], a["beta"]),
        [{"alpha": 0.2, "beta": 0.5}],
    ),
    "hard_swish": (
        lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x, a: _mul(x, _hard_sigmoid(x, 1 / 6, 0.5)),
        [{}],
    ),
    "silu": (lambda x, a: x * sigmoid(x), lambda x, a: _mul(x, ex.call("sigmoid", x)), [{}]),
    "gelu": (_gelu_numpy, _gelu, [{"approximate": "none"}, {"approximate": "tanh"}]),
    "mish": (
        lambda x, a: x * np.tanh(_softplus_numpy(x)),
        lambda x, a: _mul(x, ex.call("tanh", _softplus(x))),
        [{}],
    ),
    "softplus": (lambda x, a: _softplus_numpy(x), lambda x, a: _softplus(x), [{}]),
    "softsign": (lambda x, a: x / (1 + np.abs(x)), lambda x, a: _div(x, _add(ex.call("abs", x), 1)), [{}]),
    "thresholded_relu": (
        lambda x, a: np.where(x > a["alpha"], x, 0),
        lambda x, a: _where(_gt(x, a["alpha"]), x, 0),
        [{"alpha": 0.8}],
    ),
    "shrink": (
        lambda x, a: np.where(x < -a["lambd"], x + a["bias"], np.where(x > a["lambd"], x - a["bias"], 0)),
        _shrink,
        [{"lambd": 1.5, "bias": 0.3}],
    ),
}


def _wide_numpy(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def run(x: np.ndarray, attrs: Attrs) -> np.ndarray:
        wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
        return np.asarray(fn(wide, attrs)).astype(x.dtype)

    return run


def _wide_scalar(fn: Callable[..., ex.Expr]) -> Callable[..., ex.Expr]:
    def scalar(x: ex.Expr, attrs: Attrs) -> ex.Expr:
        return ex.cast(fn(ex.cast(x, dt.f64 if x.dtype == dt.f64 else dt.f32), attrs), x.dtype)

    return scalar


def _samples(attrs: Sequence[Mapping[str, Attr]]) -> Callable[[np.random.Generator], Sequence[Sample]]:
    return lambda rng: [s for a in attrs for s in draw_samples(("real",), FLOATS, a)(rng)]


for _name, (_fn, _scalar, _attrs) in TABLE.items():
    register_pointwise(_name, 1, _wide_numpy(_fn), _wide_scalar(_scalar), _samples(_attrs))

register_pointwise(
    "relu", 1, lambda x, attrs: np.maximum(x, np.zeros((), x.dtype)), lambda x, attrs: _max(x, 0),
    draw_samples(("real",), ("f32", "f16", "i32", "i8")),
)  # fmt: skip
register_pointwise(
    "prelu", 2,
    lambda x, slope, attrs: np.where(x < 0, slope * x, x),
    lambda x, slope, attrs: _where(_lt(x, 0), ex.call("mul", slope, x), x),
    draw_samples(("real", "real"), ("f32", "f16", "i32")),
)  # fmt: skip

# ONNX name: (IR op, since_versions, attributes and their defaults, by the IR's names where these differ)
ONNX: dict[str, tuple[str, tuple[int, ...], dict[str, float | str]]] = {
    "Relu": ("relu", (6, 13, 14), {}),
    "LeakyRelu": ("leaky_relu", (6, 16), {"alpha": 0.01}),
    "Elu": ("elu", (6, 22), {"alpha": 1.0}),
    "Selu": ("selu", (6, 22), {"alpha": SELU_ALPHA, "gamma": SELU_GAMMA}),
    "Celu": ("celu", (12, 28), {"alpha": 1.0}),
    "HardSigmoid": ("hard_sigmoid", (6, 22), {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": ("hard_swish", (14, 22), {}),
    "Gelu": ("gelu", (20,), {"approximate": "none"}),
    "Mish": ("mish", (18, 22), {}),
    "Softplus": ("softplus", (1, 22), {}),
    "Softsign": ("softsign", (1, 22), {}),
    "ThresholdedRelu": ("thresholded_relu", (10, 22), {"alpha": 1.0}),
    "Shrink": ("shrink", (9,), {"lambd": 0.5, "bias": 0.0}),
}


def _importer(op: str, defaults: Mapping[str, float | str]) -> Callable[[ImportContext], Values]:
    return lambda ctx: ctx.emit(op, ctx.input(0), **{k: ctx.attr(k, v) for k, v in defaults.items()})


for _onnx, (_op, _since, _defaults) in ONNX.items():
    onnx_op(_onnx, since=_since)(_importer(_op, _defaults))


@onnx_op("PRelu", since=(9, 16))
def _prelu(ctx: ImportContext) -> Values:
    return ctx.emit("prelu", ctx.input(0), ctx.input(1))


def _swish(ctx: ImportContext, x: str) -> str:
    alpha = ctx.attr("alpha", 1.0)
    if alpha == 1.0:
        return ctx.emit("silu", x)
    return ctx.emit("mul", x, ctx.emit("sigmoid", ctx.emit("mul", x, ctx.const(alpha, ctx.dtype(x)))))


@onnx_op("Swish", since=(24,))
def _import_swish(ctx: ImportContext) -> Values:
    return _swish(ctx, ctx.input(0))


@onnx_op("SwiGLU", since=(28,))
def _swiglu(ctx: ImportContext) -> Values:
    return ctx.emit("mul", _swish(ctx, ctx.input(0)), ctx.input(1))
