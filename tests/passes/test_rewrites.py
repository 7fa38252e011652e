"""The passes that are no patterns: simplify, layout, one-dimensional convolutions, precision, and their order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir import interp
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Graph
from bessemer.passes import fold_constants, fold_pad, layout, lift_conv1d, pipeline, precision, simplify
from bessemer.passes.base import Pass, PassOptions, apply
from tests.graphs import G, assert_close, assert_same_numbers, feeds, ops
from tests.random_graphs import STEPS, grown

OPTIONS = PassOptions()
Build = Callable[[G, str], str]


def after(build: Build, *passes: Pass, shape: tuple[int, ...] = (2, 3, 8), tolerance: float = 1e-5) -> Graph:
    g = G()
    before = g.done(build(g, g.input(*shape)))
    graph = before
    for p in passes:
        graph = apply(p, graph, OPTIONS)
    assert_same_numbers(before, graph, tolerance)
    return graph


NOTHING: dict[str, Build] = {
    "identity cast": lambda g, x: g.cast(x, to=dt.f32),
    "cast there and back": lambda g, x: g.cast(g.cast(x, to=dt.f64), to=dt.f32),
    "reshape there and back": lambda g, x: g.reshape(g.reshape(x, shape=(6, 8)), shape=(2, 3, 8)),
    "identity transpose": lambda g, x: g.transpose(x, perm=(0, 1, 2)),
    "transposes that cancel": lambda g, x: g.transpose(g.transpose(x, perm=(2, 0, 1)), perm=(1, 2, 0)),
    "three transposes": lambda g, x: g.transpose(
        g.transpose(g.transpose(x, perm=(1, 2, 0)), perm=(1, 2, 0)), perm=(1, 2, 0)),
    "plus zero": lambda g, x: g.add(0.0, g.sub(g.add(x, 0.0), 0.0)),
    "times one": lambda g, x: g.mul(1.0, g.div(g.mul(x, 1.0), 1.0)),
    "power of one": lambda g, x: g.pow(x, 1.0),
    "whole slice": lambda g, x: g.slice(x, starts=(0, 0, 0), sizes=(2, 3, 8), steps=(1, 1, 1)),
    "expand to itself": lambda g, x: g.expand(x, shape=(2, 3, 8)),
    "concat of one": lambda g, x: g.concat(x, axis=1),
}  # fmt: skip


@pytest.mark.parametrize("build", NOTHING.values(), ids=NOTHING)
def test_what_does_nothing_goes(build: Build) -> None:
    graph = after(lambda g, x: g.relu(build(g, x)), simplify.PASS)
    assert ops(graph) == {"relu": 1}


KEPT: dict[str, Build] = {
    "cast that loses": lambda g, x: g.cast(g.cast(x, to=dt.f16), to=dt.f32),
    "cast to int and back": lambda g, x: g.cast(g.cast(x, to=dt.i64), to=dt.f32),
    "cast to bool and back": lambda g, x: g.cast(g.cast(x, to=dt.bool_), to=dt.f32),
    "zero minus x": lambda g, x: g.sub(0.0, x),
    "one over x": lambda g, x: g.div(1.0, x),
    "plus a zero that broadcasts": lambda g, x: g.add(x, np.zeros((4, 2, 3, 8))),
    "reversed": lambda g, x: g.slice(x, starts=(0, 0, 7), sizes=(2, 3, 8), steps=(1, 1, -1)),
}


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_what_does_something_stays(build: Build) -> None:
    graph = after(build, simplify.PASS)
    assert graph.nodes


def test_equal_nodes_are_merged_and_random_ones_are_not() -> None:
    graph = after(lambda g, x: g.mul(g.exp(g.add(x, 1.5)), g.exp(g.add(x, 1.5))), simplify.PASS)
    assert ops(graph) == {"add": 1, "exp": 1, "mul": 1}
    different = after(lambda g, x: g.add(g.reduce(x, "sum", 1), g.reduce(x, "max", 1)), simplify.PASS)
    assert ops(different)["reduce"] == 2


def test_powers_become_products_and_roots() -> None:
    graph = after(lambda g, x: g.add(g.pow(x, 2.0), g.pow(x, 3.0)), simplify.PASS)
    assert "pow" not in ops(graph)
    assert ops(after(lambda g, x: g.pow(g.abs(x), 0.5), simplify.PASS)) == {"abs": 1, "sqrt": 1}
    assert ops(after(lambda g, x: g.pow(g.abs(x), 1.7), simplify.PASS))["pow"] == 1


def test_a_transpose_that_moves_only_ones_is_a_reshape() -> None:
    graph = after(lambda g, x: g.transpose(x, perm=(1, 0, 2)), simplify.PASS, shape=(1, 3, 8))
    assert ops(graph) == {"reshape": 1}


def test_outputs_keep_their_names_when_they_become_inputs_or_each_other() -> None:
    g = G()
    x = g.input(2, 2)
    a, b = g.add(x, 0.0), g.mul(x, 1.0)
    before = g.done(a, b)
    graph = apply(simplify.PASS, before, OPTIONS)
    assert not graph.nodes and graph.outputs == (x, x)
    assert_same_numbers(before, graph)


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 500)), min_size=1, max_size=12))
def test_random_graphs_survive_the_whole_pipeline(choices: list[tuple[str, int]]) -> None:
    before = grown([c for c in choices if c[0] != "cast"])
    assert_same_numbers(before, pipeline.run(before, OPTIONS), 1e-4)


# -- layout ------------------------------------------------------------------------------------------------------------


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
    graph = after(network, simplify.PASS, layout.PASS, simplify.PASS, shape=(2, 3, 16, 16), tolerance=1e-4)
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

    graph = after(exported, simplify.PASS, layout.PASS, simplify.PASS, shape=(2, 9, 9, 3), tolerance=1e-4)
    assert ops(graph) == {"conv": 3, "relu": 3}


def test_a_convolution_between_inflexible_ops_is_transposed_on_both_sides() -> None:
    def build(g: G, x: str) -> str:
        y = g.conv(g.cumsum(x, axis=1, exclusive=False, reverse=False), g.weight(8, 3, 3, 3), pad=1)
        return g.cumsum(y, axis=1, exclusive=False, reverse=False)

    graph = after(build, simplify.PASS, layout.PASS, simplify.PASS, shape=(1, 3, 6, 6), tolerance=1e-4)
    assert ops(graph)["conv"] == 1


def test_graphs_without_spatial_ops_keep_their_layout() -> None:
    g = G()
    x = g.input(2, 3, 4, 5)
    before = g.done(g.softmax(g.add(x, g.weight(4, 5)), axis=1, log=False))
    assert apply(layout.PASS, before, OPTIONS).nodes == before.nodes


def test_pooling_resizing_and_broadcast_operands() -> None:
    def build(g: G, x: str) -> str:
        y = g.conv(x, g.weight(8, 3, 3, 3), pad=1)
        y = g.pool(y, kind="max", kernel=(2, 2), strides=(2, 2), dilations=(1, 1), pads=(0, 0, 0, 0), out=(4, 4),
                   layout="NCHW", count_include_pad=False, p=0)  # fmt: skip
        y = g.mul(g.add(y, g.weight(4, seed=3)), g.weight(8, 1, 1, seed=4))
        y = g.add(g.where(g.lt(y, 0.0), 0.5, y), g.weight(1, 8, 4, 1, seed=5))
        return g.softmax(y, axis=1, log=False)

    graph = after(build, simplify.PASS, layout.PASS, simplify.PASS, shape=(2, 3, 8, 8), tolerance=1e-4)
    assert transposes(graph) <= 2 and next(n for n in graph.nodes if n.op == "softmax").attrs["axis"] == 3


def test_dynamic_shapes_change_layout_too() -> None:
    g = G(n=Range(1, 8, 2), h=Range(8, 64, 12))
    x = g.input(sym("n"), 3, sym("h"), 10)
    before = g.done(g.relu(g.conv(g.relu(g.conv(x, g.weight(8, 3, 3, 3), stride=2, pad=1)), g.weight(4, 8, 1, 1))))
    graph = apply(simplify.PASS, apply(layout.PASS, before, OPTIONS), OPTIONS)
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

    graph = after(build, lift_conv1d.PASS, simplify.PASS, shape=(2, 4, 17), tolerance=1e-4)
    assert all(graph.types[n.inputs[0]].rank == 4 for n in graph.nodes if n.op in ("conv", "conv_transpose", "pool"))


# -- precision ---------------------------------------------------------------------------------------------------------


def lowered(build: Build, which: str, shape: tuple[int, ...]) -> tuple[Graph, Graph]:
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


def test_views_of_a_view_plus_a_number_stay_together() -> None:
    g = G()
    part = g.slice(g.input(2, 8, 3), starts=(0, 4, 0), sizes=(2, 4, 3), steps=(1, 1, 1))
    before = g.done(g.reshape(g.add(part, 1.0), shape=(2, 1, 12)), g.reshape(g.mul(2.0, g.tanh(part)), shape=(24,)))
    after = apply(simplify.PASS, before, OPTIONS)
    assert [n.op for n in after.nodes if n.outputs[0] in after.outputs] == ["add", "reshape"]
    assert_same_numbers(before, after)


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
    pipeline.run(g.done(g.relu(g.input(2))), OPTIONS, lambda stage, graph: told.append(stage))
    assert told == ["fuse", "layout", "precision"]


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
    graph = pipeline.run(before, OPTIONS)
    (node,) = (n for n in graph.nodes if n.op == "if")
    for branch in node.attrs.values():
        assert isinstance(branch, Graph) and [n.op for n in branch.nodes] == ["silu"]
    assert_same_numbers(before, graph)


# -- constants ---------------------------------------------------------------------------------------------------------


def quantized_product() -> Graph:
    """A product by the transpose of an int8 matrix with a scale per row, and a quantised bias."""
    g, rng = G(), np.random.default_rng(4)
    weight = g.const(rng.integers(-128, 128, (96, 64)), dt.i8)
    real = g.dequantize(weight, g.const(rng.uniform(0.01, 0.02, (96, 1)).astype(np.float32)), to=dt.f32)
    bias = g.dequantize(g.const(np.arange(96), dt.i32), g.const(np.float32(1e-3)), to=dt.f32)
    return g.done(g.add(g.matmul(g.input(2, 64), g.transpose(real, perm=(1, 0))), bias))


def test_a_quantised_weight_is_visible_until_it_is_folded() -> None:
    before = quantized_product()
    assert ops(before) == {"dequantize": 1, "transpose": 1, "matmul": 1, "add": 1}  # the bias, a vector, is folded
    assert dt.i8 in {c.type.dtype for c in before.constants.values()}
    folded = apply(fold_constants.PASS, before, OPTIONS)
    assert ops(folded) == {"matmul": 1, "add": 1}
    assert {c.type.dtype for c in folded.constants.values()} == {dt.f32}
    assert_same_numbers(before, folded, 1e-6)
    assert "dequantize" not in ops(pipeline.run(before, OPTIONS))


@pytest.mark.parametrize(("low", "left"), [(1, {"pad": 1, "conv": 1}), (8, {"conv": 1})])
def test_padding_that_may_crop_stays_before_the_convolution(low: int, left: dict[str, int]) -> None:
    """Rows are filled up to 16, or cut down to 16."""
    g, w = G(w=Range(low, 16 if low == 8 else 64, 16)), sym("w")
    x = g.pad(g.input(1, 2, 5, w), 0.0, pads=(0, 0, 0, 0, 0, 0, 0, 16 - w), mode="constant")
    before = g.done(g.conv(x, g.weight(3, 2, 3, 3)))
    after_ = apply(fold_pad.PASS, before, OPTIONS)
    assert ops(after_) == left
    for size in (low, 16) if low == 8 else (low, 16, 64):
        assert_same_numbers(before, after_, 1e-5, {"w": size})
