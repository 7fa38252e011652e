"""Corners of pointwise math, where numpy, C and ONNX differ; the rest is in test_definitions and the node suite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.errors import ShapeError
from bessemer.core.interval import Range
from bessemer.ir.fold import evaluate
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, SYMBOL_RANGES, InferContext
from bessemer.ops import pointwise
from tests.ops.eval_compute import Evaluator


def apply(name: str, *arrays: np.ndarray, attrs: Mapping[str, Any] | None = None) -> np.ndarray:
    """The reference's result, after its definition was seen to agree."""
    op = OPS.get(name)
    types = tuple(TensorType(dt.from_numpy(a.dtype), a.shape) for a in arrays)
    ctx = InferContext(types, attrs or {}, {})
    (type_,) = op.infer(ctx)
    (out,) = evaluate(op, arrays, types, attrs or {}, (type_,))
    assert op.compute is not None
    np.testing.assert_allclose(Evaluator(arrays).run(op.compute(ctx)), out, 1e-6, err_msg=name)
    return out


SIGNS = (np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2]))


def test_integer_division_truncates_and_mod_follows_the_divisor() -> None:
    assert apply("div", *SIGNS).tolist() == [3, -3, -3, 3]
    assert apply("mod", *SIGNS).tolist() == [1, 1, -1, -1]
    assert apply("fmod", *SIGNS).tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64])
def test_integer_division_has_no_exceptions(kind: type[np.signedinteger]) -> None:
    least = np.iinfo(kind).min
    x, y = np.array([least, least, 7, -7, least, 5], kind), np.array([-1, 0, 0, 0, 2, least], kind)
    assert apply("div", x, y).tolist() == [least, 0, 0, 0, least // 2, 0]
    assert apply("mod", x, y).tolist() == [0, 0, 0, 0, 0, 5 + least]
    assert apply("fmod", x, y).tolist() == [0, 0, 0, 0, 0, 5]


def test_integers_wrap() -> None:
    assert apply("add", np.array([120], np.int8), np.array([10], np.int8)).tolist() == [-126]
    assert apply("mul", np.array([200], np.uint8), np.array([2], np.uint8)).tolist() == [144]


def test_shifts_by_too_much_or_by_less_than_nothing() -> None:
    x, by = np.array([-5, 5, -5, -5], np.int8), np.array([9, 9, -1, 1], np.int8)
    assert apply("shr", x, by).tolist() == [-1, 0, -1, -3]
    assert apply("shl", x, by).tolist() == [0, 0, 0, -10]


def test_min_and_max_keep_nan() -> None:
    x, y = np.array([np.nan, 1], np.float32), np.array([0, np.nan], np.float32)
    assert np.isnan(apply("max", x, y)).all() and np.isnan(apply("min", x, y)).all()


def test_round_goes_to_even() -> None:
    assert apply("round", np.array([0.5, 1.5, 2.5, -0.5], np.float32)).tolist() == [0, 2, 2, 0]


def test_the_power_of_a_half_is_no_root_below_zero() -> None:
    x = np.array([[-np.inf, -0.0, 4.0], [np.inf, 0.0, 2.25]], np.float32)
    for exponent in (np.float32(0.5), np.full(1, 0.5, np.float32), np.full((2, 1), 0.5, np.float32)):
        (got,) = OPS.get("pow").reference([x, np.asarray(exponent)], {})
        assert got.tolist() == [[np.inf, 0.0, 2.0], [np.inf, 0.0, 1.5]] and not np.signbit(got).any()


def test_powers_of_integers() -> None:
    assert apply("pow", np.array([2, -3, 5]), np.array([10, 3, 0])).tolist() == [1024, -27, 1]
    assert apply("pow", np.array([2, 1, -1]), np.array([-1, -5, -3])).tolist() == [0, 1, -1]


def test_large_arguments_stay_finite() -> None:
    x = np.array([-1e4, 1e4], np.float32)
    for name in ("softplus", "mish", "silu", "sigmoid"):
        assert np.isfinite(apply(name, x)).all(), name
    assert apply("softplus", x)[1] == x[1]


def test_operands_of_different_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="different dtypes"):
        apply("add", np.zeros(2, np.float32), np.zeros(2, np.float16))


def on_dims(name: str, *values: Any, ranges: Mapping[str, Range]) -> Any:
    token = SYMBOL_RANGES.set(ranges)
    try:
        arrays = [np.array([v], dtype=object) for v in values]
        return OPS.get(name).reference(arrays, {})[0][0]
    finally:
        SYMBOL_RANGES.reset(token)


def test_functions_on_dims() -> None:
    n, ranges = sym("n"), {"n": Range(2, 100)}
    assert on_dims("div", n * 6, 3, ranges=ranges) == n * 2
    assert on_dims("div", -7, 2, ranges=ranges) == -3
    assert on_dims("mod", n * 4 + 1, 4, ranges=ranges) == 1
    assert on_dims("max", n, n - 3, ranges=ranges) == n
    assert on_dims("eq", n, -1, ranges=ranges) is False
    assert on_dims("lt", 1, n, ranges=ranges) is True
    with pytest.raises(ShapeError, match="open"):
        on_dims("eq", n, 5, ranges=ranges)
    with pytest.raises(ShapeError, match="sign"):
        on_dims("div", n - 5, 2, ranges=ranges)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_is_the_nearest_value_of_its_dtype(dtype: type) -> None:
    rng = np.random.default_rng()
    x = np.concatenate([rng.standard_normal(40_000), np.exp(rng.uniform(-60, 4, 20_000)), np.arange(-400, 400) / 64])
    x = np.append(x, [0.0, -0.0, np.inf, -np.inf, np.nan]).astype(dtype)
    want = np.array([math.erf(float(v)) for v in x])
    got, limits = pointwise.erf(x), np.finfo(dtype)
    assert got.dtype == dtype and np.array_equal(np.signbit(got), np.signbit(want))
    np.testing.assert_allclose(got.astype(np.float64), want, 0.51 * limits.eps, limits.smallest_subnormal)
    assert pointwise.erf(x[:0].reshape(0, 3)).shape == (0, 3) and pointwise.erf(x[0]).shape == ()
