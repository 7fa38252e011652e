"""Compute groups in every form that the tactic offers, against the oracle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.kernels.base import Problem
from bessemer.kernels.triton.group import Group
from bessemer.targets.cuda import ARCHS, CudaTarget
from tests.kernels.triton.cases import expected, group, reduce, values
from tests.kernels.triton.harness import interpret

pytestmark = [pytest.mark.triton, pytest.mark.torch]

TACTIC, TARGET = Group(), CudaTarget("sm_90", ARCHS["sm_90"])
I, J, K, L = ex.out_axes(4)
R, Q, P = (ex.Axis(name) for name in ("r", "q", "p"))
f32, f16, i64 = dt.f32, dt.f16, dt.i64
S = sym("s")
ENV = {"s": 37}
RANGES = {"s": Range(1, 100, 37)}


def at(number: int, *index: ex.Expr, dtype: DType = f32) -> ex.Expr:
    return ex.load(number, index, dtype)


def num(value: int) -> ex.Expr:
    return ex.lit(value, i64)


def call(fn: str, *args: ex.Expr) -> ex.Expr:
    return ex.call(fn, *args)


def softmax(width: int, dtype: DType = f32) -> ex.Expr:
    def x(axis: ex.Expr) -> ex.Expr:
        return ex.cast(at(0, I, axis, dtype=dtype), f32)

    top = reduce("max", [("r", width)], x(R))
    total = reduce("sum", [("q", width)], call("exp", call("sub", x(Q), top)))
    return ex.cast(call("div", call("exp", call("sub", x(J), top)), total), dtype)


def layer_norm(width: int) -> ex.Expr:
    mean = call("div", reduce("sum", [("r", width)], at(0, I, R)), ex.lit(width, f32))
    off = call("sub", at(0, I, Q), mean)
    variance = call("div", reduce("sum", [("q", width)], call("mul", off, off)), ex.lit(width, f32))
    scaled = call("mul", call("sub", at(0, I, J), mean), call("rsqrt", call("add", variance, ex.lit(1e-5, f32))))
    return call("add", call("mul", scaled, at(1, J)), at(2, J))


def window(kind: str) -> ex.Expr:
    """3x3, stride 2, padding 1 over [2, 3, 9, 10]."""
    y = call("add", call("sub", call("mul", K, num(2)), num(1)), R)
    x = call("add", call("sub", call("mul", L, num(2)), num(1)), Q)
    inside = [call("and", call("ge", v, num(0)), call("lt", v, num(n))) for v, n in ((y, 9), (x, 10))]
    fill = ex.lit(float("-inf") if kind == "max" else 0.0, f32)
    return reduce(kind, [("r", 3), ("q", 3)], ex.Select(call("and", *inside), at(0, I, J, y, x), fill))


def concat() -> ex.Expr:
    return ex.Select(call("lt", J, num(5)), at(0, I, J), at(1, I, call("sub", J, num(5))))


def pad() -> ex.Expr:
    y, x = call("sub", I, num(2)), call("sub", J, num(3))
    inside = [call("and", call("ge", v, num(0)), call("lt", v, num(n))) for v, n in ((y, 7), (x, 11))]
    return ex.Select(call("and", *inside), at(0, y, x), ex.lit(-1.5, f32))


def gather() -> ex.Expr:
    row = at(1, I, dtype=i64)
    return at(0, ex.Select(call("lt", row, num(0)), call("add", row, num(60)), row), J)


def nested() -> ex.Expr:
    """sum over r of the max over q of x[i, r, q]: an inner reduction that depends on the outer's axis."""
    return reduce("sum", [("r", 6)], reduce("max", [("q", 7)], at(0, I, R, Q)))


