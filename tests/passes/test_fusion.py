"""Every spelling that a pattern promises is found, computes the same, and near misses are left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir import interp
from bessemer.passes import simplify
from bessemer.passes.base import PassOptions, apply
from bessemer.passes.fusion import channel_runs, gelu, group_norm, matmul, normalize, siblings, softmax, swish
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.rewriting import Spelling, found, rewritten

ROOT2 = math.sqrt(2)


def one_plus_erf(g: G, x: str) -> str:
    return g.add(g.erf(g.div(x, ROOT2)), 1.0)


def cubic(g: G, x: str) -> str:
    return g.add(x, g.mul(g.mul(g.mul(x, x), x), 0.044715))


def one_plus_tanh(g: G, inner: str) -> str:
    return g.add(g.tanh(g.mul(inner, math.sqrt(2 / math.pi))), 1.0)


GELU: dict[str, Spelling] = {
    "x * erf * half": lambda g, x: g.mul(g.mul(x, one_plus_erf(g, x)), 0.5),
    "half * (x * erf)": lambda g, x: g.mul(0.5, g.mul(one_plus_erf(g, x), x)),
    "x * (half * erf)": lambda g, x: g.mul(x, g.mul(0.5, one_plus_erf(g, x))),
    "(x * half) * erf": lambda g, x: g.mul(g.mul(x, 0.5), one_plus_erf(g, x)),
    "erf * (half * x)": lambda g, x: g.mul(one_plus_erf(g, x), g.mul(0.5, x)),
    "erf of a product": lambda g, x: g.mul(g.mul(x, 0.5), g.add(1.0, g.erf(g.mul(x, 1 / ROOT2)))),
    "tanh, cube by products": lambda g, x: g.mul(g.mul(x, 0.5), one_plus_tanh(g, cubic(g, x))),
    "tanh, cube by pow": lambda g, x: g.mul(
        g.mul(0.5, x), one_plus_tanh(g, g.add(x, g.mul(0.044715, g.pow(x, 3.0))))),
    "tanh, factored": lambda g, x: g.mul(
        0.5, g.mul(x, one_plus_tanh(g, g.mul(x, g.add(g.mul(g.mul(x, x), 0.044715), 1.0))))),
    "of a product of tensors": lambda g, x: (lambda v: g.mul(g.mul(v, one_plus_erf(g, v)), 0.5))(g.add(x, 1.0)),
}  # fmt: skip


@pytest.mark.parametrize("spelling", GELU.values(), ids=GELU)
def test_gelu(spelling: Spelling) -> None:
    after = rewritten(spelling, gelu.PASS)
    assert ops(after)["gelu"] == 1 and not {"erf", "tanh", "mul"} & set(ops(after))


NOT_GELU: dict[str, Spelling] = {
    "other scale": lambda g, x: g.mul(g.mul(x, g.add(g.erf(g.div(x, 1.5)), 1.0)), 0.5),
    "other offset": lambda g, x: g.mul(g.mul(x, g.add(g.erf(g.div(x, ROOT2)), 0.9)), 0.5),
    "other factor": lambda g, x: g.mul(g.mul(x, one_plus_erf(g, x)), 0.4),
    "other argument": lambda g, x: g.mul(g.mul(x, one_plus_erf(g, g.neg(x))), 0.5),
    "other cubic": lambda g, x: g.mul(g.mul(x, 0.5), one_plus_tanh(g, g.add(x, g.mul(g.mul(g.mul(x, x), x), 0.05)))),
    "squared": lambda g, x: g.mul(g.mul(g.mul(x, x), one_plus_erf(g, x)), 0.5),
    "quick gelu": lambda g, x: g.mul(x, g.sigmoid(g.mul(x, 1.702))),
    "another rank": lambda g, x: g.mul(g.mul(x, one_plus_erf(g, x)), np.full((1, 1, 1, 1), 0.5, np.float32)),
    "another rank inside": lambda g, x: g.mul(
        g.mul(x, 0.5), g.add(g.erf(g.div(x, ROOT2)), np.ones((1, 1, 1, 1), np.float32))),
}


@pytest.mark.parametrize("spelling", NOT_GELU.values(), ids=NOT_GELU)
def test_what_is_not_gelu_is_left_alone(spelling: Spelling) -> None:
    assert "gelu" not in ops(rewritten(spelling, gelu.PASS))


def clipped(g: G, x: str) -> str:
    return g.min(g.max(g.add(x, 3.0), 0.0), 6.0)


SWISH: dict[str, tuple[Spelling, str]] = {
    "x * sigmoid": (lambda g, x: g.mul(x, g.sigmoid(x)), "silu"),
    "sigmoid * x": (lambda g, x: g.mul(g.sigmoid(x), x), "silu"),
    "x * hard sigmoid": (lambda g, x: g.mul(x, g.hard_sigmoid(x, alpha=1 / 6, beta=0.5)), "hard_swish"),
    "x * (clip / 6)": (lambda g, x: g.mul(x, g.div(clipped(g, x), 6.0)), "hard_swish"),
    "(clip * 1/6) * x": (lambda g, x: g.mul(g.mul(clipped(g, x), 1 / 6), x), "hard_swish"),
    "(x * clip) / 6": (lambda g, x: g.div(g.mul(x, clipped(g, x)), 6.0), "hard_swish"),
    "(clip * x) * 1/6": (lambda g, x: g.mul(1 / 6, g.mul(clipped(g, x), x)), "hard_swish"),
    "max after min": (lambda g, x: g.mul(x, g.div(g.max(g.min(g.add(3.0, x), 6.0), 0.0), 6.0)), "hard_swish"),
    "relu and min": (lambda g, x: g.mul(x, g.div(g.min(g.relu(g.add(x, 3.0)), 6.0), 6.0)), "hard_swish"),
}


@pytest.mark.parametrize("spelling,op", SWISH.values(), ids=SWISH)
def test_swish(spelling: Spelling, op: str) -> None:
    found(spelling, swish.PASS, op=op)


@pytest.mark.parametrize("spelling", [
    lambda g, x: g.mul(x, g.hard_sigmoid(x, alpha=0.2, beta=0.5)),
    lambda g, x: g.mul(x, g.sigmoid(g.neg(x))),
    lambda g, x: g.mul(x, g.div(g.min(g.max(g.add(x, 3.0), 0.0), 5.0), 6.0)),
    lambda g, x: g.mul(x, g.div(clipped(g, x), 5.0)),
    lambda g, x: g.div(g.mul(x, clipped(g, x)), np.full((1, 1, 1, 1), 6.0, np.float32)),
    lambda g, x: g.mul(x, g.div(clipped(g, x), np.full((1, 1, 1, 1), 6.0, np.float32))),
    lambda g, x: g.mul(x, g.div(g.min(g.max(g.add(x, 2.0), 0.0), 6.0), 6.0)),
])  # fmt: skip
def test_what_is_not_swish_is_left_alone(spelling: Spelling) -> None:
    assert not {"silu", "hard_swish"} & set(ops(rewritten(spelling, swish.PASS)))


@pytest.mark.parametrize("divided_last", [False, True])
def test_integers_are_divided_to_integers(divided_last: bool) -> None:
    """No hard swish: x * (clip(x + 3, 0, 6) / 6) is x or 0, and (x * clip(x + 3, 0, 6)) / 6 is rounded."""
    g = G()
    x = g.input(11, dtype=dt.i32)
    three, zero, six = (g.const(v, dt.i32) for v in (3, 0, 6))
    gate = g.min(g.max(g.add(x, three), zero), six)
    before = g.done(g.div(g.mul(x, gate), six) if divided_last else g.mul(x, g.div(gate, six)))
    after = apply(swish.PASS, before, PassOptions())
    assert "hard_swish" not in ops(after)
    given = {"x": np.arange(-5, 6, dtype=np.int32)}
    (want,), (got,) = interp.run(before, given).values(), interp.run(after, given).values()
    assert np.array_equal(got, want) and want.dtype == np.int32


def test_a_product_that_others_read_is_kept() -> None:
    g = G()
    x = g.input(2, 8)
    product = g.mul(x, clipped(g, x))
    before = g.done(g.div(product, 6.0), product)
    after = apply(swish.PASS, before, PassOptions())
    assert_same_numbers(before, after)
    assert "hard_swish" not in ops(after)


def centred(g: G, x: str, axes: tuple[int, ...] = (2,)) -> str:
    return g.sub(x, g.reduce(x, "mean", *axes))


def deviation(g: G, d: str, square: str = "mul", axes: tuple[int, ...] = (2,)) -> str:
    squared = g.mul(d, d) if square == "mul" else g.pow(d, 2.0)
    return g.sqrt(g.add(g.reduce(squared, "mean", *axes), 1e-5))


NORMS: dict[str, tuple[Spelling, dict[str, object]]] = {
    "division": (lambda g, x: (lambda d: g.div(d, deviation(g, d)))(centred(g, x)), {"mode": "layer"}),
    "pow": (lambda g, x: (lambda d: g.div(d, deviation(g, d, "pow")))(centred(g, x)), {"mode": "layer"}),
    "reciprocal": (
        lambda g, x: (lambda d: g.mul(d, g.reciprocal(deviation(g, d))))(centred(g, x)), {"mode": "layer"}),
    "one over": (lambda g, x: (lambda d: g.mul(g.div(1.0, deviation(g, d)), d))(centred(g, x)), {"mode": "layer"}),
    "two axes": (
        lambda g, x: (lambda d: g.div(d, deviation(g, d, axes=(1, 2))))(centred(g, x, (1, 2))), {"axis": 1}),
    "rms": (lambda g, x: g.div(x, deviation(g, x)), {"mode": "rms"}),
    "rms with rsqrt": (
        lambda g, x: g.mul(x, g.rsqrt(g.add(g.reduce(g.mul(x, x), "mean", 2), 1e-5))), {"mode": "rms"}),
    "scale": (
        lambda g, x: g.mul((lambda d: g.div(d, deviation(g, d)))(centred(g, x)), g.weight(8)), {"has_scale": True}),
    "scale and bias": (
        lambda g, x: g.add(
            g.mul(g.weight(8), (lambda d: g.div(d, deviation(g, d)))(centred(g, x))), g.weight(8, seed=2)),
        {"has_scale": True, "has_bias": True}),
    "scale with leading ones": (
        lambda g, x: g.mul(g.div(x, deviation(g, x)), g.weight(1, 1, 8)), {"mode": "rms", "has_scale": True}),
    "rms, shifted": (
        lambda g, x: g.add(g.mul(g.div(x, deviation(g, x)), g.weight(8)), g.weight(8, seed=2)), {"has_bias": False}),
    "scale over one axis of two": (
        lambda g, x: g.mul((lambda d: g.div(d, deviation(g, d, axes=(1, 2))))(centred(g, x, (1, 2))), g.weight(8)),
        {"has_scale": False}),
}  # fmt: skip


@pytest.mark.parametrize("spelling,attrs", NORMS.values(), ids=NORMS)
def test_layer_and_rms_norm(spelling: Spelling, attrs: dict[str, object]) -> None:
    after = rewritten(spelling, simplify.PASS, normalize.PASS)
    (norm,) = (n for n in after.nodes if n.op == "layer_norm")
    assert attrs.items() <= dict(norm.attrs).items()
    assert not {"reduce", "sqrt", "rsqrt"} & set(ops(after))


@pytest.mark.parametrize("spelling", [
    lambda g, x: g.div(x, g.sqrt(g.add(g.reduce(g.mul(x, x), "sum", 2), 1e-5))),
    lambda g, x: g.div(x, g.sqrt(g.add(g.reduce(g.mul(x, x), "mean", 1), 1e-5))),
    lambda g, x: g.div(g.neg(x), deviation(g, x)),
    lambda g, x: g.div(x, deviation(g, centred(g, x))),
    lambda g, x: g.mul(x, deviation(g, x)),
])  # fmt: skip
def test_what_is_no_norm_is_left_alone(spelling: Spelling) -> None:
    assert "layer_norm" not in ops(rewritten(spelling, simplify.PASS, normalize.PASS))


def test_a_mean_without_its_axis_is_of_other_rows() -> None:
    """In a square, x - mean(x) with the axis dropped takes the mean of row j from column j: an RMS norm of another."""

    def spelling(g: G, x: str) -> str:
        d = g.sub(x, g.reduce(x, "mean", 1, keepdims=False))
        return g.div(d, g.sqrt(g.add(g.reduce(g.mul(d, d), "mean", 1), 1e-5)))

    (norm,) = (n for n in rewritten(spelling, normalize.PASS, shape=(4, 4)).nodes if n.op == "layer_norm")
    assert norm.attrs["mode"] == "rms"


def exponentials(g: G, x: str, axis: int) -> str:
    return g.exp(g.sub(x, g.reduce(x, "max", axis)))


def test_softmax() -> None:
    found(lambda g, x: (lambda e: g.div(e, g.reduce(e, "sum", 1)))(exponentials(g, x, 1)), softmax.PASS, op="softmax")
    found(lambda g, x: (lambda e: g.div(e, g.reduce(e, "sum", 2)))(exponentials(g, x, 2)), softmax.PASS, op="softmax")
    found(lambda g, x: (lambda e: g.div(e, g.reduce(e, "sum", 1)))(g.exp(x)), softmax.PASS, op="softmax")
    others: list[Spelling] = [
        lambda g, x: (lambda e: g.div(e, g.reduce(e, "mean", 2)))(g.exp(x)),
        lambda g, x: (lambda e: g.div(e, g.reduce(g.add(e, 1.0), "sum", 2)))(g.exp(x)),
        lambda g, x: (lambda e: g.div(e, g.reduce(e, "sum", 1, 2)))(g.exp(x)),
    ]
    for spelling in others:
        assert "softmax" not in ops(rewritten(spelling, softmax.PASS))
    other_peak = rewritten(
        lambda g, x: (lambda e: g.div(e, g.reduce(e, "sum", 2)))(exponentials(g, x, 1)), softmax.PASS
    )
    assert "softmax" in ops(other_peak), "another maximum is an ordinary shift"


def test_matmul_takes_transposes_of_its_last_two_axes() -> None:
    swap = (0, 2, 1)
    spellings: list[Spelling] = [
        lambda g, x: g.matmul(x, g.transpose(g.add(x, 1.0), perm=swap)),
        lambda g, x: g.matmul(g.transpose(x, perm=swap), x),
        lambda g, x: g.matmul(g.transpose(x, perm=swap), g.transpose(g.weight(2, 5, 3), perm=swap)),
        lambda g, x: g.matmul(g.transpose(x, perm=swap), x, ta=True, tb=True),
    ]
    for spelling in spellings:
        assert "transpose" not in ops(rewritten(spelling, matmul.PASS)), spelling
    kept = rewritten(lambda g, x: g.matmul(g.transpose(x, perm=(1, 0, 2)), g.weight(8, 4)), matmul.PASS)
    assert ops(kept)["transpose"] == 1


def group_normed(g: G, x: str, groups: int = 2, shape: tuple[int, ...] = (2, 4, 3, 5)) -> str:
    flat = g.reshape(x, shape=(shape[0], groups, math.prod(shape[1:]) // groups))
    norm = g.group_norm(flat, np.ones(groups), np.zeros(groups), groups=groups, epsilon=1e-5, layout="NCHW")
    return g.reshape(norm, shape=shape)


def test_group_norm_from_instance_norm() -> None:
    shape = (2, 4, 3, 5)
    spellings: list[Spelling] = [
        group_normed,
        lambda g, x: g.add(g.mul(group_normed(g, x), g.weight(4, 1, 1)), g.weight(1, 4, 1, 1, seed=2)),
        lambda g, x: g.mul(g.add(group_normed(g, x), g.weight(4, 1, 1)), g.weight(1, 4, 1, 1, seed=2)),
    ]
    for spelling in spellings:
        found(spelling, group_norm.PASS, simplify.PASS, op="group_norm", shape=shape)
    spatial = rewritten(lambda g, x: g.mul(group_normed(g, x), g.weight(3, 5)), group_norm.PASS, shape=shape)
    assert ops(spatial) == {"group_norm": 1, "mul": 1}


def test_products_of_one_input_are_one_product_at_all_shapes() -> None:
    g = G(b=Range(1, 8, 2), s=Range(1, 128, 5))
    x = g.input(sym("b"), sym("s"), 16)
    before = g.done(*(g.add(g.matmul(x, g.weight(16, 16, seed=k)), g.weight(16, seed=9 + k)) for k in range(3)))
    after = apply(siblings.PASS, before, PassOptions(target="cuda"))
    assert ops(after)["matmul"] == 1 and ops(after)["slice"] == 3
    assert_same_numbers(before, after)


@pytest.mark.parametrize("shape,splits", [((1, 16, 1, 1), True), ((16, 1, 1), True), ((2, 16, 1, 1), False)], ids=str)
def test_channels_are_split_where_the_bias_is_of_them_alone(shape: tuple[int, ...], splits: bool) -> None:
    g = G()
    y = g.add(g.conv(g.input(2, 4, 3, 5), g.weight(16, 4, 1, 1)), g.weight(*shape, seed=2))
    rows = g.reshape(g.transpose(y, perm=(0, 2, 3, 1)), shape=(2, 15, 16))
    parts = [g.slice(rows, starts=(0, 0, k), sizes=(2, 15, 8), steps=(1, 1, 1)) for k in (0, 8)]
    before = g.done(*parts)
    after = apply(channel_runs.PASS, before, PassOptions(target="cuda"))
    assert ("matmul" in ops(after)) == splits
    assert_same_numbers(before, after)


def test_patterns_hold_in_half_precision_too() -> None:
    g = G()
    x = g.input(4, 8, dtype=dt.f16)
    before = g.done(g.mul(x, g.sigmoid(x)))
    after = apply(swish.PASS, before, PassOptions())
    assert ops(after) == {"silu": 1}
    assert_same_numbers(before, after, 5e-3)
