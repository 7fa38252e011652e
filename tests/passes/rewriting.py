"""A graph that is written in one of its spellings, rewritten by passes, and held against what it computed before."""

from __future__ import annotations

from collections.abc import Callable

from bessemer.ir.graph import Graph
from bessemer.passes.base import Pass, PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops

Spelling = Callable[[G, str], str]


def rewritten(spelling: Spelling, *passes: Pass, shape: tuple[int, ...] = (2, 3, 8), tolerance: float = 1e-5) -> Graph:
    """The graph of one spelling after the passes, numbers checked."""
    g = G()
    before = g.done(spelling(g, g.input(*shape)))
    after = before
    for p in passes:
        after = apply(p, after, PassOptions())
    assert_same_numbers(before, after, tolerance)
    return after


def found(spelling: Spelling, *passes: Pass, op: str, shape: tuple[int, ...] = (2, 3, 8)) -> None:
    after = rewritten(spelling, *passes, shape=shape)
    assert ops(after) == {op: 1}, dict(ops(after))
