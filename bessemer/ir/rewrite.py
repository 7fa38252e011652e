"""A graph opened for rewriting. Passes find nodes, emit replacements, rewire values, and `finish`.

Emitted nodes are inferred, and folded where their inputs are constants. `finish` drops what nothing uses and puts the
nodes in topological order (stable: ties keep their former order).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.core.errors import GraphError
from bessemer.core.interval import Range
from bessemer.ir import sizes
from bessemer.ir.fold import constant_from, fold
from bessemer.ir.graph import Attr, Constant, Graph, Node, TensorType, captures
from bessemer.ir.opdef import OPS, Fusion, InferContext

FILL_LIMIT = 1 << 16  # elements up to which scalar_fill looks at a constant


@dataclass(frozen=True)
class Scope:
    """Types and constants of the graphs around a subgraph."""

    types: Mapping[str, TensorType] = field(default_factory=dict)
    constants: Mapping[str, Constant] = field(default_factory=dict)


class Editor:
    """One graph being rewritten. Values keep their names; new ones get fresh names."""

    def __init__(self, graph: Graph, scope: Scope | None = None) -> None:
        self.graph, self.scope = graph, scope or Scope()
        self.ranges: Mapping[str, Range] = graph.ranges
        self.types: dict[str, TensorType] = dict(graph.types)
        self.constants: dict[str, Constant] = dict(graph.constants)
        self.outputs = list(graph.outputs)
        self._producers: dict[str, Node] = {}
        self._users: dict[str, dict[int, Node]] = {}
        self._order: dict[int, int] = {}
        self._nodes: dict[int, Node] = {}
        self._position = itertools.count()
        self._fresh = itertools.count()
        for node in graph.nodes:
            self._add(node, next(self._position))

    # -- looking --------------------------------------------------------------------------------------------------

    def nodes(self) -> Iterator[Node]:
        """The nodes in their order at the time of the call, each as it is when its turn comes; removed ones are not."""
        keys = sorted(self._nodes, key=self._order.__getitem__)
        names = [next(o for o in self._nodes[key].outputs if o) for key in keys]
        for name in names:
            node = self._producers.get(name)
            if node is not None:
                yield node

    def alive(self, node: Node) -> bool:
        """Whether `node` is still in the graph."""
        return id(node) in self._nodes

    def producer(self, value: str, op: str | None = None) -> Node | None:
        """The node that writes `value` (only if it is an `op`, where that is given)."""
        node = self._producers.get(value)
        return node if node is not None and (op is None or node.op == op) else None

    def users(self, value: str) -> list[Node]:
        """The nodes that read `value` (also through their subgraphs)."""
        return list(self._users.get(value, {}).values())

    def only_user(self, value: str) -> Node | None:
        """The single reader of a value that is no graph output, else None."""
        users = self._users.get(value, {})
        return next(iter(users.values())) if len(users) == 1 and value not in self.outputs else None

    def type(self, value: str) -> TensorType:
        return self.types[value] if value in self.types else self.scope.types[value]

    def constant_of(self, value: str) -> Constant | None:
        return self.constants[value] if value in self.constants else self.scope.constants.get(value)

    def array(self, value: str) -> np.ndarray | None:
        """The array of a constant (bf16 as f32), else None."""
        constant = self.constant_of(value)
        if constant is None:
            return None
        array = constant.load()
        return dt.from_bf16(array) if constant.type.dtype == dt.bf16 else array

    def scalar(self, value: str) -> float | None:
        """The value of a one-element numeric constant, else None."""
        constant = self.constant_of(value)
        if constant is None or constant.type.numel != 1 or constant.type.dtype.kind not in "fiub":
            return None
        array = self.array(value)
        return None if array is None else float(array.reshape(-1)[0])

    def scalar_fill(self, value: str) -> float | None:
        """The value that every element of a (small) numeric constant has, else None."""
        constant = self.constant_of(value)
        if constant is None or constant.type.dtype.kind not in "fiub" or not isinstance(constant.type.numel, int):
            return None
        if not 0 < constant.type.numel <= FILL_LIMIT:
            return None
        array = self.array(value)
        first = None if array is None else float(array.reshape(-1)[0])
        return first if array is not None and bool((array == first).all()) else None

    # -- changing -------------------------------------------------------------------------------------------------

    def constant(self, value: np.ndarray | Constant, dtype: DType | None = None, hint: str = "const") -> str:
        """A constant value."""
        constant = value if isinstance(value, Constant) else constant_from(np.asarray(value), dtype)
        name = self._name(hint)
        self.types[name], self.constants[name] = constant.type, constant
        return name

    def emit(
        self, op: str, inputs: Sequence[str], attrs: Mapping[str, Attr] | None = None, *, like: Sequence[Node] = (),
        hint: str = "",
    ) -> str:  # fmt: skip
        """Add a node; its first output. `like` are the nodes it replaces: it takes their place and their origins."""
        return self.emit_all(op, inputs, attrs, like=like, hint=hint)[0]

    def emit_all(
        self, op: str, inputs: Sequence[str], attrs: Mapping[str, Attr] | None = None, *, like: Sequence[Node] = (),
        hint: str = "",
    ) -> tuple[str, ...]:  # fmt: skip
        """Add a node; all its outputs."""
        opdef, attributes = OPS.get(op), MappingProxyType(dict(attrs or {}))
        types = tuple(self.type(i) if i else None for i in inputs)
        results = opdef.infer(InferContext(types, attributes, self.ranges, (None,) * len(types)))
        sources = [self.constant_of(i) if i else None for i in inputs]
        foldable = not opdef.random and opdef.fusion is not Fusion.CONTROL and bool(inputs)
        if foldable and all(c is not None for c, i in zip(sources, inputs) if i):
            return tuple(self.constant(c, hint=hint or op) for c in fold(opdef, sources, attributes, results))
        outputs = tuple(self._name(hint or op) for _ in results)
        self.types.update(zip(outputs, results))
        origin = tuple(dict.fromkeys(o for n in like for o in n.origin))
        node = Node(op, tuple(inputs), outputs, attributes, like[0].name if like else "", origin)
        self._add(node, max((self._order[id(n)] for n in like if id(n) in self._order), default=next(self._position)))
        return outputs

    def replace(self, old: str, new: str) -> None:
        """Every reader of `old` reads `new` instead. An output stays what it is where `new` is of a graph around this
        one: a graph writes its own outputs. GraphError where `new` is of another type."""
        if old == new:
            return
        if self.type(old) != self.type(new):
            raise GraphError(f"a rewrite puts %{new}, {self.type(new)}, in the place of %{old}, {self.type(old)}")
        if new in self.types:
            self.outputs = [new if o == old else o for o in self.outputs]
        for node in self.users(old):
            self._swap(node, _rename(node, old, new))

    def remove(self, node: Node) -> None:
        """Take a node out; its outputs must be unused."""
        del self._nodes[id(node)]
        for out in node.outputs:
            if self._producers.get(out) is node:
                del self._producers[out]
        for name in _reads(node):
            self._users.get(name, {}).pop(id(node), None)

    def update(self, node: Node, **changes: Any) -> Node:
        """`node` with other inputs, attrs, outputs, ...; its outputs keep their types unless the caller sets them."""
        return self._swap(node, replace(node, **changes))

    def finish(self) -> Graph:
        """The rewritten graph."""
        nodes = list(self.nodes())
        deciders = sizes.deciders(nodes, self.types)
        live = self._live(deciders)
        nodes = self._sorted([n for n in nodes if id(n) in live], deciders)
        used = {name for n in nodes for name in (*_reads(n), *n.outputs)} | set(self.outputs) | set(self.graph.inputs)
        return replace(
            self.graph,
            nodes=tuple(nodes),
            outputs=tuple(self.outputs),
            types={k: v for k, v in self.types.items() if k in used},
            constants={k: v for k, v in self.constants.items() if k in used},
            output_names=self.graph.output_names or self.graph.outputs,
        )

    # -- inside ---------------------------------------------------------------------------------------------------

    def _add(self, node: Node, position: int) -> None:
        self._nodes[id(node)], self._order[id(node)] = node, position
        for out in node.outputs:
            if out:
                self._producers[out] = node
        for name in _reads(node):
            self._users.setdefault(name, {})[id(node)] = node

    def _swap(self, old: Node, new: Node) -> Node:
        position = self._order[id(old)]
        self.remove(old)
        self._add(new, position)
        return new

    def _name(self, hint: str) -> str:
        base = hint.split("~")[0]
        while True:
            name = f"{base}~{self.graph.name}.{next(self._fresh)}"
            if name not in self.types and name not in self.scope.types:
                return name

    def _before(self, node: Node, deciders: Mapping[str, Node]) -> list[Node]:
        """The nodes that write what `node` reads, or decide sizes that it needs."""
        out = [self._producers[i] for i in _reads(node) if i in self._producers]
        if deciders:
            out += [deciders[s] for s in sizes.needed(node, self.types) if deciders.get(s, node) is not node]
        return out

    def _live(self, deciders: Mapping[str, Node]) -> set[int]:
        live: set[int] = set()
        stack = [self._producers[o] for o in self.outputs if o in self._producers]
        while stack:
            node = stack.pop()
            if id(node) in live:
                continue
            live.add(id(node))
            stack.extend(self._before(node, deciders))
        return live

    def _sorted(self, nodes: Sequence[Node], deciders: Mapping[str, Node]) -> list[Node]:
        rank = {id(n): k for k, n in enumerate(nodes)}
        waiting = {id(n): {id(p) for p in self._before(n, deciders)} - {id(n)} for n in nodes}
        readers: dict[int, list[int]] = {}
        for key, needs in waiting.items():
            for need in needs:
                readers.setdefault(need, []).append(key)
        ready = [rank[k] for k, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        out: list[Node] = []
        while ready:
            node = nodes[heapq.heappop(ready)]
            out.append(node)
            for reader in readers.get(id(node), ()):
                waiting[reader].discard(id(node))
                if not waiting[reader]:
                    heapq.heappush(ready, rank[reader])
        if len(out) != len(nodes):
            raise GraphError(f"a rewrite made a cycle in graph {self.graph.name}")
        return out


def _reads(node: Node) -> tuple[str, ...]:
    return tuple(dict.fromkeys(i for i in (*node.inputs, *captures(node)) if i))


def _rename(node: Node, old: str, new: str) -> Node:
    attrs = {k: _rename_graph(v, old, new) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
    return replace(node, inputs=tuple(new if i == old else i for i in node.inputs), attrs=MappingProxyType(attrs))


def _rename_graph(graph: Graph, old: str, new: str) -> Graph:
    if old in graph.types:
        return graph
    return replace(
        graph,
        nodes=tuple(_rename(n, old, new) for n in graph.nodes),
        outputs=tuple(new if o == old else o for o in graph.outputs),
    )
