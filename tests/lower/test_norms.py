"""Norms that go into the products behind them: what is merged, what is left alone, and that the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.ir import interp
from bessemer.ir.graph import Graph
from bessemer.kernels.base import Problem
from bessemer.lower.items import KernelItem, Lowered
from bessemer.lower.lower import lower
from tests.graphs import G, assert_close, feeds
from tests.lower import execute

NORM = {"axis": 1, "epsilon": 1e-5, "mode": "layer"}


def half(g: G, *shape: int, seed: int = 1, scale: float = 1.0) -> str:
    return g.const(np.random.default_rng(seed).standard_normal(shape) * scale, dt.f16)


def normed(g: G, x: str, scale: bool = True, bias: bool = True, axis: int = 1, mode: str = "layer") -> str:
    ends = [(0.5, 2.0)] * scale + [(-1.0, 1.0)] * bias
    affine = [g.const(np.linspace(*e, 64)) for e in ends]
    attrs = {**NORM, "axis": axis, "mode": mode, "has_scale": scale, "has_bias": bias}
    return g.layer_norm(x, *affine, **attrs)


def check(graph: Graph, takes: bool = True) -> Lowered:
    """Lower where norm_matmul has a tactic, or has none; run, and compare with the interpreter."""

    def supports(problem: Problem) -> str | None:
        return None if takes or problem.op != "norm_matmul" else "no"

    lowered, given = lower(graph, supports), feeds(graph)
    want, got = interp.run(graph, given), execute.run(lowered, given, {})
    for name, array in want.items():
        assert_close(got[name], array, 2e-3, name)
    return lowered


def kernels(lowered: Lowered) -> list[str]:
    return ["+".join(n.op for n in i.nodes) for i in lowered.items if isinstance(i, KernelItem)]


@pytest.mark.parametrize("mode,scale,bias", [("layer", True, True), ("layer", False, False), ("rms", True, False)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_norm_goes_into_the_product_behind_it(mode: str, scale: bool, bias: bool, transposed: bool) -> None:
    g = G()
    x = g.input(6, 64, dtype=dt.f16)
    w = half(g, *((24, 64) if transposed else (64, 24)), scale=0.125)
    y = g.matmul(normed(g, x, scale, bias, mode=mode), w, tb=transposed)
    assert kernels(check(g.done(g.relu(g.add(y, half(g, 24)))))) == ["norm_matmul+add+relu"]


def block(g: G) -> str:
    """A post-norm block: the norm is multiplied, and is the residual of what follows."""
    n = normed(g, g.input(6, 64, dtype=dt.f16))
    inner = g.relu(g.add(g.matmul(n, half(g, 64, 32, scale=0.125)), half(g, 32)))
    return g.add(g.matmul(inner, half(g, 32, 64, seed=3, scale=0.125)), n)


def test_a_norm_that_others_read_is_a_second_output() -> None:
    g = G()
    lowered = check(g.done(block(g)))
    assert kernels(lowered) == ["norm_matmul+add+relu", "matmul+add"]
    first, second = (i for i in lowered.items if isinstance(i, KernelItem))
    assert len(first.outputs) == 2 and set(first.outputs) <= set(second.operands)


def test_a_norm_that_is_an_output() -> None:
    g = G()
    n = normed(g, g.input(6, 64, dtype=dt.f16))
    assert kernels(check(g.done(n, g.matmul(n, half(g, 64, 32, scale=0.125))))) == ["norm_matmul"]


def test_weights_of_several_batches_behind_a_view() -> None:
    g = G()
    n = normed(g, g.input(2, 3, 64, dtype=dt.f16), axis=2)
    y = g.matmul(g.reshape(n, shape=(1, 6, 64)), half(g, 3, 64, 16, scale=0.125))
    assert kernels(check(g.done(n, g.add(y, half(g, 3, 1, 16))))) == ["norm_matmul+add"]


def test_an_epilogue_that_needs_the_norm_is_another_kernel() -> None:
    """The sum reads both outputs of the product's kernel, and so does a function of the norm that it reads."""
    g = G()
    n = normed(g, g.input(6, 64, dtype=dt.f16))
    y = g.matmul(n, half(g, 64, 64, scale=0.125))
    assert kernels(check(g.done(g.add(y, n))))[0] == "norm_matmul"
    g = G()
    n = normed(g, g.input(6, 64, dtype=dt.f16))
    y = g.matmul(n, half(g, 64, 64, scale=0.125))
    assert kernels(check(g.done(g.add(y, g.softmax(n, axis=1, log=False)))))[0] == "norm_matmul"


def test_norms_that_stay() -> None:
    g = G()
    assert "layer_norm" in kernels(check(g.done(block(g)), takes=False))
    g = G()
    wide = g.matmul(normed(g, g.input(6, 64)), g.weight(64, 8))
    assert kernels(check(g.done(wide))) == ["layer_norm", "matmul"]
    g = G()
    x, w = g.input(6, 64, dtype=dt.f16), g.input(64, 8, dtype=dt.f16, name="w")
    assert kernels(check(g.done(g.matmul(normed(g, x), w)))) == ["layer_norm", "matmul"]
