"""What fp16 cannot hold stays in fp32, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.errors import BuildError, InputError
from bessemer.core.interval import Range
from bessemer.ir import interp
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Graph, TensorType
from bessemer.passes import pipeline, ranges
from bessemer.passes.base import PassOptions
from bessemer.passes.precision import kept_wide
from tests.graphs import G, assert_close, feeds

FP16 = PassOptions("cuda", "fp16")


def halved(graph: Graph, calibration: tuple[dict[str, np.ndarray], ...] = ()) -> tuple[Graph, list[str]]:
    """The graph in fp16 as a build makes it, and the nodes kept in fp32."""
    options = replace(FP16, wide=ranges.measure(graph, calibration).wide)
    return pipeline.run(graph, options), [str(k) for k in kept_wide(graph, options)]


def products(graph: Graph) -> list[str]:
    return [str(graph.types[n.outputs[0]].dtype) for n in graph.nodes if n.op == "matmul"]


def chain(scale: float) -> Graph:
    """Three products; the second one's result is `scale` times as large as its operand, and normalised again."""
    g = G()
    rng = np.random.default_rng(3)
    weights = [g.const(rng.standard_normal((64, 64)).astype(np.float32) / 8) for _ in range(3)]
    x = g.relu(g.matmul(g.input(32, 64), weights[0]))
    y = g.relu(g.matmul(x, g.const(rng.standard_normal((64, 64)).astype(np.float32) * scale)))
    z = g.layer_norm(y, axis=1, epsilon=1e-5, mode="layer", has_scale=False, has_bias=False)
    return g.done(g.matmul(z, weights[2]))


def test_a_product_that_overflows_stays_in_fp32_and_all_else_runs_in_fp16() -> None:
    graph = chain(1e4)
    lowered, kept = halved(graph)
    assert products(lowered) == ["f16", "f32", "f16"]
    assert len(kept) == 1 and kept[0].startswith("matmul ")
    assert "its result reaches" in kept[0] and "above 65504" in kept[0]
    given = feeds(graph, 5)
    for name, want in interp.run(graph, given).items():
        assert_close(interp.run(lowered, given)[name], want, 2e-3)
        assert np.isnan(interp.run(pipeline.run(graph, FP16), given)[name]).any()  # what the pass prevents


def test_without_overflow_every_node_runs_in_fp16() -> None:
    lowered, kept = halved(chain(0.1))
    assert products(lowered) == ["f16", "f16", "f16"] and kept == []


@pytest.mark.parametrize(
    "value,held",
    [(65504, True), (65519, True), (65520, False), (-65519, True), (-65520, False), (np.inf, True), (-np.inf, True),
     (6.2e-5, True), (1e-5, True), (3e-6, False), (1e-7, False), (1e-12, False), (0.0, True), (-0.0, True)],
)  # fmt: skip
def test_constants_at_the_ends_of_fp16(value: float, held: bool) -> None:
    g = G()
    graph = g.done(g.mul(g.matmul(g.input(4, 8), g.weight(8, 8)), np.float32(value)))
    (scale,) = (n.inputs[1] for n in graph.nodes if n.op == "mul")
    assert (scale in ranges.measure(graph, ({"x": np.zeros((4, 8), np.float32)},)).wide) is not held
    with np.errstate(over="ignore"):
        rounded = float(np.float16(value))
    close = rounded == value or abs(rounded - value) <= ranges.COARSE * abs(value)
    assert close is held


@pytest.mark.parametrize("peak,kept", [(32759.0, False), (32760.0, True), (-32760.0, True)])
def test_calibration_inputs_need_twice_their_range(peak: float, kept: bool) -> None:
    g = G()
    graph = g.done(g.matmul(g.input(4, 8), g.const(np.eye(8))))
    x = np.zeros((4, 8), np.float32)
    x[1, 2] = peak
    assert (halved(graph, ({"x": x},))[1] != []) is kept


def test_calibration_inputs_tell_more_than_generated_ones() -> None:
    g = G()
    graph = g.done(g.matmul(g.input(4, 8), g.weight(8, 8)))
    assert halved(graph)[1] == []
    sample = {"x": np.full((4, 8), 3e4, np.float32)}
    assert halved(graph, ({"x": np.ones((4, 8), np.float32)}, sample))[1] != []
    assert ranges.measure(graph, (sample,)).how == "measured on 1 calibration inputs"
    with pytest.raises(InputError, match="no array for x"):
        ranges.measure(graph, ({},))


def test_what_is_small_in_one_sample_only_is_no_reason() -> None:
    g = G()
    graph = g.done(g.matmul(g.input(4, 8), g.weight(8, 8)))
    tiny, usual = ({"x": np.full((4, 8), size, np.float32)} for size in (1e-8, 1))
    assert halved(graph, (tiny,))[1] != []
    assert halved(graph, (tiny, usual))[1] == []