CASES: Mapping[str, Problem] = {
    "bias": group([(f32, (7, 33)), (f32, (33,))], (7, 33), f32, call("add", at(0, I, J), at(1, J))),
    "dynamic": group([(f16, (S, 33)), (f16, (33,))], (S, 33), f16,
                     call("mul", at(0, I, J, dtype=f16), at(1, J, dtype=f16)), RANGES),
    "scalar": group([(f32, ())], (), f32, call("exp", at(0))),
    "transpose": group([(f32, (3, 40, 50))], (3, 50, 40), f32, at(0, I, K, J)),
    "transpose dynamic": group([(f16, (2, S, 4, 16))], (2, 4, S, 16), f16, at(0, I, K, J, L, dtype=f16), RANGES),
    "turn": group([(f32, (5, 6, 40))], (40, 6, 5), f32, at(0, K, J, I)),
    "concat": group([(f32, (6, 5)), (f32, (6, 9))], (6, 14), f32, concat()),
    "pad": group([(f32, (7, 11))], (11, 17), f32, pad()),
    "gather": group([(f32, (60, 20)), (i64, (9,))], (9, 20), f32, gather()),
    "where": group([(dt.bool_, (9, 1)), (f32, (9, 40)), (f32, (40,))], (9, 40), f32,
                   ex.Select(at(0, I, num(0), dtype=dt.bool_), at(1, I, J), at(2, J))),
    "slice": group([(i64, (40, S))], (10, S), i64, at(0, call("add", call("mul", I, num(3)), num(2)), J, dtype=i64),
                   RANGES),
    "flip": group([(f32, (S, 4))], (S, 4), f32, at(0, call("sub", call("sub", ex.Size(S), num(1)), I), J), RANGES),
    "size": group([(i64, (S,))], (S,), i64, call("add", at(0, I, dtype=i64), call("mul", ex.Size(S), I)), RANGES),
    "softmax": group([(f32, (37, 100))], (37, 100), f32, softmax(100)),
    "softmax f16": group([(f16, (9, 130))], (9, 130), f16, softmax(130, f16)),
    "layer norm": group([(f32, (19, 96)), (f32, (96,)), (f32, (96,))], (19, 96), f32, layer_norm(96)),
    "long row": group([(f32, (3, 5000))], (3,), f32, reduce("sum", [("r", 5000)], at(0, I, R))),
    "row dynamic": group([(f32, (6, S))], (6,), f32, reduce("max", [("r", S)], at(0, I, R)), RANGES),
    "first axis": group([(f32, (130, 70))], (70,), f32, reduce("sum", [("r", 130)], at(0, R, I))),
    "middle axis": group([(f32, (3, 40, 21))], (3, 21), f32, reduce("sum", [("r", 40)], at(0, I, R, J))),
    "outer axes": group([(f32, (3, 8, 21))], (8,), f32, reduce("sum", [("r", 3), ("q", 21)], at(0, R, I, Q))),
    "everything": group([(f32, (9, 70))], (), f32, reduce("prod", [("r", 9), ("q", 70)], call("cos", at(0, R, Q)))),
    "nothing": group([(f32, (2, 0, 3))], (2, 3), f32, reduce("sum", [("r", 0)], at(0, I, R, J))),
    "most of nothing": group([(f32, (2, 0, 3))], (2, 1, 3), f32, reduce("max", [("r", 0)], at(0, I, R, K))),
    "kept ones": group([(f32, (9, 70))], (9, 1), f32, reduce("min", [("r", 70)], at(0, I, R))),
    "argmax": group([(f32, (9, 70))], (9,), i64, reduce("argmax", [("r", 70)], call("round", at(0, I, R)))),
    "argmin last": group([(f32, (9, 70))], (9,), i64, reduce("argmin_last", [("r", 70)], call("round", at(0, I, R)))),
    "argmax first axis": group([(dt.i32, (70, 9))], (9,), i64,
                               reduce("argmax", [("r", 70)], at(0, R, I, dtype=dt.i32))),
    "all": group([(dt.bool_, (30, 5))], (30,), dt.bool_,
                 reduce("all", [("r", 5)], at(0, I, R, dtype=dt.bool_), dt.bool_)),
    "any": group([(dt.bool_, (30, 5))], (30,), dt.bool_,
                 reduce("any", [("r", 5)], at(0, I, R, dtype=dt.bool_), dt.bool_)),
    "integers": group([(i64, (12, 40))], (12,), i64, reduce("sum", [("r", 40)], at(0, I, R, dtype=i64), i64)),
    "bytes": group([(dt.u8, (12, 40))], (12,), dt.u8, reduce("max", [("r", 40)], at(0, I, R, dtype=dt.u8), dt.u8)),
    "max pool": group([(f32, (2, 3, 9, 10))], (2, 3, 5, 5), f32, window("max")),
    "sum pool": group([(f32, (2, 3, 9, 10))], (2, 3, 5, 5), f32, window("sum")),
    "nested": group([(f32, (5, 6, 7))], (5,), f32, nested()),
    "centred": group([(f32, (6, 40))], (6, 40), f32,
                     call("sub", at(0, I, J), reduce("max", [("r", 40)], at(0, I, R)))),
    "spread": group([(f32, (6, 40))], (6, 2), f32,
                    ex.Select(call("eq", J, num(0)), reduce("max", [("r", 40)], at(0, I, R)),
                              reduce("min", [("q", 40)], at(0, I, Q)))),
    "f64": group([(dt.f64, (6, 40))], (6,), dt.f64, reduce("sum", [("r", 40)], at(0, I, R, dtype=dt.f64), dt.f64)),
}  # fmt: skip
TOLERANCE = {"f16": 2e-3, "bf16": 1e-2, "f32": 2e-5, "f64": 1e-12}


