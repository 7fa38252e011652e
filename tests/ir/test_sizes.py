"""A node that decides a data-dependent size stays, and comes first, where only its size is used."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import PassOptions
from bessemer.passes.simplify import simplify
from tests.graphs import G


def expanded(g: G, row: str, places: str) -> str:
    shape: tuple[Dim, ...] = g.b.type(places).shape
    return g.b.emit("expand", (row,), {"shape": shape})[0]


def test_the_decider_of_a_size_is_kept_and_runs_first() -> None:
    g = G()
    row, x = g.input(1, 1, name="row"), g.input(3, 5)
    places = g.nonzero(x)
    graph = g.done(g.relu(expanded(g, row, places)))
    assert [n.op for n in graph.nodes] == ["nonzero", "expand", "relu"]
    assert [n.op for n in Editor(graph).finish().nodes] == ["nonzero", "expand", "relu"]


def test_what_decides_no_needed_size_is_dropped() -> None:
    g = G()
    x = g.input(3, 5)
    g.relu(g.cast(g.nonzero(x), to=dt.f32))
    assert [n.op for n in g.done(g.exp(x)).nodes] == ["exp"]


def test_equal_nodes_that_decide_sizes_stay_apart() -> None:
    """Merging them would leave the second one's size without a node."""
    g = G()
    row, x = g.input(1, 1, name="row"), g.input(3, 5)
    first, second = (expanded(g, row, g.nonzero(x)) for _ in range(2))
    e = Editor(g.done(first, second))
    simplify(e, PassOptions("cpu", "fp32"))
    assert sorted(n.op for n in e.finish().nodes) == ["expand", "expand", "nonzero", "nonzero"]
