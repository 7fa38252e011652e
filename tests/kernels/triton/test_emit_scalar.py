"""Every scalar function, in every type it is defined on, in Triton's interpreter against the numpy oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import scalar as oracle
from bessemer.kernels.base import Problem
from tests.kernels.triton.cases import group, ulps
from tests.kernels.triton.harness import interpret

pytestmark = [pytest.mark.triton, pytest.mark.torch]

N = 192
FLOAT_UNARY = sorted(ex.UNARY - {"not", "bitnot", "popcount"})
FLOAT_BINARY = sorted("add sub mul div floordiv floormod fmod pow min max atan2 eq ne lt le gt ge".split())
INT_BINARY = sorted("add sub mul div floordiv floormod fmod pow min max bitand bitor bitxor eq ne lt le gt ge".split())
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 3.0, -3.0, 1e-5, -1e-5, 100.0]
DOMAIN = {"acosh": (1.0, 9.0), "asin": (-1.0, 1.0), "acos": (-1.0, 1.0), "atanh": (-1.0, 1.0), "log": (0.0, 50.0),
          "sqrt": (0.0, 50.0), "rsqrt": (0.01, 50.0), "log1p": (-1.0, 50.0), "exp": (-85.0, 88.0),
          "cosh": (-80.0, 80.0), "sinh": (-80.0, 80.0), "expm1": (-90.0, 88.0)}  # fmt: skip
LIMITS = {dt.f32: 3.0, dt.f64: 40.0, dt.f16: 0.6, dt.bf16: 1.01}  # ulp; the interpreter cuts bf16 where GPUs round
ABSOLUTE = {"sin", "cos", "tan"}  # near their zeros the argument's own rounding decides


def floats(rng: np.random.Generator, dtype: DType, low: float, high: float) -> np.ndarray[Any, Any]:
    values = rng.uniform(low, high, N)
    values[: N // 3] = np.clip(rng.normal(0, 0.05, N // 3), low, high)
    values[-len(SPECIAL) :] = SPECIAL
    return oracle.round_to(values, dtype)


def call(fn: str, dtype: DType, arity: int) -> Problem:
    axis = (ex.Axis("i0"),)
    e = ex.call(fn, *(ex.load(k, axis, dtype) for k in range(arity)))
    return group([(dtype, (N,))] * arity, (N,), e.dtype, e)


def run(problem: Problem, operands: list[np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from bessemer.kernels.triton.group_kernel import flat

    assert problem.body is not None
    (got,) = interpret(problem, flat(problem, 64, 1), operands)
    dtype = problem.outputs[0].dtype
    with np.errstate(all="ignore"):
        want = oracle.evaluate(problem.body.expr, (N,), dt.f64 if dtype.is_float else dtype, operands, {})
    return got, want


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("fn", FLOAT_UNARY)
def test_float_functions_of_one_argument(fn: str, dtype: DType) -> None:
    rng = np.random.default_rng([len(fn), dtype.bits])
    got, want = run(call(fn, dtype, 1), [floats(rng, dtype, *DOMAIN.get(fn, (-9.0, 9.0)))])
    assert_close(got, want, dtype, fn)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.f16], ids=str)
@pytest.mark.parametrize("fn", FLOAT_BINARY)
def test_float_functions_of_two_arguments(fn: str, dtype: DType) -> None:
    rng = np.random.default_rng([len(fn), dtype.bits])
    a, b = floats(rng, dtype, -9.0, 9.0), rng.permutation(floats(rng, dtype, -3.0, 3.0))
    if fn == "floordiv":  # numpy has no quotient of infinities, and none by zero
        a = np.where(np.isinf(a), 1, a).astype(a.dtype)
        b = np.where((b == 0) | np.isinf(b), 1, b).astype(b.dtype)
    got, want = run(call(fn, dtype, 2), [a, b])
    assert_close(got, want, dtype, fn)


def assert_close(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], dtype: DType, fn: str) -> None:
    if got.dtype == np.bool_:
        np.testing.assert_array_equal(got, want)
        return
    limit = LIMITS[dtype] if fn != "pow" or dtype != dt.f64 else 400.0
    floor = 3e-8 if fn in ABSOLUTE and dtype == dt.f32 else 0.0
    if fn in ("fmod", "floormod") and dtype == dt.f64:
        floor = 1e-4  # the interpreter rounds the product of tl.fma, GPUs do not
    worst = ulps(got, want, dtype, floor)
    assert worst.max() <= limit, f"{fn}: {worst.max()} ulp, at {int(worst.argmax())}: {got[worst.argmax()]}"


@pytest.mark.parametrize("dtype", [dt.i64, dt.i32, dt.i8, dt.u8, dt.u32, dt.u64], ids=str)
@pytest.mark.parametrize("fn", [*INT_BINARY, "shl", "shr"])
def test_integer_functions_of_two_arguments(fn: str, dtype: DType) -> None:
    if fn in ("shl", "shr") and dtype.kind != "u":
        pytest.skip("shifts are of unsigned integers")
    rng = np.random.default_rng([len(fn), dtype.bits])
    low, high = (-100, 100) if dtype.kind == "i" else (0, 100)
    a, b = (rng.integers(low, high, N).astype(dtype.numpy) for _ in range(2))
    b[b == 0] = 1
    if fn == "pow":
        b = (np.abs(b.astype(np.int64)) % 9).astype(dtype.numpy)
    if fn == "add" and dtype.kind == "i":
        a[:4] = np.iinfo(dtype.numpy).max
    got, want = run(call(fn, dtype, 2), [a, b])
    np.testing.assert_array_equal(got, want)


def extremes(dtype: DType) -> list[np.ndarray[Any, Any]]:
    """N pairs of integers: the ends of the type, zero, one and some between."""
    info = np.iinfo(dtype.numpy)
    ends = sorted({info.min, info.min + 1, 0, 1, 2, 7, info.max - 1, info.max, *((-7, -2, -1) if info.min else ())})
    values = np.array(ends, dtype.numpy)
    return [np.resize(part, N) for part in np.meshgrid(values, values)]


@pytest.mark.parametrize("dtype", [dt.i64, dt.i32, dt.i16, dt.i8, dt.u8, dt.u32, dt.u64], ids=str)
@pytest.mark.parametrize("fn", ["div", "floordiv", "fmod", "floormod"])
def test_integer_division_has_no_exceptions(fn: str, dtype: DType) -> None:
    got, want = run(call(fn, dtype, 2), extremes(dtype))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [dt.i64, dt.i32, dt.i16, dt.u8, dt.u64], ids=str)
@pytest.mark.parametrize("fn", ["neg", "abs", "sign", "bitnot", "popcount", "floor"])
def test_integer_functions_of_one_argument(fn: str, dtype: DType) -> None:
    if fn == "popcount" and dtype.kind != "u":
        pytest.skip("bits are counted in unsigned integers")
    a = np.random.default_rng(1).integers(-100 if dtype.kind == "i" else 0, 100, N).astype(dtype.numpy)
    got, want = run(call(fn, dtype, 1), [a])
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fn", ["and", "or", "xor", "eq", "ne", "not"])
def test_bool_functions(fn: str) -> None:
    rng = np.random.default_rng(2)
    operands = [rng.random(N) < 0.5 for _ in range(1 if fn == "not" else 2)]
    got, want = run(call(fn, dt.bool_, len(operands)), operands)
    np.testing.assert_array_equal(got, want)


CASTS = [dt.f32, dt.f16, dt.bf16, dt.f64, dt.i64, dt.i32, dt.i8, dt.u8, dt.bool_]


@pytest.mark.parametrize("source", CASTS, ids=str)
@pytest.mark.parametrize("target", CASTS, ids=str)
def test_casts(source: DType, target: DType) -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(0 if "u" in (source.kind, target.kind) else -100, 100, N)
    a = oracle.round_to(values, source) if source.is_float else values.astype(np.int64).astype(source.numpy)
    problem = group([(source, (N,))], (N,), target, ex.cast(ex.load(0, (ex.Axis("i0"),), source), target))
    got, want = run(problem, [a])
    if target.is_float:
        rounding = 1.0 if dt.bf16 in (source, target) else 0.5
        assert ulps(got, want, target).max() <= rounding
    else:
        np.testing.assert_array_equal(got, want)


def test_known_powers_are_products() -> None:
    a = floats(np.random.default_rng(4), dt.f32, -4, 4)
    a[a == -np.inf] = 1  # numpy's power(-inf, 0.5) is sqrt's NaN, IEEE's is inf
    for power in (2.0, 3.0, 1.0, -1.0, 0.5, 0.0):
        e = ex.call("pow", ex.load(0, (ex.Axis("i0"),), dt.f32), ex.lit(power, dt.f32))
        got, want = run(group([(dt.f32, (N,))], (N,), dt.f32, e), [a])
        assert ulps(got, want, dt.f32).max() <= 2, power
