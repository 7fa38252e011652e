"""All passes in their order: on random graphs, and in nested ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import dtype as dt
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Graph
from bessemer.passes import pipeline
from bessemer.passes.base import PassOptions
from tests.graphs import G, assert_same_numbers
from tests.random_graphs import STEPS, grown


def test_the_order_of_the_passes() -> None:
    assert [stage for stage, _ in pipeline.STAGES] == ["fuse", "layout", "precision"]
    names = [p.name for _, passes in pipeline.STAGES for p in passes]
    assert names[0] == "fold_constants" and names[1] == names[-2] == "simplify"
    assert names[-1] == "repeat_casts", "simplify would merge them again"
    assert names.index("fuse_normalize") < names.index("fuse_attention"), (
        "attention needs softmax and merged transposes"
    )
    assert names.index("fuse_softmax") < names.index("fuse_matmul_transpose") < names.index("fuse_attention")
    assert (
        names.index("fold_affine")
        < names.index("lift_conv1d")
        < names.index("channels_last")
        < names.index("precision")
    )
    told: list[str] = []
    g = G()
    pipeline.run(g.done(g.relu(g.input(2))), PassOptions(), lambda stage, graph: told.append(stage))
    assert told == ["fuse", "layout", "precision"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 500)), min_size=1, max_size=12))
def test_random_graphs_survive_the_whole_pipeline(choices: list[tuple[str, int]]) -> None:
    before = grown([c for c in choices if c[0] != "cast"])
    assert_same_numbers(before, pipeline.run(before, PassOptions()), 1e-4)


def test_passes_reach_nested_graphs() -> None:
    g = G()
    x, flag = g.input(2, 8), g.input(dtype=dt.bool_, name="flag")
    branches = {}
    for name in ("then", "else"):
        inner = GraphBuilder(name, parent=g.b)
        (s,) = inner.emit("sigmoid", (x,))
        (y,) = inner.emit("mul", (x, s))
        branches[f"{name}_branch"] = inner.finish((y,))
    (out,) = g.b.emit("if", (flag,), branches)
    before = g.done(out)
    graph = pipeline.run(before, PassOptions())
    (node,) = (n for n in graph.nodes if n.op == "if")
    for branch in node.attrs.values():
        assert isinstance(branch, Graph) and [n.op for n in branch.nodes] == ["silu"]
    assert_same_numbers(before, graph)
