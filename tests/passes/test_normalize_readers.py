"""Layer norms between products are taken apart, and others stay whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir.graph import Graph
from bessemer.ir.text import parse
from bessemer.ir.verify import verify
from bessemer.passes import normalize_readers, pipeline
from bessemer.passes.base import PassOptions, apply
from tests.graphs import G, assert_same_numbers, ops
from tests.passes.test_texts import canonical

GPU = PassOptions("cuda", "fp16")
ROUNDING = 2e-3  # of values in 16 bits, rounded in other places


def apart(graph: Graph) -> Graph:
    after = apply(normalize_readers.PASS, graph, GPU)
    verify(after)
    return after


def norm(g: G, x: str, size: int, seed: int = 3, **other: object) -> str:
    scale, shift = g.weight(size, seed=seed), g.weight(size, seed=seed + 1)
    attrs = {"axis": g.b.type(x).rank - 1, "epsilon": 1e-5, "mode": "layer", "has_scale": True, "has_bias": True}
    return str(g.layer_norm(x, scale, shift, **(attrs | other)))


def linear(g: G, x: str, to: int, seed: int, dtype: DType = dt.f16) -> str:
    size = g.b.type(x).shape[-1]
    assert isinstance(size, int)
    rng = np.random.default_rng(seed)
    weight = g.const(rng.standard_normal((size, to)) / size**0.5, dtype)
    return str(g.add(g.matmul(x, weight), g.const(rng.standard_normal(to), dtype)))


def block(before: bool, size: int = 128, dtype: DType = dt.f16, rows: object = 6) -> Graph:
    """Two products with a residual, normalised before each of them or after."""
    g = G(n=Range(2, 64, 10))
    x = linear(g, g.input(2, rows, 64, dtype=dtype), size, 1, dtype)  # type: ignore[arg-type]
    if before:
        h = g.add(x, linear(g, g.relu(linear(g, norm(g, x, size), 96, 5, dtype)), size, 6, dtype))
        return g.done(linear(g, norm(g, h, size, 7), 8, 9, dtype))
    y = norm(g, x, size)
    h = g.add(y, linear(g, g.relu(linear(g, y, 96, 5, dtype)), size, 6, dtype))
    return g.done(linear(g, norm(g, h, size, 7), 8, 9, dtype))


def test_the_texts() -> None:
    before = parse(normalize_readers.BEFORE)
    verify(before)
    after = apart(before)
    assert canonical(after).split() == normalize_readers.AFTER.split()
    assert_same_numbers(before, after, ROUNDING)


@pytest.mark.parametrize("size", [128, 384])
@pytest.mark.parametrize("before", [True, False], ids=["norms first", "norms last"])
def test_no_norm_is_left_between_products(before: bool, size: int) -> None:
    graph = block(before, size)
    after = apart(graph)
    assert ops(after)["layer_norm"] == 0 and ops(after)["run_sums"] == 2
    assert ops(after)["normalize_rows"] == (2 if before else 3)
    assert_same_numbers(graph, after, ROUNDING)


def test_symbolic_rows() -> None:
    graph = block(False, rows=sym("n"))
    after = apart(graph)
    assert ops(after)["layer_norm"] == 0
    assert_same_numbers(graph, after, ROUNDING)


def test_siblings_share_the_rows() -> None:
    """As they are merged for query, key and value."""
    g = G()
    y = norm(g, linear(g, g.input(2, 5, 64), 128, 1, dt.f32), 128)
    graph = pipeline.run(g.done(*(linear(g, y, 64, k, dt.f32) for k in (5, 6, 7))), GPU)
    after = apart(graph)
    assert ops(graph)["layer_norm"] == 1 and ops(after)["layer_norm"] == 0
    assert ops(after)["normalize_rows"] == 1 == ops(after)["matmul"] - 1
    assert_same_numbers(graph, after, ROUNDING)


def stays(make: Callable[[G, str], tuple[str, ...]], dtype: DType = dt.f16, size: int = 128) -> None:
    g = G()
    x = linear(g, g.input(2, 5, 64, dtype=dtype), size, 1, dtype)
    graph = g.done(*make(g, x))
    assert ops(apart(graph)) == ops(graph)


def test_what_stays_whole() -> None:
    stays(lambda g, x: (norm(g, x, 128),))
    stays(lambda g, x: (linear(g, y := norm(g, x, 128), 8, 2), str(g.relu(y))))
    stays(lambda g, x: (linear(g, norm(g, x, 128), 8, 2, dt.f32),), dt.f32)
    stays(lambda g, x: (linear(g, norm(g, x, 96), 8, 2),), size=96)
    stays(lambda g, x: (linear(g, norm(g, str(g.relu(x)), 128), 8, 2),))
    stays(lambda g, x: (linear(g, norm(g, x, 128, mode="rms"), 8, 2),))
    stays(lambda g, x: (g.matmul(norm(g, x, 128), x, tb=True),))
