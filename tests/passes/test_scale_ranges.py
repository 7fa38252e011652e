"""Values that fp16 cannot hold are stored times powers of two: all products run in 16 bits, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bessemer.ir import interp
from bessemer.ir.graph import Graph
from bessemer.passes import pipeline, ranges
from bessemer.passes.base import PassOptions
from bessemer.passes.large_values import LARGEST, STEP, LargeValues
from bessemer.passes.precision import kept_wide, scaled_wide
from tests.graphs import G, assert_close, feeds

FP16 = PassOptions("cuda", "fp16")
PRODUCTS = ("conv", "conv_transpose", "matmul")


def halved(graph: Graph, tolerance: float = 3e-3) -> tuple[Graph, PassOptions]:
    """The graph in fp16, its numbers checked on fresh inputs, and the options it was made with."""
    found: list[PassOptions] = []

    def after(stage: str, g: Graph) -> PassOptions | None:
        if stage == "layout":
            seen = ranges.measure(g)
            found.append(replace(FP16, wide=seen.wide, exponents=seen.exponents))
            assert all(k % STEP == 0 and 0 < k <= LARGEST for k in seen.exponents.values())
            kept = {next(o for o in k.node.outputs) for k in kept_wide(g, found[0])}
            assert len(kept) + scaled_wide(g, found[0]) <= len(g.nodes)
        return found[0] if found else None

    lowered = pipeline.run(graph, FP16, after)
    given = feeds(graph, 11)
    for name, want in interp.run(graph, given).items():
        assert_close(interp.run(lowered, given)[name], want, tolerance, name)
    return lowered, found[0]


def dtypes(graph: Graph, *which: str) -> set[str]:
    return {str(graph.types[n.outputs[0]].dtype) for n in graph.nodes if n.op in which}


def norm(g: G, x: str, epsilon: float = 1e-5) -> str:
    return g.group_norm(x, np.ones(8, np.float32), np.zeros(8, np.float32), groups=4, epsilon=epsilon, layout="NCHW")


def block(g: G, x: str, scale: float, seed: int) -> str:
    """x + conv(silu(norm(x))) * scale, as networks do whose values grow from layer to layer."""
    w = g.const(np.random.default_rng(seed).standard_normal((8, 8, 3, 3)).astype(np.float32) * np.float32(scale))
    return g.add(x, g.add(g.conv(g.silu(norm(g, x)), w, pad=1), g.weight(1, 8, 1, 1, seed=seed)))


def test_a_network_whose_values_grow() -> None:
    g = G()
    x = g.conv(g.input(2, 8, 6, 6), g.weight(8, 8, 1, 1))
    for k, scale in enumerate((1.0, 3e3, 1e4, 3e5)):
        x = block(g, x, scale, k)
    skip = g.conv(x, g.const(np.float32(1e3) * np.eye(8, dtype=np.float32)[:, :, None, None]))
    lowered, options = halved(g.done(g.conv(norm(g, skip), g.weight(4, 8, 1, 1))))
    assert dtypes(lowered, "conv") == dtypes(lowered, "group_norm") == {"f16"}
    assert max(options.exponents.values()) >= 16
    shared = [o for n in lowered.nodes for o in n.outputs if len(lowered.consumers.get(o, ())) > 1]
    assert {str(lowered.types[v].dtype) for v in shared} == {"f16"}, "what several kernels read is in 16 bits"


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_views_transposes_and_pools_keep_the_scale(mode: str) -> None:
    g = G()
    x = g.mul(g.conv(g.input(2, 8, 6, 6), g.weight(8, 8, 1, 1)), np.float32(3e4))
    x = g.pool(
        x, kind=mode, kernel=(2, 2), strides=(2, 2), dilations=(1, 1), pads=(0,) * 4, layout="NCHW", out=(3, 3),
        count_include_pad=True, p=0,
    )  # fmt: skip
    x = g.transpose(g.reshape(g.slice(x, starts=(0, 4, 0, 0), sizes=(2, 4, 3, 3), steps=(1,) * 4), shape=(2, 4, 9)),
                    perm=(0, 2, 1))  # fmt: skip
    lowered, _ = halved(g.done(g.mul(g.matmul(x, g.weight(4, 5)), np.float32(1e-4))))
    assert dtypes(lowered, "conv", "pool", "matmul") == {"f16"}


def test_normalisations_see_the_same_epsilon() -> None:
    g = G()
    x = g.mul(g.matmul(g.input(16, 8), g.weight(8, 8)), np.float32(2e4))
    lowered, options = halved(
        g.done(g.matmul(
            g.layer_norm(x, axis=1, epsilon=3e9, mode="layer", has_scale=False, has_bias=False), g.weight(8, 8))),
    )  # fmt: skip
    (node,) = (n for n in lowered.nodes if n.op == "layer_norm")
    (k,) = {options.exponents[v] for v in options.exponents}
    assert node.attrs["epsilon"] == 3e9 / 4.0**k


def joined(g: G, x: str, scale: float) -> str:
    """Values of usual size beside such that are `scale` times as large."""
    large = g.mul(g.conv(x, g.weight(8, 8, 1, 1)), np.float32(scale))
    return g.concat(large, g.conv(x, g.weight(8, 8, 1, 1, seed=2)), axis=1)


def normalised(g: G, x: str) -> str:
    both = joined(g, x, 1e9)
    vectors = (np.ones(16, np.float32), np.zeros(16, np.float32))
    return g.conv(g.group_norm(both, *vectors, groups=16, epsilon=1e-5, layout="NCHW"), g.weight(8, 16, 1, 1))


def masked(g: G, x: str) -> str:
    hidden = np.where(np.arange(6) < 4, 0, -3e38).astype(np.float32)
    return g.conv(g.softmax(g.add(g.conv(x, g.weight(8, 8, 1, 1)), hidden), axis=3, log=False), g.weight(8, 8, 1, 1))


LOST: dict[str, Callable[[G, str], str]] = {
    "small channels beside large ones, each normalised": normalised,
    "a mask": masked,
}


@pytest.mark.parametrize("build", LOST.values(), ids=LOST)
def test_small_values_are_not_lost(build: Callable[[G, str], str]) -> None:
    g = G()
    lowered, options = halved(g.done(build(g, g.input(2, 8, 6, 6))))
    assert dtypes(lowered, "group_norm", "softmax") == {"f32"}
    assert set(options.wide) - set(options.exponents)


def test_small_channels_do_not_matter_where_they_are_added_up() -> None:
    g = G()
    both = joined(g, g.input(2, 8, 6, 6), 1e6)
    lowered, _ = halved(g.done(g.mul(g.conv(both, g.weight(8, 16, 1, 1)), np.float32(1e-6))))
    assert dtypes(lowered, "conv") == {"f16"}


@pytest.mark.parametrize("large,dtype", [(1e9, "f16"), (1e5, "f32")])
def test_small_weights_take_the_power_of_what_they_multiply(large: float, dtype: str) -> None:
    g = G()
    x = g.mul(g.sqrt(g.exp(g.conv(g.input(2, 8, 6, 6), g.const(np.eye(8)[:, :, None, None])))), np.float32(large))
    lowered, _ = halved(g.done(g.conv(x, g.const(np.full((8, 8, 1, 1), 1e-7)))))
    assert [str(lowered.types[n.outputs[0]].dtype) for n in lowered.nodes if n.op == "conv"] == ["f16", dtype]


@pytest.mark.parametrize("peak,k", [(1e4, 4), (8189.0, 4), (131000.0, 4), (131080.0, 8), (1e12, 28)])
def test_exponents(peak: float, k: int) -> None:
    seen = LargeValues(8, frozenset())
    array = np.linspace(-peak, peak / 2, 4096, dtype=np.float32).reshape(64, 64)
    seen.see_large("x", array)
    assert seen.exponent("x") == k and seen.exponent("y") is None
    assert np.abs(array * 8 * 2.0**-k).max() < 65520


def test_small_runs_and_marks_have_no_exponent() -> None:
    array = np.linspace(1, 1e5, 4096, dtype=np.float32).reshape(64, 64)
    seen = LargeValues(2, frozenset({"summed"}))
    for name in ("x", "mark", "uneven", "summed"):
        seen.see_large(name, array)
    seen.see("x", array * np.float32(1e-9))
    array[0, 0] = 1e38
    for name in ("mark", "uneven", "summed"):
        seen.see_large(name, array if name != "uneven" else np.where(np.eye(64) > 0, 1e9, 1).astype(np.float32))
    assert [seen.exponent(n) for n in ("x", "mark", "uneven", "summed")] == [None] * 4
