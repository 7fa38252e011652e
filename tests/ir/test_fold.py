"""Folding: small results at once, large ones when they are asked for, and each only once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir.fold import SMALL, constant_from, fold
from bessemer.ir.graph import Attr, Constant, TensorType
from bessemer.ir.opdef import Fusion, OpDef


def _counting() -> tuple[OpDef, list[int]]:
    calls = [0]

    def reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
        calls[0] += 1
        a, b = inputs
        assert a is not None and b is not None
        return (a + b,)

    return OpDef("sum_of_two", lambda ctx: (ctx.type(0),), reference, Fusion.HOST), calls


def _chain(op: OpDef, size: int, length: int) -> Constant:
    type_ = TensorType(dt.f64, (size,))
    constant = constant_from(np.ones(size))
    for _ in range(length):
        (constant,) = fold(op, (constant, constant), {}, (type_,))
    return constant


def test_small_results_are_computed_at_once_and_keyed_by_content():
    op, calls = _counting()
    folded = _chain(op, 2, 3)
    assert calls == [3] and folded.key == constant_from(np.full(2, 8.0)).key


def test_large_results_are_computed_when_loaded_and_once_each():
    op, calls = _counting()
    folded = _chain(op, SMALL + 1, 60)
    assert calls == [0]
    assert folded.load()[0] == 2.0**60 and calls == [60]
    assert folded.load()[0] == 2.0**60 and calls == [120], "nothing is kept between loads"
