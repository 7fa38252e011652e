"""The graph: frozen data. Values are named by strings; a node's inputs and outputs are such names.

An absent optional input is the empty string. Attributes are plain values: numbers, strings, bools, DType, Dim, Graph
(the bodies of If, Loop and Scan), and tuples of these. Node order in a graph is a topological order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Union

import numpy as np

from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.core.interval import Range

Attr = Union[int, float, str, bool, None, DType, Dim, "Graph", tuple["Attr", ...]]


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and shape (a dim may be symbolic; names starting with "u" are data-dependent) of a value."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> Dim:
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Constant:
    """A weight: where its bytes come from (`load`), and the named transformations to apply in order.

    `load` returns the source array (memory-mapped or decoded on demand), so that a graph holds no weight in memory.
    Each transform is (name, parameters), run by `bessemer.lower.transforms`. `key` identifies the content.
    """

    type: TensorType
    load: Callable[[], np.ndarray] = field(compare=False)
    key: str
    transforms: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `origin` names the ONNX nodes it stands for."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""
    origin: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.op, self.inputs, self.outputs))


@dataclass(frozen=True)
class Graph:
    """Inputs, outputs, nodes, types of every value, constants, and the ranges of the symbols.

    `output_names` are the model's names of the outputs, where they differ from the values' (empty: they do not).

    A subgraph (an attribute of If, Loop, Scan) may name values of the graphs around it.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()
    source_nodes: int = field(default=0, compare=False)  # of the model that it was imported from, nested ones too

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that writes each value."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, once per node, subgraph captures included."""
        out: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *captures(node))):
                if name:
                    out.setdefault(name, []).append(node)
        return {k: tuple(v) for k, v in out.items()}


def subgraphs(node: Node) -> tuple[Graph, ...]:
    """Graph attributes of `node`."""
    return tuple(v for v in node.attrs.values() if isinstance(v, Graph))


def captures(node: Node) -> tuple[str, ...]:
    """Outer values that the subgraphs of `node` read."""
    out: dict[str, None] = {}
    for g in subgraphs(node):
        inner = set(g.inputs) | set(g.producers) | set(g.constants)
        for name in (*(n for node in g.nodes for n in (*node.inputs, *captures(node))), *g.outputs):
            if name and name not in inner:
                out[name] = None
    return tuple(out)
