"""Spatial ops run channels last, with few transposes left; those of one dimension become two-dimensional."""

from __future__ import annotations

from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir.graph import Graph
from bessemer.passes import layout, lift_conv1d, simplify
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.rewriting import rewritten


def network(g: G, x: str, blocks: int = 3) -> str:
    """Stem, residual blocks with squeeze and excitation, concat, pooling, head."""
    y = g.relu(g.conv(x, g.weight(8, 3, 3, 3), stride=2, pad=1))
    for k in range(blocks):
        z = g.relu(g.add(g.conv(y, g.weight(8, 8, 3, 3, seed=10 + k), pad=1), g.weight(8, 1, 1, seed=20 + k)))
        z = g.conv(z, g.weight(8, 1, 3, 3, seed=30 + k), pad=1, groups=8)
        gate = g.sigmoid(g.conv(g.reduce(z, "mean", 2, 3), g.weight(8, 8, 1, 1, seed=40 + k)))
        y = g.relu(g.add(g.mul(z, gate), y))
    y = g.concat(y, g.pad(g.slice(y, starts=(0, 0, 0, 0), sizes=(2, 4, 8, 8), steps=(1, 1, 1, 1)), 0.0,
                          pads=(0, 0, 0, 0, 0, 0, 0, 0), mode="constant"), axis=1)  # fmt: skip
    y = g.reduce(y, "mean", 2, 3)
    return g.matmul(g.reshape(y, shape=(2, 12)), g.weight(12, 5))


def transposes(graph: Graph) -> int:
    return ops(graph)["transpose"]


def test_a_convolutional_network_runs_channels_last_with_one_transpose() -> None:
    graph = rewritten(network, simplify.PASS, layout.PASS, simplify.PASS, shape=(2, 3, 16, 16), tolerance=1e-4)
    assert {n.attrs["layout"] for n in graph.nodes if n.op == "conv"} == {"NHWC"}
    assert transposes(graph) <= 1, "the input's; the pooled rows are a reshape"


def test_channels_last_models_lose_their_transposes() -> None:
    """As exported from frameworks that are channels last: a transpose before and after each convolution."""

    def exported(g: G, x: str) -> str:
        y = x
        for k, channels in enumerate((3, 8, 8)):
            first = g.transpose(y, perm=(0, 3, 1, 2))
            y = g.relu(g.transpose(g.conv(first, g.weight(8, channels, 3, 3, seed=k), pad=1), perm=(0, 2, 3, 1)))
        return y

    graph = rewritten(exported, simplify.PASS, layout.PASS, simplify.PASS, shape=(2, 9, 9, 3), tolerance=1e-4)
    assert ops(graph) == {"conv": 3, "relu": 3}


def test_a_convolution_between_inflexible_ops_is_transposed_on_both_sides() -> None:
    def build(g: G, x: str) -> str:
        y = g.conv(g.cumsum(x, axis=1, exclusive=False, reverse=False), g.weight(8, 3, 3, 3), pad=1)
        return g.cumsum(y, axis=1, exclusive=False, reverse=False)

    graph = rewritten(build, simplify.PASS, layout.PASS, simplify.PASS, shape=(1, 3, 6, 6), tolerance=1e-4)
    assert ops(graph)["conv"] == 1


def test_graphs_without_spatial_ops_keep_their_layout() -> None:
    g = G()
    x = g.input(2, 3, 4, 5)
    before = g.done(g.softmax(g.add(x, g.weight(4, 5)), axis=1, log=False))
    assert apply(layout.PASS, before, PassOptions()).nodes == before.nodes


def test_pooling_resizing_and_broadcast_operands() -> None:
    def build(g: G, x: str) -> str:
        y = g.conv(x, g.weight(8, 3, 3, 3), pad=1)
        y = g.pool(y, kind="max", kernel=(2, 2), strides=(2, 2), dilations=(1, 1), pads=(0, 0, 0, 0), out=(4, 4),
                   layout="NCHW", count_include_pad=False, p=0)  # fmt: skip
        y = g.mul(g.add(y, g.weight(4, seed=3)), g.weight(8, 1, 1, seed=4))
        y = g.add(g.where(g.lt(y, 0.0), 0.5, y), g.weight(1, 8, 4, 1, seed=5))
        return g.softmax(y, axis=1, log=False)

    graph = rewritten(build, simplify.PASS, layout.PASS, simplify.PASS, shape=(2, 3, 8, 8), tolerance=1e-4)
    assert transposes(graph) <= 2 and next(n for n in graph.nodes if n.op == "softmax").attrs["axis"] == 3


def test_dynamic_shapes_change_layout_too() -> None:
    g = G(n=Range(1, 8, 2), h=Range(8, 64, 12))
    x = g.input(sym("n"), 3, sym("h"), 10)
    before = g.done(g.relu(g.conv(g.relu(g.conv(x, g.weight(8, 3, 3, 3), stride=2, pad=1)), g.weight(4, 8, 1, 1))))
    graph = apply(simplify.PASS, apply(layout.PASS, before, PassOptions()), PassOptions())
    assert transposes(graph) == 2
    assert_same_numbers(before, graph, 1e-4)
    assert_same_numbers(before, graph, 1e-4, {"n": 1, "h": 33})


def test_one_dimensional_convolutions_become_two_dimensional() -> None:
    def build(g: G, x: str) -> str:
        y = g.relu(g.conv(x, g.weight(6, 4, 3), stride=2, pad=1))
        (y,) = g.b.emit(
            "conv_transpose",
            (y, g.weight(6, 5, 4)),
            {"layout": "NCHW", "strides": (2,), "dilations": (1,), "pads": (1, 1), "output_padding": (1,), "groups": 1},
        )
        return g.pool(y, kind="avg", kernel=(3,), strides=(2,), dilations=(1,), pads=(1, 0), out=(9,), layout="NCHW",
                      count_include_pad=False, p=0)  # fmt: skip

    graph = rewritten(build, lift_conv1d.PASS, simplify.PASS, shape=(2, 4, 17), tolerance=1e-4)
    assert all(graph.types[n.inputs[0]].rank == 4 for n in graph.nodes if n.op in ("conv", "conv_transpose", "pool"))
