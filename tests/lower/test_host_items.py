"""What becomes no kernel: host steps and why, requirements, and the branches of an If."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import InputError
from bessemer.ir import interp
from bessemer.ir.graph import Graph
from bessemer.lower.items import AliasItem, HostItem
from bessemer.lower.lower import lower
from tests.graphs import G, assert_close
from tests.lower import execute
from tests.lower.checks import check, everything


def test_ops_without_a_kernel_are_host_steps_that_say_why() -> None:
    g = G()
    values, indices = g.b.emit("topk", (g.relu(g.input(4, 9)),), {"k": 3, "axis": 1, "largest": True, "sorted": True})
    lowered = check(g.done(values, indices))
    (host,) = (i for i in lowered.items if isinstance(i, HostItem))
    assert host.why == "topk runs its numpy reference"


def test_a_requirement_costs_a_branch_and_its_host_step_only_raises() -> None:
    g = G()
    x = g.relu(g.input(4, 9))
    y = g.require(x, g.lt(g.reduce(x, "max", 0, 1, keepdims=False), 100.0), reason="x is too large")
    lowered = check(g.done(g.exp(y)))
    (host,) = (i for i in lowered.items if isinstance(i, HostItem))
    assert host.why == "" and AliasItem(y, x) in lowered.items
    with pytest.raises(InputError, match="x is too large"):
        execute.run(lowered, {"x": np.full((4, 9), 101, np.float32)}, {})


def test_a_branch_writes_to_the_outputs_of_its_if() -> None:
    def branch(name: str, op: str, x: str, parent: G) -> Graph:
        from bessemer.ir.builder import GraphBuilder

        b = GraphBuilder(name, parent=parent.b)
        (out,) = b.emit(op, (x,))
        return b.finish((out,))

    for flag in (True, False):
        g = G()
        x, condition = g.input(4, 4), g.input(dtype=dt.bool_, name="flag")
        h = g.neg(x)
        then, orelse = branch("then", "relu", h, g), branch("else", "exp", h, g)
        (y,) = g.b.emit("if", (condition,), {"then_branch": then, "else_branch": orelse})
        graph = g.done(g.add(y, 1.0))
        given_ = {"x": np.random.default_rng(0).standard_normal((4, 4), np.float32), "flag": np.array(flag)}
        lowered = lower(graph, everything)
        want = interp.run(graph, given_)
        got = execute.run(lowered, given_, {})
        for name in want:
            assert_close(got[name], want[name], 1e-6)
        assert not any(isinstance(i, HostItem) for i in lowered.items)
