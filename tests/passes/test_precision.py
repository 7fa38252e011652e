"""Products run in half precision and the signature stays; fp32 changes nothing."""

from __future__ import annotations

import pytest

from bessemer.core import dtype as dt
from bessemer.ir import interp
from bessemer.ir.graph import Graph
from bessemer.passes import precision, simplify
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_close, feeds, ops
from tests.passes.rewriting import Spelling


def lowered(build: Spelling, which: str, shape: tuple[int, ...]) -> tuple[Graph, Graph]:
    g = G()
    before = g.done(build(g, g.input(*shape)))
    graph = apply(simplify.PASS, apply(precision.PASS, before, PassOptions(precision=which)), PassOptions())
    return before, graph


@pytest.mark.parametrize("which,low,tolerance", [("fp16", dt.f16, 5e-3), ("bf16", dt.bf16, 4e-2)])
def test_half_precision_runs_the_products_low_and_keeps_the_signature(
    which: str, low: dt.DType, tolerance: float
) -> None:
    def build(g: G, x: str) -> str:
        y = g.relu(g.add(g.matmul(x, g.weight(16, 16)), g.weight(16, seed=2)))
        y = g.softmax(g.matmul(y, g.weight(16, 8, seed=3)), axis=2, log=False)
        return g.exp(y)

    before, graph = lowered(build, which, (2, 5, 16))
    assert [graph.types[i] for i in graph.inputs] == [before.types[i] for i in before.inputs]
    assert [graph.types[o] for o in graph.outputs] == [before.types[o] for o in before.outputs]
    for node in graph.nodes:
        if node.op in ("matmul", "add", "relu", "softmax"):
            assert graph.types[node.outputs[0]].dtype == low, node.op
        if node.op == "exp":
            assert graph.types[node.inputs[0]].dtype == dt.f32, "denied ops never run low"
    assert ops(graph)["cast"] == 2, "one in, one before exp"
    given_ = feeds(before)
    for name, want in interp.run(before, given_).items():
        assert_close(interp.run(graph, given_)[name], want, tolerance)


def test_fp32_changes_nothing_and_integers_stay() -> None:
    def build(g: G, x: str) -> str:
        picked = g.gather(g.weight(10, 4), g.cast(g.abs(x), to=dt.i64), axis=0)
        return g.matmul(picked, g.weight(4, 3, seed=2))

    before, same = lowered(build, "fp32", (5,))
    assert ops(same) == ops(before)
    _, graph = lowered(build, "fp16", (5,))
    assert [graph.types[n.inputs[1]].dtype for n in graph.nodes if n.op == "gather"] == [dt.i64]
    assert [graph.types[n.outputs[0]].dtype for n in graph.nodes if n.op == "matmul"] == [dt.f16]
