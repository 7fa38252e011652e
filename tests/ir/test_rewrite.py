"""The editor that passes rewrite graphs with."""

from __future__ import annotations

import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import GraphError
from bessemer.ir.rewrite import Editor
from tests.graphs import G


def test_a_value_is_replaced_by_one_of_its_type_only() -> None:
    g = G()
    x = g.input(2, 8)
    y = g.exp(x)
    graph = g.done(g.relu(y))
    e = Editor(graph)
    for other in (e.emit("reshape", (x,), {"shape": (1, 2, 8)}), e.emit("cast", (x,), {"to": dt.f16})):
        with pytest.raises(GraphError, match="in the place of"):
            e.replace(y, other)
    e.replace(y, e.emit("tanh", (x,)))
    assert [n.op for n in e.finish().nodes] == ["tanh", "relu"]
