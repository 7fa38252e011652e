"""Images of few channels on GPUs: padded where that costs nothing, left alone elsewhere."""

from __future__ import annotations

import pytest

from bessemer.ir.graph import Graph
from bessemer.passes import pad_channels, pipeline
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops


def classifier(channels: int, first: str = "conv") -> Graph:
    g = G()
    x = g.input(2, channels, 10, 12)
    if first == "relu":
        x = g.relu(x)
    return g.done(g.relu(g.conv(x, g.weight(16, channels, 3, 3), pad=1)))


def lowered(graph: Graph, target: str, precision: str) -> Graph:
    return pipeline.run(graph, PassOptions(target, precision))


@pytest.mark.parametrize("channels", [1, 3, 12])
def test_the_image_gets_channels_of_zeros_and_a_border(channels: int) -> None:
    before = classifier(channels)
    graph = lowered(before, "cuda", "fp16")
    (conv,) = (n for n in graph.nodes if n.op == "conv")
    assert graph.types[conv.inputs[0]].shape == (2, 12, 14, 8 * -(-channels // 8))
    assert conv.attrs["pads"] == (0, 0, 0, 0)
    assert_same_numbers(before, graph, 5e-3)


@pytest.mark.parametrize(
    "graph,target,precision",
    [
        (classifier(8), "cuda", "fp16"),
        (classifier(3), "cuda", "fp32"),
        (classifier(3), "cpu", "fp16"),
        (classifier(3, "relu"), "cuda", "fp16"),
    ],
    ids=["whole runs", "fp32", "cpu", "not an input"],
)
def test_others_stay(graph: Graph, target: str, precision: str) -> None:
    assert "pad" not in ops(lowered(graph, target, precision))


def test_it_is_done_once() -> None:
    graph = lowered(classifier(3), "cuda", "fp16")
    assert ops(apply(pad_channels.PASS, graph, PassOptions("cuda", "fp16"))) == ops(graph)
