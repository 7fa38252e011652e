"""The ways to lower a graph: with norms whole, or taken apart where products can add up their rows."""

from __future__ import annotations

import pytest

from bessemer.core import dtype as dt
from bessemer.ir import interp
from bessemer.kernels.base import Problem
from bessemer.lower.items import KernelItem, Lowered
from bessemer.lower.ways import ways
from bessemer.passes.base import PassOptions
from tests.graphs import G, assert_close, feeds
from tests.lower import execute
from tests.passes.test_normalize_readers import block, linear, norm

GPU = PassOptions("cuda", "fp16")


def kernels(lowered: Lowered) -> list[tuple[str, bool]]:
    """The ops of each, and whether it adds up its rows."""
    items = [i for i in lowered.items if isinstance(i, KernelItem)]
    return [("+".join(n.op for n in i.nodes), i.problem.sums) for i in items]


@pytest.mark.parametrize("before", [True, False], ids=["norms first", "norms last"])
def test_products_add_up_the_rows_they_make(before: bool) -> None:
    graph = block(before)
    plain, apart = ways(graph, GPU, lambda problem: None, lambda problem: 1.0)
    assert [op for op, _ in kernels(plain)].count("layer_norm") == 2
    assert [sums for _, sums in kernels(plain)] == [False] * len(kernels(plain))
    assert len(kernels(apart)) == len(kernels(plain)) - 2 == 4
    assert [sums for _, sums in kernels(apart)] == [True, False, True, False]
    given = feeds(graph)
    want = interp.run(graph, given)
    for way in (plain, apart):
        for name, got in execute.run(way, given, {}).items():
            assert_close(got, want[name], 3e-3, name)


def test_norms_of_the_same_rows_share_their_sums() -> None:
    """Two norms with scales of their own behind one product: its kernel adds up the rows once."""
    g = G()
    x = linear(g, g.input(2, 5, 64, dtype=dt.f16), 128, 1)
    graph = g.done(linear(g, norm(g, x, 128, 3), 8, 5), linear(g, norm(g, x, 128, 7), 8, 6))
    _, apart = ways(graph, GPU, lambda problem: None, lambda problem: 1.0)
    assert [sums for _, sums in kernels(apart)] == [True, False, False]
    given = feeds(graph)
    want = interp.run(graph, given)
    for name, got in execute.run(apart, given, {}).items():
        assert_close(got, want[name], 3e-3, name)


def test_one_way_where_no_kernel_adds_up_rows() -> None:
    def supports(problem: Problem) -> str | None:
        return "no" if problem.sums else None

    assert len(ways(block(True), GPU, supports, lambda problem: 1.0)) == 1


def test_one_way_where_nothing_finishes_the_sums() -> None:
    def supports(problem: Problem) -> str | None:
        reads = any(o.type.shape[-1:] == (2,) for o in problem.operands)
        return "no" if reads else None

    found = ways(block(True), GPU, supports, lambda problem: 1.0)
    assert len(found) == 1


def test_one_way_without_norms() -> None:
    g = G()
    assert len(ways(g.done(g.relu(g.input(3, 4))), GPU, lambda problem: None, lambda problem: 1.0)) == 1
