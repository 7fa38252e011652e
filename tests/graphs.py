"""Small graphs, written as a chain of calls, and the numbers that they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import interp
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Graph, TensorType
from bessemer.ir.verify import verify


class G:
    """`g.add(x, 1.0)` emits a node; numbers become f32 constants, arrays constants of their dtype."""

    def __init__(self, **ranges: Range) -> None:
        self.b = GraphBuilder("test", ranges)

    def input(self, *shape: Dim, dtype: DType = dt.f32, name: str = "x") -> str:
        return self.b.input(name, TensorType(dtype, shape))

    def const(self, value: Any, dtype: DType = dt.f32) -> str:
        return self.b.constant(np.asarray(value, dtype.numpy))

    def weight(self, *shape: int, seed: int = 1) -> str:
        return self.const(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))

    def __getattr__(self, op: str) -> Callable[..., str]:
        def emit(*inputs: Any, **attrs: Any) -> str:
            values = [i if isinstance(i, str) else self.const(i) for i in inputs]
            return self.b.emit(op.rstrip("_"), values, attrs)[0]

        return emit

    def matmul(self, a: str, b: str, ta: bool = False, tb: bool = False) -> str:
        return self.b.emit("matmul", (a, b), {"transpose_a": ta, "transpose_b": tb})[0]

    def reduce(self, x: str, kind: str, *axes: int, keepdims: bool = True) -> str:
        return self.b.emit("reduce", (x,), {"kind": kind, "axes": axes, "keepdims": keepdims})[0]

    def conv(self, x: str, w: str, stride: int = 1, pad: int = 0, groups: int = 1, layout: str = "NCHW") -> str:
        n = self.b.type(w).rank - 2
        attrs = {
            "layout": layout,
            "strides": (stride,) * n,
            "dilations": (1,) * n,
            "pads": (pad,) * 2 * n,
            "groups": groups,
        }
        return self.b.emit("conv", (x, w), attrs)[0]

    def done(self, *outputs: str) -> Graph:
        graph = self.b.finish(outputs)
        verify(graph)
        return graph


def feeds(graph: Graph, seed: int = 0, env: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Normal floats, small integers, coin flips."""
    rng = np.random.default_rng(seed)
    values = env if env is not None else {k: r.typical for k, r in graph.ranges.items()}
    out = {}
    for name in graph.inputs:
        t = graph.types[name]
        shape = tuple(evaluate(d, values) for d in t.shape)
        data = rng.standard_normal(shape) if t.dtype.is_float else rng.integers(0, 2, shape)
        out[name] = np.asarray(data, t.dtype.numpy)
    return out


def ops(graph: Graph) -> Counter[str]:
    """How many nodes of each op."""
    return Counter(n.op for n in graph.nodes)


def assert_same_numbers(a: Graph, b: Graph, tolerance: float = 1e-5, env: Mapping[str, int] | None = None) -> None:
    """Both graphs compute the same outputs on fresh random inputs."""
    for seed in (0, 1):
        given = feeds(a, seed, env)
        left, right = interp.run(a, given), interp.run(b, given)
        assert left.keys() == right.keys()
        for name, want in left.items():
            assert_close(right[name], want, tolerance, name)


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float, what: str = "") -> None:
    """Equal shapes and dtypes; norm of the difference over the norm at most `tolerance`; integers equal."""
    assert got.shape == want.shape and got.dtype == want.dtype, (
        f"{what}: {got.dtype}{got.shape}, {want.dtype}{want.shape}"
    )
    if got.dtype.kind != "f":
        assert np.array_equal(got, want), what
        return
    assert np.array_equal(np.isnan(got), np.isnan(want)), f"{what}: NaNs differ"
    x, y = (np.nan_to_num(v.astype(np.float64)) for v in (got, want))
    error = np.linalg.norm(x - y) / max(float(np.linalg.norm(y)), 1e-30)
    assert error <= tolerance, f"{what}: relative error {error:.2e}"
