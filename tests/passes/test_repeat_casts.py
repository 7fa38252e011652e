"""Kernels read 16 bits and cast them themselves; what no kernel can fuse shares one cast."""

from __future__ import annotations

import numpy as np

from bessemer.core import dtype as dt
from bessemer.passes import repeat_casts, simplify
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops

OPTIONS = PassOptions("cuda", "fp16")


def test_each_reader_gets_a_cast_and_its_factor() -> None:
    g = G()
    low = g.cast(g.relu(g.input(4, 8)), to=dt.f16)
    x = g.mul(g.cast(low, to=dt.f32), np.float32(16))
    before = g.done(g.exp(x), g.tanh(x), g.sin(g.cast(low, to=dt.f32)))
    after = apply(repeat_casts.PASS, apply(simplify.PASS, before, OPTIONS), OPTIONS)
    assert ops(after)["cast"] == 4 and ops(after)["mul"] == 2
    assert all(len(after.consumers[n.outputs[0]]) == 1 for n in after.nodes if n.op in ("mul", "cast")
               and n.outputs[0] != low and after.types[n.outputs[0]].dtype == dt.f32)  # fmt: skip
    assert_same_numbers(before, after)
    assert ops(apply(repeat_casts.PASS, after, OPTIONS)) == ops(after), "a second run finds nothing"


def test_products_in_fp32_share_a_cast() -> None:
    g = G()
    x = g.cast(g.cast(g.input(4, 8), to=dt.f16), to=dt.f32)
    before = g.done(g.matmul(x, g.weight(8, 3)), g.matmul(x, g.weight(8, 5)), g.exp(x), x)
    after = apply(repeat_casts.PASS, before, OPTIONS)
    assert ops(after)["cast"] == 3, "to f16, for both products and the output, and for exp"
    assert_same_numbers(before, after)
