"""Every spelling of attention is found and computes the same; what is none is left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.passes import simplify
from bessemer.passes.base import PassOptions, apply
from bessemer.passes.fusion import PATTERNS
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.rewriting import Spelling, rewritten


def heads(g: G, x: str, seed: int) -> str:
    """[B, S, 16] to [B, 2, S, 8]."""
    b, s, _ = g.b.type(x).shape
    return g.transpose(g.reshape(g.matmul(x, g.weight(16, 16, seed=seed)), shape=(b, s, 2, 8)), perm=(0, 2, 1, 3))


def merged(g: G, y: str) -> str:
    b, _, s, _ = g.b.type(y).shape
    return g.reshape(g.transpose(y, perm=(0, 2, 1, 3)), shape=(b, s, 16))


def key_transposed(g: G, x: str) -> str:
    b, s, _ = g.b.type(x).shape
    return g.transpose(g.reshape(g.matmul(x, g.weight(16, 16, seed=6)), shape=(b, s, 2, 8)), perm=(0, 2, 3, 1))


def soft(g: G, scores: str) -> str:
    return g.softmax(scores, axis=3, log=False)


ROOT8 = math.sqrt(8)
ATTENTION: dict[str, Spelling] = {
    "plain": lambda g, x: g.matmul(soft(g, g.matmul(heads(g, x, 5), key_transposed(g, x))), heads(g, x, 7)),
    "divided scores": lambda g, x: g.matmul(
        soft(g, g.div(g.matmul(heads(g, x, 5), key_transposed(g, x)), ROOT8)), heads(g, x, 7)),
    "scaled query": lambda g, x: g.matmul(
        soft(g, g.matmul(g.mul(heads(g, x, 5), 1 / ROOT8), key_transposed(g, x))), heads(g, x, 7)),
    "scaled both": lambda g, x: g.matmul(
        soft(g, g.matmul(g.mul(heads(g, x, 5), 8**-0.25), g.mul(key_transposed(g, x), 8**-0.25))), heads(g, x, 7)),
    "mask": lambda g, x: g.matmul(
        soft(g, g.add(g.div(g.matmul(heads(g, x, 5), key_transposed(g, x)), ROOT8), g.weight(3, 1, 1, 6))),
        heads(g, x, 7)),
    "swapped keys": lambda g, x: g.matmul(
        soft(g, g.matmul(heads(g, x, 5), g.transpose(heads(g, x, 6), perm=(0, 1, 3, 2)))), heads(g, x, 7)),
}  # fmt: skip


@pytest.mark.parametrize("spelling", ATTENTION.values(), ids=ATTENTION)
def test_attention(spelling: Spelling) -> None:
    after = rewritten(lambda g, x: merged(g, spelling(g, x)), simplify.PASS, *PATTERNS, simplify.PASS, shape=(3, 6, 16))
    (node,) = (n for n in after.nodes if n.op == "attention")
    assert node.attrs["layout"] == "BSHD" and not {"softmax", "transpose"} & set(ops(after)), dict(ops(after))


def test_attention_over_a_dynamic_sequence() -> None:
    g = G(b=Range(1, 8, 2), s=Range(1, 128, 5))
    x = g.input(sym("b"), sym("s"), 16)
    before = g.done(merged(g, ATTENTION["divided scores"](g, x)))
    after = before
    for p in (simplify.PASS, *PATTERNS, simplify.PASS):
        after = apply(p, after, PassOptions())
    assert ops(after)["attention"] == 1
    assert_same_numbers(before, after)


def test_a_fully_masked_row_is_guarded() -> None:
    def guarded(g: G, x: str) -> str:
        mask = np.zeros((1, 1, 6, 6), np.float32)
        mask[..., 2, :] = -np.inf
        p = soft(g, g.add(g.matmul(heads(g, x, 5), key_transposed(g, x)), mask))
        return g.matmul(g.where(g.isnan(p), 0.0, p), heads(g, x, 7))

    assert ops(rewritten(guarded, simplify.PASS, *PATTERNS, shape=(3, 6, 16)))["attention"] == 1


def test_softmax_over_another_axis_is_no_attention() -> None:
    def other(g: G, x: str) -> str:
        scores = g.softmax(g.matmul(heads(g, x, 5), key_transposed(g, x)), axis=2, log=False)
        return g.matmul(scores, heads(g, x, 7))

    assert "attention" not in ops(rewritten(other, simplify.PASS, *PATTERNS, shape=(3, 6, 16)))
