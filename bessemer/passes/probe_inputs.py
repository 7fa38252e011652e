"""Inputs made up to see how large a graph's values become, where the caller gives none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from bessemer.core import dim
from bessemer.core.interval import Range
from bessemer.ir.graph import Graph, TensorType

Kind = Literal["centred", "positive"]
SEED = 16


def sizes_at(graph: Graph, which: Literal["opt", "least"]) -> dict[str, int]:
    """Values of the graph's symbols at the opt shapes, or at the least ones that are not empty."""
    return {name: r.typical if which == "opt" else _least(r) for name, r in graph.ranges.items()}


def _least(r: Range) -> int:
    return -(-max(r.lo, 1) // r.multiple) * r.multiple


def generated(graph: Graph, sizes: Mapping[str, int], kind: Kind) -> dict[str, np.ndarray]:
    """An array per input; the same ones every time.

    Floats of rank 2 and more are normal (uniform in (0, 1] of kind "positive"); those of less are conditions such as a
    noise level or a time, which are rarely negative, and always uniform. Integers count up to the end of the table that
    they index, else they are 0 and 1.
    """
    rng = np.random.default_rng(SEED)
    out = {}
    for name in graph.inputs:
        t = graph.types[name]
        shape = tuple(dim.evaluate(d, sizes) for d in t.shape)
        out[name] = _array(rng, t, shape, kind == "positive" or t.rank < 2, _end(graph, name))
    return out


def _array(rng: np.random.Generator, t: TensorType, shape: tuple[int, ...], positive: bool, end: int) -> np.ndarray:
    if t.dtype.kind == "s":
        return np.full(shape, "", object)
    if t.dtype.name == "bf16" or t.dtype.kind not in "fc":
        return rng.integers(0, end, shape).astype(t.dtype.numpy)
    return (1 - rng.random(shape) if positive else rng.standard_normal(shape)).astype(t.dtype.numpy)


def _end(graph: Graph, name: str) -> int:
    """The size of the smallest table that the integers `name` index; 2 where there is none."""
    return min(_tables(graph, name), default=2)


def _tables(graph: Graph, name: str) -> Iterator[int]:
    for node in graph.consumers.get(name, ()):
        if node.op == "gather" and node.inputs[1] == name and node.inputs[0] in graph.constants:
            size = graph.types[node.inputs[0]].shape[node.attrs["axis"]]  # type: ignore[index]
            if isinstance(size, int):
                yield size
        elif node.op in ("cast", "reshape"):
            yield from _tables(graph, node.outputs[0])