@pytest.mark.parametrize("name", CASES)
def test_groups_in_every_form(name: str) -> None:
    problem = CASES[name]
    assert TACTIC.applicable(problem, TARGET) is None
    rng = np.random.default_rng(len(name))
    operands = [values(rng, o.type, ENV) for o in problem.operands]
    want = expected(problem, operands, ENV)
    out = problem.outputs[0].dtype
    configs = TACTIC.configs(problem, TARGET)
    forms = {c["form"]: c for c in reversed(configs)}  # the interpreter is slow: the best guesses, and one of each form
    for config in [*configs[:2], configs[-1], *(c for c in forms.values() if c not in configs[:2])]:
        (got,) = interpret(problem, TACTIC.emit(problem, TARGET, config), operands, ENV)
        if out.is_float:
            limit = TOLERANCE[out.name]
            np.testing.assert_allclose(got, want, rtol=limit, atol=limit, err_msg=str(config))
        else:
            np.testing.assert_array_equal(got, want, err_msg=str(config))


@pytest.mark.parametrize("kind", ["max", "min", "argmax", "argmin", "argmax_last"])
def test_nan_is_kept_by_reductions(kind: str) -> None:
    e = reduce(kind, [("r", 20)], at(0, I, R))
    problem = group([(f32, (4, 20))], (4,), e.dtype, e)
    x = np.random.default_rng(0).standard_normal((4, 20)).astype(np.float32)
    x[1, 3] = x[1, 9] = np.nan
    x[2] = -np.inf if "max" in kind else np.inf
    want = expected(problem, [x], {})
    for config in TACTIC.configs(problem, TARGET):
        (got,) = interpret(problem, TACTIC.emit(problem, TARGET, config), [x])
        np.testing.assert_array_equal(got, want, err_msg=str(config))


def test_a_row_that_fits_is_loaded_once() -> None:
    text = TACTIC.emit(CASES["softmax"], TARGET, {"form": "rows", "br": 1, "bc": 128, "warps": 1}).text
    assert text.count("tl.load") == 1 and "for " not in text.split("def group")[1]


def test_a_transpose_is_tiled_first() -> None:
    assert TACTIC.configs(CASES["transpose"], TARGET)[0]["form"] == "tile"
    assert TACTIC.configs(CASES["bias"], TARGET)[0]["form"] == "flat"


def test_what_does_not_apply_says_why() -> None:
    matmul = Problem("matmul", (), CASES["bias"].outputs)
    reason = TACTIC.applicable(matmul, TARGET)
    assert reason is not None and reason.text.endswith("not matmul")
    odd = group([(dt.c64, (3,))], (3,), dt.c64, at(0, I, dtype=dt.c64))
    reason = TACTIC.applicable(odd, TARGET)
    assert reason is not None and "c64" in reason.text


def test_the_last_block_does_not_wrap() -> None:
    problem = group([(dt.u8, (2**31 - 2,))], (2**31 - 2,), dt.u8, at(0, I, dtype=dt.u8))
    text = TACTIC.emit(problem, TARGET, {"form": "flat", "block": 1024, "warps": 4}).text
    assert "tl.program_id(0).to(tl.int64)" in text


def test_large_tensors_are_indexed_in_64_bits() -> None:
    problem = group([(f16, (70_000, 40_000))], (70_000, 40_000), f16, at(0, I, J, dtype=f16))
    text = TACTIC.emit(problem, TARGET, {"form": "flat", "block": 1024, "warps": 4}).text
    assert "tl.program_id(0).to(tl.int64)" in text
