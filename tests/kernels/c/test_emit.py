"""Scalar functions as C: their accuracy, their corners, conversions, and epilogues of rows."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree, scalar
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Int, Operand, Problem, Ptr
from bessemer.kernels.c.emit import row_epilogue
from bessemer.kernels.c.group import Group
from tests.kernels.c.harness import Guarded, library, supported
from tests.kernels.c.running import run_all

ARCHS = pytest.mark.parametrize("arch", supported())
CORNERS = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 3e38, -3e38, 1.0, -1.0, 0.5, -0.5])


Applied = tuple[ex.Expr, list[np.ndarray], DType]


def _problem(e: ex.Expr, arrays: list[np.ndarray], out: DType) -> Problem:
    loads = {n.operand: n.dtype for n in exprtree.walk(e) if isinstance(n, ex.Load)}
    types = [TensorType(loads[k], a.shape) for k, a in enumerate(arrays)]
    result = TensorType(out, arrays[0].shape)
    body = ex.ComputeDef(result.shape, out, ex.cast(e, out))
    return Problem("group", tuple(Operand(t) for t in types), (result,), body=body)


def apply_all(asked: Sequence[Applied], arch: str) -> list[np.ndarray]:
    """Each expression of elements of its 1-d arrays (bf16 as bits in uint16 arrays of operands whose loads say so)."""
    found = run_all(Group(), [(_problem(*one), one[1]) for one in asked], arch, threads=1)
    return [result for (result,) in found]


def apply(e: ex.Expr, arrays: list[np.ndarray], out: DType, arch: str) -> np.ndarray:
    """One of them."""
    return apply_all([(e, arrays, out)], arch)[0]


def x(k: int, dtype: DType) -> ex.Expr:
    return ex.load(k, (ex.Axis("i0"),), dtype)


FLOAT_RANGES = {
    "exp": (-87, 88), "expm1": (-20, 80), "log": (1e-30, 1e30), "log1p": (-0.999, 1e4), "tanh": (-12, 12),
    "erf": (-5, 5), "sigmoid": (-86, 86), "sqrt": (0, 1e6), "rsqrt": (1e-6, 1e6), "reciprocal": (0.1, 1e6),
    "sin": (-50, 50), "cos": (-50, 50), "floor": (-99, 99), "ceil": (-99, 99), "round": (-99, 99), "trunc": (-99, 99),
    "abs": (-9, 9), "sign": (-9, 9), "neg": (-9, 9), "atan": (-9, 9), "asinh": (-99, 99),
}  # fmt: skip


@ARCHS
@pytest.mark.parametrize("fn", FLOAT_RANGES)
def test_float_functions_are_close_to_the_truth(fn: str, arch: str) -> None:
    low, high = FLOAT_RANGES[fn]
    rng = np.random.default_rng()
    values = rng.uniform(low, high, 20011)
    if low < 0:
        values = np.concatenate([values, rng.standard_normal(5000) * 1e-3])
    limits = ((dt.f32, 3 * 2.0**-23), (dt.f64, 8 * 2.0**-52))
    asked = [(ex.call(fn, x(0, dtype)), [values.astype(dtype.numpy)], dtype) for dtype, _ in limits]
    for (dtype, eps), (_, (given,), _), found in zip(limits, asked, apply_all(asked, arch)):
        with np.errstate(all="ignore"):
            wanted = scalar.FUNCTIONS[fn](given.astype(np.float64))
        got = found.astype(np.float64)
        error = np.abs(got - wanted) / np.maximum(np.abs(wanted), 1e-37)
        assert error.max() <= (eps if dtype == dt.f32 else max(eps, 1e-12)), f"{dtype} at {given[error.argmax()]}"


@ARCHS
@pytest.mark.parametrize("fn", "exp expm1 log log1p tanh erf sigmoid sqrt sign round isnan isinf".split())
def test_corners(fn: str, arch: str) -> None:
    given = np.tile(CORNERS.astype(np.float32), 5)
    with np.errstate(all="ignore"):
        wanted = scalar.FUNCTIONS[fn](given.astype(np.float64))
    e = ex.call(fn, x(0, dt.f32))
    got = apply(e, [given], e.dtype, arch)
    if e.dtype == dt.bool_:
        np.testing.assert_array_equal(got, wanted)
    else:
        np.testing.assert_allclose(got, wanted.astype(np.float32), rtol=1e-6, atol=1e-37)


@ARCHS
def test_subnormal_exponentials(arch: str) -> None:
    given = np.linspace(-104, -87, 1000, dtype=np.float32)
    got = apply(ex.call("exp", x(0, dt.f32)), [given], dt.f32, arch)
    np.testing.assert_allclose(got, np.exp(given.astype(np.float64)), rtol=1e-6, atol=2e-45)


@ARCHS
def test_min_and_max_give_nan_where_either_side_is(arch: str) -> None:
    rng = np.random.default_rng()
    a, b = (np.where(rng.random(997) < 0.3, np.nan, rng.standard_normal(997)).astype(np.float32) for _ in range(2))
    for fn in ("min", "max"):
        got = apply(ex.call(fn, x(0, dt.f32), x(1, dt.f32)), [a, b], dt.f32, arch)
        np.testing.assert_array_equal(got, scalar.FUNCTIONS[fn](a, b))
        for args in ((x(0, dt.f32), ex.lit(0.5, dt.f32)), (ex.lit(0.5, dt.f32), x(0, dt.f32))):
            got = apply(ex.call(fn, *args), [a], dt.f32, arch)
            np.testing.assert_array_equal(got, scalar.FUNCTIONS[fn](a, np.float32(0.5)))


@ARCHS
def test_every_half_and_its_rounding(arch: str) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    halves = bits.view(np.float16)
    got = apply(x(0, dt.f16), [halves], dt.f32, arch)
    np.testing.assert_array_equal(got, halves.astype(np.float32))
    rng = np.random.default_rng()
    wide = rng.integers(0, 2**32, 100001, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        middle = halves.astype(np.float32) + np.float32(2.0**-25)
        tiny = rng.standard_normal(5000).astype(np.float32) * np.float32(1e-6)
        given = np.concatenate([wide, middle, tiny, np.array([65504, 65519.99, 65520, 1e9], np.float32)])
        wanted = given.astype(np.float16)
    back = apply(x(0, dt.f32), [given], dt.f16, arch)
    np.testing.assert_array_equal(back, wanted)
    signs = np.isfinite(given)
    np.testing.assert_array_equal(np.signbit(back[signs]), np.signbit(wanted[signs]))


@ARCHS
def test_bfloat16_rounds_to_nearest_even(arch: str) -> None:
    given = np.random.default_rng().integers(0, 2**32, 100001, dtype=np.uint32).view(np.float32)
    problem_out = apply(x(0, dt.f32), [given], dt.bf16, arch)
    np.testing.assert_array_equal(problem_out, dt.from_bf16(dt.to_bf16(given)))


@ARCHS
def test_doubles_round_once_to_half(arch: str) -> None:
    rng = np.random.default_rng()
    given = (1 + rng.integers(0, 1024, 20001) / 1024 + 2.0**-11 + rng.choice([0, 2.0**-40, -(2.0**-40)], 20001)) * 2.0
    np.testing.assert_array_equal(apply(x(0, dt.f64), [given], dt.f16, arch), given.astype(np.float16))


DIVISIONS = ("div", "floordiv", "floormod", "fmod")
INTEGER_FUNCTIONS = "add sub mul div floordiv floormod fmod min max bitand bitor bitxor shl shr eq lt ge".split()


INTEGERS = (dt.i64, dt.i32, dt.i16, dt.i8, dt.u64, dt.u32, dt.u16, dt.u8)


@ARCHS
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_wrap_and_never_trap(dtype: DType, arch: str) -> None:
    """The functions of a dtype at the ISA levels in turns, so that each level has all functions and all dtypes."""
    turn = INTEGERS.index(dtype) + supported().index(arch)
    rng, info = np.random.default_rng(), np.iinfo(dtype.numpy)
    a = rng.integers(info.min, info.max, 403, dtype=dtype.numpy, endpoint=True)
    a[::40] = info.min
    small = rng.integers(0 if dtype.kind == "u" else -9, 12, 403).astype(dtype.numpy)
    least, minus = np.full(403, info.min, dtype.numpy), np.full(403, -1).astype(dtype.numpy)
    names, asked, wanted = [], list[Applied](), []
    for k, fn in enumerate(INTEGER_FUNCTIONS):
        if (k + turn) % len(supported()):
            continue
        b = np.abs(small) if fn in ("shl", "shr") else small
        e = ex.call(fn, x(0, dtype), x(1, dtype))
        names.append(fn)
        asked.append((e, [a, b], e.dtype))
        with np.errstate(all="ignore"):
            wanted.append(np.asarray(scalar.FUNCTIONS[fn](a, b)).astype(e.dtype.numpy))
        if fn in DIVISIONS:
            names += [f"{fn} by 0", f"{fn} by -1"]
            asked += [(e, [a, a * 0], dtype), (e, [least, minus], dtype)]
            wanted += [a * 0, np.full_like(least, info.min if fn in ("div", "floordiv") else 0)]
    for name, got, want in zip(names, apply_all(asked, arch), wanted, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=name)


@ARCHS
def test_casts_of_floats_to_integers_are_defined(arch: str) -> None:
    given = np.array([1.9, -1.9, 0, 127, -128, 1e6, -1e6, 2**31, -(2**31), 1e30, -1e30, np.nan] * 3, np.float32)
    wanted = np.clip(np.nan_to_num(np.trunc(given.astype(np.float64)), nan=-(2.0**31)), -(2.0**31), 2.0**31 - 1)
    np.testing.assert_array_equal(apply(ex.cast(x(0, dt.f32), dt.i32), [given], dt.i32, arch), wanted.astype(np.int32))
    long = apply(ex.cast(x(0, dt.f32), dt.i64), [given], dt.i64, arch)
    assert (long[:9] == np.trunc(given[:9].astype(np.float64))).all()
    assert long[9] == np.iinfo(np.int64).max and long[10] == long[11] == np.iinfo(np.int64).min


def _store(problem: Problem, arrays: list[np.ndarray], acc: np.ndarray, arch: str, env: dict[str, int]) -> np.ndarray:
    """The output that `store_row` writes, called for pieces of every row."""
    code = row_epilogue(problem, "store_row", ptr0=1, int0=1)
    text = (
        "#include <stdint.h>\n" + code.text + "void entry(void *const *p, const int64_t *d, int64_t row, int64_t col, "
        "int64_t n, const void *acc) { store_row(p, d, row, col, n, acc); }\n"
    )
    lib = library(text, arch)
    out = problem.outputs[0]
    shape = acc.shape
    buffers = [Guarded(a.nbytes) for a in arrays]
    for buffer, a in zip(buffers, arrays):
        buffer.bytes[:] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    target = Guarded(acc.size * out.dtype.itemsize)
    pointers = [0] + [[*buffers, target][a.operand].address for a in code.args if isinstance(a, Ptr)]
    integers = [0] + [scalar.evaluate_dim(a.value, env) for a in code.args if isinstance(a, Int)]
    p, d = (ctypes.c_void_p * len(pointers))(*pointers), (ctypes.c_int64 * len(integers))(*integers)
    cols = shape[-1] if shape else 1
    flat = np.ascontiguousarray(acc).reshape(-1, cols)
    for row in range(flat.shape[0]):
        for col in range(0, cols, 7):
            piece = np.ascontiguousarray(flat[row, col : col + 7])
            where = (ctypes.c_int64(v) for v in (row, col, piece.size))
            lib.entry(p, d, *where, piece.ctypes.data_as(ctypes.c_void_p))
    target.check()
    return target.bytes.view(out.dtype.numpy).reshape(shape).copy()


@ARCHS
def test_row_epilogue_reads_broadcast_operands(arch: str) -> None:
    rng = np.random.default_rng()
    n, shape, env = sym("n"), (2, 3, 5, 19), {"n": 3}
    t = TensorType(dt.f32, (2, n, 5, 19))
    others = [TensorType(dt.f32, s) for s in ((19,), (n, 1, 1), (2, 1, 5, 19), (2, n, 5, 19), ())]
    axes = ex.out_axes(4)
    e: ex.Expr = ex.Acc(dt.f32)
    arrays = []
    wanted = acc = rng.standard_normal(shape).astype(np.float32)
    for k, other in enumerate(others):
        concrete = tuple(scalar.evaluate_dim(s, env) for s in other.shape)
        arrays.append(rng.standard_normal(concrete).astype(np.float32))
        e = ex.call(("add", "mul")[k % 2], e, ex.load(k, ex.broadcast_index(other.shape, axes), dt.f32))
        wanted = wanted + arrays[-1] if k % 2 == 0 else wanted * arrays[-1]
    e = ex.call("add", e, ex.cast(ex.call("mul", axes[1], axes[3]), dt.f32))
    wanted = wanted + np.arange(3).reshape(3, 1, 1) * np.arange(19)
    problem = Problem("conv", tuple(Operand(o) for o in others), (t,), result=t, epilogue=e)
    np.testing.assert_allclose(_store(problem, arrays, acc, arch, env), wanted, rtol=1e-5, atol=1e-5)


@ARCHS
@pytest.mark.parametrize("out", [dt.f32, dt.f16, dt.bf16, dt.i8, dt.u8, dt.bool_], ids=str)
def test_row_epilogue_stores_any_dtype(out: DType, arch: str) -> None:
    acc = np.random.default_rng().uniform(-100, 100, (4, 33)).astype(np.float32)
    if out == dt.u8:
        acc = np.abs(acc)
    t = TensorType(dt.f32, acc.shape)
    e = ex.cast(ex.call("round", ex.Acc(dt.f32)), out)
    got = _store(Problem("matmul", (), (TensorType(out, acc.shape),), result=t, epilogue=e), [], acc, arch, {})
    rounded = np.rint(acc)
    wanted = dt.to_bf16(rounded) if out == dt.bf16 else (rounded != 0) if out == dt.bool_ else rounded.astype(out.numpy)
    np.testing.assert_array_equal(got, wanted)


@ARCHS
def test_row_epilogue_of_integers_and_scalars(arch: str) -> None:
    acc = np.random.default_rng().integers(-(2**40), 2**40, (5, 9))
    t = TensorType(dt.i64, acc.shape)
    np.testing.assert_array_equal(_store(Problem("matmul", (), (t,), result=t), [], acc, arch, {}), acc)
    one = TensorType(dt.f32, ())
    got = _store(Problem("matmul", (), (one,), result=one), [], np.array(2.5, np.float32), arch, {})
    assert got.shape == () and got == 2.5