def test_a_mask_that_fp16_cannot_hold_leaves_attention_in_fp16() -> None:
    g = G()
    q = g.reshape(g.matmul(g.input(6, 16), g.weight(16, 16)), shape=(1, 1, 6, 16))
    mask = np.where(np.tri(6), 0, np.finfo(np.float32).min).astype(np.float32)[None, None]
    out = g.attention(q, q, q, g.const(mask), scale=0.25, causal=False, has_mask=True, layout="BHSD")
    graph = g.done(out)
    lowered, kept = halved(graph)
    (node,) = (n for n in lowered.nodes if n.op == "attention")
    assert kept == [] and [str(lowered.types[i].dtype) for i in node.inputs] == ["f16", "f16", "f16", "f32"]
    given = feeds(graph, 2)
    assert_close(interp.run(lowered, given)["attention"], interp.run(graph, given)["attention"], 2e-3)


def test_scales_of_normalisations_stay_f32() -> None:
    g = G()
    x = g.matmul(g.input(4, 8), g.weight(8, 8))
    norm = g.layer_norm(x, g.weight(8), g.weight(8, seed=2), axis=1, epsilon=1e-5, mode="layer", has_scale=True,
                        has_bias=True)  # fmt: skip
    graph = pipeline.run(g.done(norm), FP16)
    (node,) = (n for n in graph.nodes if n.op == "layer_norm")
    assert [str(graph.types[i].dtype) for i in node.inputs] == ["f16", "f32", "f32"]


def test_a_condition_under_a_logarithm_is_measured_on_positive_inputs() -> None:
    g = G()
    level = g.reshape(g.log(g.input(2, 1)), shape=(2, 1))
    graph = g.done(g.matmul(level, g.weight(1, 4)))
    found = ranges.measure(graph)
    assert found.complete and found.how == "measured on generated inputs of the opt shapes"


def test_values_that_are_never_finite_are_told() -> None:
    g = G()
    found = ranges.measure(g.done(g.log(g.sub(g.abs(g.input(2, 2)), 9.0))))
    assert not found.complete and found.how.endswith("1 values were never finite there")


def test_infinities_that_no_input_makes_are_meant() -> None:
    """As exporters write causal masks of any length."""
    t = sym("t")
    g = G(t=Range(1, 64, 6))
    x = g.input(t, 8)
    whole = g.fill(value=-np.inf, shape=(t, t), dtype=dt.f32)
    scores = g.add(g.matmul(x, g.transpose(x, perm=(1, 0))), g.trilu(whole, upper=True, k=1))
    found = ranges.measure(g.done(g.softmax(scores, axis=1, log=False)))
    assert found.complete and found.how == "measured on generated inputs of the opt shapes"


def test_generated_integers_reach_the_whole_table() -> None:
    g = G()
    table = np.ones((1000, 4), np.float32)
    table[500:] = 4e4
    rows = g.gather(g.const(table), g.input(3, 50, dtype=dt.i64), axis=0)
    assert halved(g.done(g.matmul(rows, g.weight(4, 4))))[1] != []


@pytest.mark.parametrize("scales", [(1e4, 1.0), (1.0, 1e4)])
def test_both_branches_of_an_if_are_measured(scales: tuple[float, float]) -> None:
    def branch(name: str, scale: float) -> Graph:
        b = GraphBuilder(name)
        b.types["x"] = TensorType(dt.f32, (4, 8))
        w = b.constant(np.full((8, 8), scale, np.float32))
        return b.finish((b.emit("matmul", ("x", w), {"transpose_a": False, "transpose_b": False})[0],))

    g = G()
    g.input(4, 8)
    condition = g.input(dtype=dt.bool_, name="c")
    first, second = (branch(name, scale) for name, scale in zip("ab", scales))
    graph = g.done(*g.b.emit("if", (condition,), {"then_branch": first, "else_branch": second}))
    assert any(why.startswith("reaches") for why in ranges.measure(graph).wide.values())


def test_what_costs_too_much_is_measured_at_the_least_shapes_or_not_at_all() -> None:
    def graph(least: int) -> Graph:
        g = G(n=Range(least, 10**9, 10**8))
        return g.done(g.matmul(g.input(sym("n"), 128), g.weight(128, 128)))

    assert ranges.measure(graph(4)).how == "measured on generated inputs of the least shapes"
    found = ranges.measure(graph(10**8))
    assert found.how.startswith("not measured") and not found.complete


def test_calibration_is_for_fp16() -> None:
    from bessemer.options import BuildOptions

    with pytest.raises(BuildError, match="calibration inputs are for fp16"):
        BuildOptions(calibration=({},))
