"""Which concatenations are written part by part, by the kernels that make the parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir import interp
from bessemer.ir.graph import Graph
from bessemer.kernels.base import Into, Problem
from bessemer.lower.items import KernelItem, Lowered
from bessemer.lower.lower import Estimate, lower
from bessemer.tune.model import traffic
from tests.graphs import G, assert_close, feeds
from tests.lower import execute

LAUNCH = 100.0


def by_bytes(problem: Problem) -> float | None:
    """Every kernel takes as long as its bytes do, and a start."""
    return LAUNCH + problem.typical(traffic(problem)) / 100


def refusing(op: str) -> Estimate:
    """Kernels for `op` write whole tensors alone."""
    return lambda problem: None if problem.op == op and problem.into is not None else by_bytes(problem)


def check(graph: Graph, estimate: Estimate = by_bytes) -> Lowered:
    """Lower, run, and compare with the interpreter."""
    lowered = lower(graph, lambda problem: None, estimate)
    env = {k: r.typical for k, r in graph.ranges.items()}
    given = feeds(graph, env=env)
    want, got = interp.run(graph, given), execute.run(lowered, given, env)
    for name, array in want.items():
        assert_close(got[name], array, 1e-4, name)
    return lowered


def kernels(lowered: Lowered) -> list[tuple[str, Into | None]]:
    items = [i for i in lowered.items if isinstance(i, KernelItem)]
    return [("+".join(n.op for n in i.nodes), i.problem.into) for i in items]


def conv(g: G, x: str, channels: int, to: int, size: int = 1, seed: int = 1) -> str:
    return g.conv(x, g.weight(to, channels, size, size, seed=seed), pad=size // 2, layout="NHWC")


def concat(g: G, *parts: str, axis: int = 3) -> str:
    return str(g.concat(*parts, axis=axis))


def read(g: G, x: str, channels: int) -> str:
    """A reader that takes no producer into its kernel."""
    return conv(g, x, channels, 3, seed=9)


def test_convolutions_write_their_columns() -> None:
    g = G(n=Range(1, 8, 2))
    x = g.input(sym("n"), 5, 6, 7)
    a, b = g.relu(conv(g, x, 7, 5)), g.add(conv(g, x, 7, 9, 3), g.weight(9))
    lowered = check(g.done(read(g, concat(g, a, b), 14)))
    assert kernels(lowered) == [("conv+relu+concat", Into(0, 14)), ("conv+add+concat", Into(5, 14)), ("conv", None)]


def test_what_others_read_is_copied_and_a_view_is_too() -> None:
    g = G()
    x, rows = g.input(2, 5, 6, 7), g.input(2, 30, 4, name="rows")
    a, b = conv(g, x, 7, 5), conv(g, x, 7, 32, seed=2)
    whole = concat(g, a, b, str(g.reshape(rows, shape=(2, 5, 6, 4))))
    lowered = check(g.done(read(g, whole, 41), g.relu(a)))
    assert ("conv+concat", Into(5, 41)) in kernels(lowered)
    assert [k for k in kernels(lowered) if k[0] == "concat"] == [("concat", Into(0, 41)), ("concat", Into(37, 41))]


def test_a_sum_that_cannot_be_in_the_kernel_of_its_part_is_none() -> None:
    """The pooled value has two readers, so that its part is a copy: one kernel for both parts costs less."""
    g = G()
    x = g.input(1, 5, 6, 7)
    y = conv(g, x, 7, 5)
    a = g.mul(y, g.reduce(y, "mean", 1, 2))
    lowered = check(g.done(read(g, concat(g, a, x), 12)))
    assert all(into is None for _, into in kernels(lowered))


def test_many_copies_are_one_kernel() -> None:
    """One part in place does not pay for a kernel each of three others."""
    g = G()
    x = g.input(1, 2, 2, 4)
    parts = [conv(g, x, 4, 1), *(g.input(1, 2, 2, 8, name=name) for name in "uvw")]
    lowered = check(g.done(read(g, concat(g, *parts), 25)))
    assert ("concat", None) in kernels(lowered) and all(into is None for _, into in kernels(lowered))


def test_a_kernel_that_writes_whole_tensors_alone_is_followed_by_a_copy() -> None:
    g = G()
    x = g.input(1, 8, 8, 16)
    a, b = conv(g, x, 16, 5), g.softmax(x, axis=3, log=False)
    lowered = check(g.done(read(g, concat(g, a, b), 21)), refusing("softmax"))
    found = kernels(lowered)
    assert ("conv+concat", Into(0, 21)) in found and ("softmax", None) in found and ("concat", Into(5, 21)) in found


def test_a_kernel_is_not_exchanged_for_one_that_is_slower_by_more_than_a_copy() -> None:
    def slower(us: float) -> Callable[[Problem], float | None]:
        return lambda p: (by_bytes(p) or 0.0) + (us if p.op == "conv" and p.into is not None else 0.0)

    g = G()
    x = g.input(1, 8, 8, 16)
    graph = g.done(read(g, concat(g, conv(g, x, 16, 5), conv(g, x, 16, 6, seed=2)), 11))
    assert sum(into is not None for _, into in kernels(check(graph, slower(1.0)))) == 2
    assert all(into is None for _, into in kernels(check(graph, slower(10 * LAUNCH))))


@pytest.mark.parametrize("op", ["conv", "group"])
def test_nothing_changes_where_kernels_write_whole_tensors_alone(op: str) -> None:
    g = G()
    x = g.input(1, 8, 8, 16)
    graph = g.done(read(g, concat(g, conv(g, x, 16, 5), conv(g, x, 16, 6, seed=2)), 11))
    assert lower(graph, lambda p: None, refusing(op)) == lower(graph, lambda p: None)
    assert kernels(check(graph, refusing(op))) == [("conv", None), ("conv", None), ("concat", None), ("conv", None)]


def test_other_concatenations_are_as_they_were() -> None:
    """Along another axis, of one part twice, with a reader that takes the concatenation in."""
    g = G()
    x = g.input(2, 8, 8, 16)
    a, b = conv(g, x, 16, 5), conv(g, x, 16, 5, seed=2)
    along, twice = concat(g, a, b, axis=1), concat(g, c := conv(g, x, 16, 4, seed=3), c)
    inside = g.exp(concat(g, conv(g, x, 16, 3, seed=4), conv(g, x, 16, 2, seed=5)))
    lowered = check(g.done(read(g, along, 5), read(g, twice, 8), inside))
    assert all(into is None for _, into in kernels(lowered))


def test_an_output_and_a_part_of_another_concatenation() -> None:
    g = G()
    x = g.input(2, 4, 4, 6)
    inner = concat(g, conv(g, x, 6, 3), conv(g, x, 6, 5, seed=2))
    outer = concat(g, inner, g.tanh(conv(g, x, 6, 7, seed=3)))
    lowered = check(g.done(outer))
    assert ("conv+tanh+concat", Into(8, 15)) in kernels(lowered)


def test_parts_of_both_branches_of_an_if() -> None:
    from bessemer.core import dtype as dt
    from bessemer.ir.builder import GraphBuilder

    def branch(name: str, parts: list[str], parent: G) -> Graph:
        b = GraphBuilder(name, parent=parent.b)
        made = [b.emit("conv", (p, parent.weight(4, 6, 1, 1, seed=k)), attrs)[0] for k, p in enumerate(parts)]
        return b.finish(b.emit("concat", made, {"axis": 3}))

    attrs = {"layout": "NHWC", "strides": (1, 1), "dilations": (1, 1), "pads": (0,) * 4, "groups": 1}
    for flag in (True, False):
        g = G()
        x, condition = g.input(1, 3, 3, 6), g.input(dtype=dt.bool_, name="flag")
        u, v = g.neg(x), g.exp(x)
        branches = {"then_branch": branch("then", [u, v], g), "else_branch": branch("else", [v, u], g)}
        (y,) = g.b.emit("if", (condition,), branches)
        graph = g.done(g.add(y, 1.0))
        given = {"x": np.random.default_rng(0).standard_normal((1, 3, 3, 6), np.float32), "flag": np.array(flag)}
        lowered = lower(graph, lambda p: None, by_bytes)
        assert sum(into is not None for _, into in kernels(lowered)) == 4
        want, got = interp.run(graph, given), execute.run(lowered, given, {})
        for name in want:
            assert_close(got[name], want[name], 1e-5)
