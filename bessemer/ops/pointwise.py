"""Unary and binary math, comparisons, logic and bit ops."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce as fold
from typing import Any

import numpy as np

from bessemer.ir import expr as ex
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.scalar import quotient
from bessemer.ops import symbolic
from bessemer.ops.elementwise import OutDType, boolean, draw_samples, register_pointwise, same_as_first

FLOATS = ("f32", "f16", "f64")
NUMBERS = ("f32", "f16", "i64", "i32", "u8")


GRID = 64  # places per unit at which erf is known
KNOWN = np.array([math.erf(k / GRID) for k in range(6 * GRID + 1)])
BLOCK = 1 << 14  # elements that caches hold, with what is computed of them


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, in x's dtype; of 16 and 32 bits by Taylor series around known places, to 1e-13."""
    if x.dtype == np.float64:
        return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(x.dtype)
    flat, out = np.ascontiguousarray(x).reshape(-1), np.empty(x.size, x.dtype)
    for k in range(0, x.size, BLOCK):
        out[k : k + BLOCK] = _erf_near(flat[k : k + BLOCK].astype(np.float64))
    return out.reshape(x.shape)


def _erf_near(x: np.ndarray) -> np.ndarray:
    """erf of float64 values; NaN stays NaN."""
    size = np.minimum(np.abs(x), KNOWN.size // GRID)
    places = np.rint(np.nan_to_num(size) * GRID).astype(np.int64)
    a = places / GRID
    t, square = size - a, a * a
    series = t * (((16 * square - 48) * square + 12) / 120 * t + (12 - 8 * square) * a / 24)
    series = t * (1 + t * (-a + t * ((4 * square - 2) / 6 + series)))
    return np.asarray(np.copysign(KNOWN[places] + (2 / math.sqrt(math.pi)) * np.exp(-square) * series, x))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, in x's dtype."""
    return np.asarray(1 / (1 + np.exp(-x)), x.dtype)


def _shift(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A shift whose amount may be negative or exceed the width: what sign extension alone leaves."""

    def run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        width = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < width)
        filled = np.where(a < 0, -1, 0) if fn is np.right_shift and a.dtype.kind == "i" else 0
        return np.where(inside, fn(a, np.where(inside, b, 0).astype(a.dtype)), filled).astype(a.dtype)

    return run


def _shift_scalar(fn: str) -> Callable[..., ex.Expr]:
    def scalar(a: ex.Expr, b: ex.Expr, attrs: Any) -> ex.Expr:
        width, zero = ex.lit(a.dtype.bits, a.dtype), ex.lit(0, a.dtype)
        filled: ex.Expr = zero
        if fn == "shr" and a.dtype.kind == "i":
            filled = ex.Select(ex.call("lt", a, zero), ex.lit(-1, a.dtype), zero)
        inside = ex.call("lt", b, width)
        if b.dtype.kind == "i":
            inside = ex.call("and", ex.call("ge", b, zero), inside)
        return ex.Select(inside, ex.call(fn, a, ex.Select(inside, b, zero)), filled)

    return scalar


# name: (numpy, draw, dtypes)
UNARY: dict[str, tuple[Callable[..., Any], str, tuple[str, ...]]] = {
    "neg": (np.negative, "real", ("f32", "f16", "i64", "i8")),
    "abs": (np.abs, "real", ("f32", "f16", "i64", "i8")),
    "sign": (np.sign, "halves", ("f32", "f16", "i32")),
    "floor": (np.floor, "real", FLOATS),
    "ceil": (np.ceil, "real", FLOATS),
    "round": (np.rint, "halves", FLOATS),
    "trunc": (np.trunc, "real", FLOATS),
    "sqrt": (np.sqrt, "positive", FLOATS),
    "rsqrt": (lambda x: (1 / np.sqrt(x)).astype(x.dtype), "positive", FLOATS),
    "reciprocal": (lambda x: (1 / x).astype(x.dtype), "positive", FLOATS),
    "exp": (np.exp, "real", FLOATS),
    "expm1": (np.expm1, "real", FLOATS),
    "log": (np.log, "positive", FLOATS),
    "log1p": (np.log1p, "positive", FLOATS),
    "sin": (np.sin, "real", FLOATS),
    "cos": (np.cos, "real", FLOATS),
    "tan": (np.tan, "unit", FLOATS),
    "asin": (np.arcsin, "unit", FLOATS),
    "acos": (np.arccos, "unit", FLOATS),
    "atan": (np.arctan, "real", FLOATS),
    "sinh": (np.sinh, "real", FLOATS),
    "cosh": (np.cosh, "real", FLOATS),
    "tanh": (np.tanh, "real", FLOATS),
    "asinh": (np.arcsinh, "real", FLOATS),
    "acosh": (np.arccosh, "above one", FLOATS),
    "atanh": (np.arctanh, "unit", FLOATS),
    "erf": (erf, "real", FLOATS),
    "sigmoid": (sigmoid, "real", FLOATS),
    "not": (np.logical_not, "truth", ("bool",)),
    "bitnot": (np.invert, "bits", ("i32", "u8", "i64")),
    "isnan": (np.isnan, "special", FLOATS),
}

# name: (numpy, draws, dtypes)
BINARY: dict[str, tuple[Callable[..., Any], tuple[str, str], tuple[str, ...]]] = {
    "add": (np.add, ("real", "real"), NUMBERS),
    "sub": (np.subtract, ("real", "real"), NUMBERS),
    "mul": (np.multiply, ("real", "real"), NUMBERS),
    "div": (quotient, ("small", "natural"), NUMBERS),
    "mod": (np.mod, ("small", "natural"), ("i64", "f32", "u8", "i8")),
    "fmod": (np.fmod, ("small", "natural"), ("f32", "f16", "i32")),
    "min": (np.minimum, ("real", "real"), NUMBERS),
    "max": (np.maximum, ("real", "real"), NUMBERS),
    "and": (np.logical_and, ("truth", "truth"), ("bool",)),
    "or": (np.logical_or, ("truth", "truth"), ("bool",)),
    "xor": (np.logical_xor, ("truth", "truth"), ("bool",)),
    "bitand": (np.bitwise_and, ("bits", "bits"), ("i32", "u8")),
    "bitor": (np.bitwise_or, ("bits", "bits"), ("i32", "u8")),
    "bitxor": (np.bitwise_xor, ("bits", "bits"), ("i32", "u8")),
    "shl": (_shift(np.left_shift), ("bits", "small"), ("u8", "i32", "i8", "u64")),
    "shr": (_shift(np.right_shift), ("bits", "small"), ("u8", "i32", "i8", "u64")),
    "eq": (np.equal, ("small", "small"), ("i64", "f32", "u8")),
    "ne": (np.not_equal, ("small", "small"), ("i64", "f32", "u8")),
    "lt": (np.less, ("small", "small"), ("i64", "f32", "u8")),
    "le": (np.less_equal, ("small", "small"), ("i64", "f32", "u8")),
    "gt": (np.greater, ("small", "small"), ("i64", "f32", "u8")),
    "ge": (np.greater_equal, ("small", "small"), ("i64", "f32", "u8")),
}

# the same functions on one or two dims
ON_DIMS: dict[str, Callable[..., Any]] = {
    "neg": operator.neg, "abs": abs, "not": operator.not_, "add": operator.add, "sub": operator.sub,
    "mul": operator.mul, "div": symbolic.divide, "mod": symbolic.modulo, "min": symbolic.lesser,
    "max": symbolic.greater, "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b),
    "eq": symbolic.equal, "ne": lambda a, b: not symbolic.equal(a, b), "lt": symbolic.less,
    "le": lambda a, b: not symbolic.less(b, a), "gt": lambda a, b: symbolic.less(b, a),
    "ge": lambda a, b: not symbolic.less(a, b),
}  # fmt: skip
_SCALAR_NAME = {"mod": "floormod"}  # where the expression language's name differs
_OVERRIDES = {"shl": _shift_scalar("shl"), "shr": _shift_scalar("shr")}


def _declare(name: str, numeric: Callable[..., Any], draws: tuple[str, ...], dtypes: tuple[str, ...]) -> None:
    on_dims = symbolic.elementwise(ON_DIMS[name], len(draws)) if name in ON_DIMS else numeric

    def reference(*args: Any) -> np.ndarray:
        *arrays, _ = args
        return np.asarray((on_dims if any(a.dtype == object for a in arrays) else numeric)(*arrays))

    fn = _SCALAR_NAME.get(name, name)
    out: OutDType = boolean if name in ex.COMPARISONS else same_as_first
    scalar = _OVERRIDES.get(name) or (lambda *args: ex.call(fn, *args[:-1]))
    samples = draw_samples(draws, dtypes)
    register_pointwise(name, len(draws), reference, scalar, samples, out=out, symbolic=name in ON_DIMS)


for _name, (_fn, _draw, _dtypes) in UNARY.items():
    _declare(_name, _fn, (_draw,), _dtypes)
for _name, (_fn, _draws, _dtypes) in BINARY.items():
    _declare(_name, _fn, _draws, _dtypes)

# ONNX name: (IR op, since_versions)
ONNX_UNARY = {
    "Abs": ("abs", (6, 13)), "Acos": ("acos", (7, 22)), "Acosh": ("acosh", (9, 22)), "Asin": ("asin", (7, 22)),
    "Asinh": ("asinh", (9, 22)), "Atan": ("atan", (7, 22)), "Atanh": ("atanh", (9, 22)), "Ceil": ("ceil", (6, 13)),
    "Cos": ("cos", (7, 22)), "Cosh": ("cosh", (9, 22)), "Erf": ("erf", (9, 13)), "Exp": ("exp", (6, 13)),
    "Floor": ("floor", (6, 13)), "IsNaN": ("isnan", (9, 13, 20)), "Log": ("log", (6, 13)), "Neg": ("neg", (6, 13)),
    "Not": ("not", (1,)), "Reciprocal": ("reciprocal", (6, 13)), "Round": ("round", (11, 22)),
    "Sigmoid": ("sigmoid", (6, 13)), "Sign": ("sign", (9, 13)), "Sin": ("sin", (7, 22)), "Sinh": ("sinh", (9, 22)),
    "Sqrt": ("sqrt", (6, 13)), "Tan": ("tan", (7, 22)), "Tanh": ("tanh", (6, 13)), "BitwiseNot": ("bitnot", (18,)),
}  # fmt: skip
ONNX_BINARY = {
    "Add": ("add", (7, 13, 14)), "Sub": ("sub", (7, 13, 14)), "Mul": ("mul", (7, 13, 14)), "Div": ("div", (7, 13, 14)),
    "And": ("and", (7,)), "Or": ("or", (7,)), "Xor": ("xor", (7,)), "BitwiseAnd": ("bitand", (18,)),
    "BitwiseOr": ("bitor", (18,)), "BitwiseXor": ("bitxor", (18,)), "Equal": ("eq", (7, 11, 13, 19)),
    "Less": ("lt", (9, 13)), "LessOrEqual": ("le", (12, 16)), "Greater": ("gt", (9, 13)),
    "GreaterOrEqual": ("ge", (12, 16)),
}  # fmt: skip
ONNX_VARIADIC = {"Sum": ("add", (8, 13)), "Max": ("max", (8, 12, 13)), "Min": ("min", (8, 12, 13))}


def _importer(op: str, arity: int) -> Callable[[ImportContext], Values]:
    return lambda ctx: ctx.emit(op, *(ctx.input(k) for k in range(arity)))


for _onnx, (_op, _since) in ONNX_UNARY.items():
    onnx_op(_onnx, since=_since)(_importer(_op, 1))
for _onnx, (_op, _since) in ONNX_BINARY.items():
    onnx_op(_onnx, since=_since)(_importer(_op, 2))


def _chain(op: str) -> Callable[[ImportContext], str]:
    return lambda ctx: fold(lambda a, b: ctx.emit(op, a, b), [ctx.input(k) for k in range(len(ctx.inputs))])


for _onnx, (_op, _since) in ONNX_VARIADIC.items():
    onnx_op(_onnx, since=_since)(_chain(_op))


@onnx_op("Mean", since=(8, 13))
def _mean(ctx: ImportContext) -> Values:
    total = _chain("add")(ctx)
    return ctx.emit("div", total, ctx.const(len(ctx.inputs), ctx.dtype(total)))


@onnx_op("Mod", since=(10, 13, 28))
def _mod(ctx: ImportContext) -> Values:
    return ctx.emit("fmod" if ctx.attr("fmod", 0) else "mod", ctx.input(0), ctx.input(1))


@onnx_op("BitShift", since=(11, 28))
def _bit_shift(ctx: ImportContext) -> Values:
    return ctx.emit("shl" if ctx.attr("direction") == "LEFT" else "shr", ctx.input(0), ctx.input(1))
