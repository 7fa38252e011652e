"""Small problems for tests of generated Triton kernels, and a measure of how far floats are off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import scalar as oracle
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Operand, Problem

Array = np.ndarray[Any, Any]
BITS = {"f64": (52, -1022), "f32": (23, -126), "f16": (10, -14), "bf16": (7, -126)}


def group(
    operands: Sequence[tuple[DType, tuple[Dim, ...]]], shape: tuple[Dim, ...], dtype: DType, e: ex.Expr,
    ranges: Mapping[str, Range] | None = None,
) -> Problem:  # fmt: skip
    """The Problem of a compute definition."""
    return Problem(
        "group", tuple(Operand(TensorType(d, s)) for d, s in operands), (TensorType(dtype, shape),),
        body=ex.ComputeDef(shape, dtype, e), ranges=tuple(sorted((ranges or {}).items())),
    )  # fmt: skip


def reduce(kind: str, axes: Sequence[tuple[str, Dim]], body: ex.Expr, acc: DType = dt.f32) -> ex.Reduce:
    """A reduction."""
    return ex.Reduce(kind, tuple(axes), body, acc)


def values(rng: np.random.Generator, t: TensorType, env: Mapping[str, int]) -> Array:
    """Random values of a type (bf16 as float32)."""
    shape = [oracle.evaluate_dim(d, env) for d in t.shape]
    if t.dtype.is_float:
        return oracle.round_to(rng.standard_normal(shape), t.dtype).reshape(shape)
    if t.dtype == dt.bool_:
        return np.asarray(rng.random(shape) < 0.5)
    return rng.integers(0 if t.dtype.kind == "u" else -50, 50, shape).astype(t.dtype.numpy)


def expected(problem: Problem, operands: Sequence[Array], env: Mapping[str, int]) -> Array:
    """The oracle's output in float64 (integers in their own dtype)."""
    assert problem.body is not None
    out = problem.outputs[0]
    shape = [oracle.evaluate_dim(d, env) for d in out.shape]
    return oracle.evaluate(problem.body.expr, shape, dt.f64 if out.dtype.is_float else out.dtype, operands, env)


def ulps(got: Array, want: Array, dtype: DType, floor: float = 0.0) -> Array:
    """How many units in the last place of `dtype` each element is off the float64 value `want`; inf where one is NaN
    and the other is not. Values beyond the dtype's range count as infinite; differences below `floor` are none."""
    mantissa, least = BITS[dtype.name]
    got, want = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        limit = 2.0 ** {"f64": 1023, "f32": 127, "f16": 15, "bf16": 127}[dtype.name] * (2 - 2.0 ** -(mantissa + 1))
        want = np.where(np.abs(want) >= limit, np.sign(want) * np.inf, want)
        exponent = np.maximum(np.floor(np.log2(np.abs(want))), least)
        unit = np.exp2(np.where(np.isfinite(exponent), exponent, least) - mantissa)
        off = np.abs(got - want)
        out = np.where(off <= floor, 0.0, off / unit)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(same, 0.0, np.where(np.isnan(out), np.inf, out))
