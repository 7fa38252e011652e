"""Lowers a graph and holds what the items compute against the interpreter."""

from __future__ import annotations

from collections.abc import Callable

from bessemer.ir import interp
from bessemer.ir.graph import Graph
from bessemer.kernels.base import Problem
from bessemer.lower.items import KernelItem, Lowered
from bessemer.lower.lower import lower
from tests.graphs import assert_close, feeds
from tests.lower import execute


def everything(problem: Problem) -> str | None:
    return None


def kernels(lowered: Lowered) -> list[str]:
    return ["+".join(n.op for n in i.nodes) for i in lowered.items if isinstance(i, KernelItem)]


def check(graph: Graph, supports: Callable[[Problem], str | None] = everything, tolerance: float = 1e-5) -> Lowered:
    """Lower, run, and compare with the interpreter."""
    lowered = lower(graph, supports)
    env = {k: r.typical for k, r in graph.ranges.items()}
    given_ = feeds(graph, env=env)
    want, got = interp.run(graph, given_), execute.run(lowered, given_, env)
    assert list(got) == list(want)
    for name, array in want.items():
        assert_close(got[name], array, tolerance, name)
    return lowered
