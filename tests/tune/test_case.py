"""Cases that repeat along an axis: the same answers as the whole, and kernels that err anywhere are caught."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Operand, Problem
from bessemer.tune import case as case_module
from bessemer.tune import oracle
from bessemer.tune.case import Case, case_of

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_module, "FLOPS", 1.0)


def made(
    op: str, shapes: list[tuple[int, ...]], out: tuple[int, ...], attrs: Mapping[str, Any], epilogue: ex.Expr | None,
    anchors: int | None = None, body: ex.ComputeDef | None = None,
) -> Problem:  # fmt: skip
    result = TensorType(dt.f32, out)
    return Problem(
        op, tuple(Operand(TensorType(dt.f32, s)) for s in shapes), (result,), tuple(attrs.items()),
        len(shapes) if anchors is None else anchors, result, epilogue, body,
    )  # fmt: skip


def loaded(operand: int, *index: str | int) -> ex.Expr:
    return ex.load(operand, tuple(ex.Axis(i) if isinstance(i, str) else ex.idx(i) for i in index), dt.f32)


def plus(e: ex.Expr) -> ex.Expr:
    return ex.call("add", ex.Acc(dt.f32), e)


MATMUL = {"transpose_a": False, "transpose_b": False}
CONV = {"layout": "NHWC", "strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "groups": 1}
ATTENTION = {"layout": "BSHD", "causal": False, "has_mask": False, "scale": 0.5}
X, Y = loaded(0, "i0", "i1"), loaded(1, "i1")
PROBLEMS = {
    "rows": (made("matmul", [(40, 8), (8, 6), (40, 6)], (40, 6), MATMUL, plus(loaded(2, "i0", "i1")), 2), 0, {0, 2}),
    "columns": (made("matmul", [(8, 40), (8, 6)], (40, 6), {**MATMUL, "transpose_a": True}, None), 0, {0}),
    "stack": (made("matmul", [(1, 40, 8), (3, 8, 6)], (3, 40, 6), MATMUL, None), 1, {0}),
    "bias": (made("conv", [(20, 5, 5, 4), (6, 4, 3, 3), (6,)], (20, 5, 5, 6), CONV, plus(loaded(2, "i3")), 2), 0, {0}),
    "attention": (made("attention", [(20, 4, 2, 8)] * 3, (20, 4, 2, 8), ATTENTION, None), 0, {0, 1, 2}),
    "one mask for all": (
        made("attention", [*[(20, 4, 2, 8)] * 3, (4, 4)], (20, 4, 2, 8), {**ATTENTION, "has_mask": True}, None), 0,
        {0, 1, 2},
    ),
    "group": (made("group", [(40, 6), (6,)], (40, 6), {}, None, 0,
                   ex.ComputeDef((40, 6), dt.f32, ex.call("mul", X, Y))), 0, {0}),
    "turned": (made("group", [(40, 6)], (6, 40), {}, None, 0,
                    ex.ComputeDef((6, 40), dt.f32, loaded(0, "i1", "i0"))), 1, {0}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_answer_of_a_period_is_that_of_the_whole(name: str) -> None:
    p, axis, along = PROBLEMS[name]
    found = case_of(p, RNG)
    found_axis, reads = case_module._independent(p) or (-1, {})
    assert (found.axis, found_axis, set(reads)) == (axis, axis, along)
    assert found.period == 3 or (name == "turned" and found.period is None)
    assert [a.shape for a in found.inputs] == [o.type.shape for o in p.operands]
    (whole,) = oracle.answer(p, found.inputs, found.env)
    got = whole.astype(np.float32)
    assert found.error(0, got) < 1e-6 and found.wrong(0, got) is None
    if found.period is None:
        return
    for at in (0, 3, got.shape[axis] - 1):
        off = got.copy()
        np.moveaxis(off, axis, 0)[at] += 100
        assert "wrong result" in str(found.wrong(0, off))
    noisy = got * np.float32(1 + 1e-6) + np.random.default_rng(1).uniform(0, 1e-7, got.shape).astype(np.float32)
    assert found.wrong(0, noisy) is None, "other bits in every part, all within the tolerance"


@pytest.mark.parametrize("body", [
    ex.call("add", X, ex.cast(ex.Axis("i0"), dt.f32)),  # tells rows apart
    ex.call("add", X, loaded(0, "i1", "i0")),  # reads along and across
    ex.load(0, (ex.call("sub", ex.idx(39), ex.Axis("i0")), ex.Axis("i1")), dt.f32),  # backwards
])  # fmt: skip
def test_what_depends_on_the_place_is_computed_whole(body: ex.Expr) -> None:
    p = made("group", [(40, 40)], (40, 40), {}, None, 0, ex.ComputeDef((40, 40), dt.f32, body))
    found = case_of(p, RNG)
    assert found.axis == 1 or found.period is None
    (whole,) = oracle.answer(p, found.inputs, found.env)
    assert found.error(0, whole) == 0


def test_small_ones_and_unknown_ops_are_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    softmax = made("softmax", [(40, 6)], (40, 6), {"axis": 0, "log": False}, None)
    assert case_of(softmax, RNG).period is None
    residual = made("matmul", [(40, 8), (8, 8)], (40, 8), MATMUL, plus(loaded(0, "i0", "i1")))
    assert case_of(residual, RNG).period is None, "its own operand, in two roles"
    monkeypatch.setattr(case_module, "FLOPS", 5e8)
    assert case_of(PROBLEMS["rows"][0], RNG).period is None


def test_half_precision_and_integers_repeat_too() -> None:
    want = np.arange(6.0).reshape(3, 2)
    for dtype in (dt.f16, dt.bf16, dt.i64, dt.bool_):
        found = Case({}, [], [want > 0 if dtype == dt.bool_ else want], [dtype], 0, 3)
        got = np.concatenate([oracle.stored(want.astype(np.float32), dtype)] * 3)[:8]
        assert found.error(0, got) == 0
        got[7] = 0
        assert found.error(0, got) > 0


def test_what_is_rounded_on_the_way_is_held_to_that() -> None:
    def chain(inner: DType, out: DType) -> Problem:
        value = ex.cast(ex.cast(loaded(0, "i0", "i1"), inner), out)
        body = ex.ComputeDef((4, 6), out, value)
        return Problem("group", (Operand(TensorType(dt.f32, (4, 6))),), (TensorType(out, (4, 6)),), body=body)

    for inner, out, error, right in (
        (dt.f16, dt.f32, 1e-3, True), (dt.f16, dt.f32, 1e-2, False), (dt.f32, dt.f32, 1e-3, False),
        (dt.f32, dt.f16, 1e-3, True), (dt.bf16, dt.i32, 0.0, True),
    ):  # fmt: skip
        found = case_of(chain(inner, out), RNG)
        got = (found.wanted[0] * (1 + error)).astype(out.numpy)
        assert (found.wrong(0, got) is None) is right, (inner, out, error)
    found = case_of(chain(dt.bf16, dt.i32), RNG)
    assert found.wrong(0, np.asarray(found.wanted[0] + 1, np.int32)) is not None


def group(types: list[TensorType], out: TensorType, value: ex.Expr) -> Problem:
    body = ex.ComputeDef(out.shape, out.dtype, value)
    return Problem("group", tuple(Operand(t) for t in types), (out,), body=body)


def test_what_is_left_of_sums_that_cancel_is_held_to_what_was_added_up() -> None:
    """A window's end, 1/2 - cos(2 pi) / 2, is nothing but rounding. So is a sum of values and their opposites."""
    x = TensorType(dt.f32, (64,))
    cosine = ex.call("cos", ex.call("mul", loaded(0, "i0"), ex.lit(6.2831, dt.f32)))
    window = ex.call("sub", ex.lit(0.5, dt.f32), ex.call("mul", cosine, ex.lit(0.5, dt.f32)))
    ones = [np.ones(64, np.float32)]
    total = ex.Reduce("sum", (("r0", 64),), loaded(0, "r0"), dt.f32)
    half = RNG.standard_normal(32).astype(np.float32)
    pairs = [np.concatenate([half, -half])]
    pairs[0][0] += 1e-6
    for p, inputs, size in ((group([x], x, window), ones, 64), (group([x], TensorType(dt.f32, (1,)), total), pairs, 1)):
        wanted = oracle.answer(p, inputs, {})
        found = Case({}, inputs, wanted, [dt.f32], doubt=lambda p=p, inputs=inputs: oracle.doubt(p, inputs, {}))
        off = np.full(size, 2e-7, np.float32)
        assert found.wrong(0, wanted[0] + off) is None and found.wrong(0, wanted[0] + 1000 * off) is not None
        assert Case({}, inputs, wanted, [dt.f32]).wrong(0, wanted[0] + off) is not None, "without that"


def test_casts_to_integers_of_what_none_can_hold_do_not_count() -> None:
    x = TensorType(dt.f32, (6,))
    p = group([x], TensorType(dt.i32, (6,)), ex.cast(loaded(0, "i0"), dt.i32))
    inputs = [np.array([1.5, np.inf, -2.5, np.nan, 3e20, 7], np.float32)]
    wanted = oracle.answer(p, inputs, {})
    found = Case({}, inputs, wanted, [dt.i32], doubt=lambda: oracle.doubt(p, inputs, {}))
    assert found.wrong(0, np.array([1, -9, -2, -9, -9, 7], np.int32)) is None
    assert found.wrong(0, np.array([1, -9, -3, -9, -9, 7], np.int32)) is not None
