"""Builds a graph node by node: types are inferred, constants folded and shape arithmetic evaluated as nodes are added.

Folding is lazy: the result of an op over constants is a Constant whose `load` runs the reference when somebody asks, so
dequantising a large weight at import costs nothing. Integer values that are known as dims (the output of Shape, and
what is computed from it) are tracked as object arrays; a value known that way becomes a `dims` node without inputs, so
shape arithmetic leaves the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, DimExpr, sym
from bessemer.core.dtype import DType
from bessemer.core.errors import BessemerError, InvalidModel
from bessemer.core.interval import INF, Range, bounds, compare
from bessemer.ir import sizes
from bessemer.ir.fold import constant_from, fold
from bessemer.ir.graph import Attr, Constant, Graph, Node, TensorType, captures
from bessemer.ir.opdef import OPS, SYMBOL_RANGES, Fusion, InferContext, OpDef

CONTENT_LIMIT = 4096  # elements up to which the content of an integer tensor is tracked


class GraphBuilder:
    """Emits nodes into one graph. `parent` is the builder of the graph around a subgraph; its values may be used."""

    def __init__(
        self, name: str, ranges: Mapping[str, Range] | None = None, parent: GraphBuilder | None = None
    ) -> None:
        self.name, self.parent = name, parent
        self.ranges: dict[str, Range] = parent.ranges if parent else dict(ranges or {})
        self._names: Iterator[int] = parent._names if parent else itertools.count()
        self._taken: set[str] = parent._taken if parent else set()
        self.types: dict[str, TensorType] = {}
        self.sequences: dict[str, tuple[str, ...]] = parent.sequences if parent else {}
        self.constants: dict[str, Constant] = {}
        self._content: dict[str, np.ndarray] = {}
        self._inputs: list[str] = []
        self._nodes: list[Node] = []

    # -- values ---------------------------------------------------------------------------------------------------

    def input(self, name: str, type: TensorType) -> str:
        """A graph input."""
        name = self.unique(name)
        self.types[name] = type
        self._inputs.append(name)
        return name

    def constant(self, value: np.ndarray | Constant, dtype: DType | None = None, name: str = "") -> str:
        """A constant: an array (of `dtype`, for bf16 given as bits) or a lazy source."""
        if not isinstance(value, Constant):
            value = constant_from(np.asarray(value), dtype)
        name = self.unique(name or "const")
        self.types[name], self.constants[name] = value.type, value
        return name

    @property
    def nodes(self) -> Sequence[Node]:
        """What has been built so far."""
        return self._nodes

    def type(self, value: str) -> TensorType:
        """The type of a value of this graph or one around it."""
        scope: GraphBuilder | None = self
        while scope is not None:
            if value in scope.types:
                return scope.types[value]
            scope = scope.parent
        raise InvalidModel(f"value {value!r} is used before anything produces it", where=f"graph {self.name}")

    def constant_of(self, value: str) -> Constant | None:
        """The constant behind `value`, if it is one."""
        scope: GraphBuilder | None = self
        while scope is not None:
            if value in scope.types:
                return scope.constants.get(value)
            scope = scope.parent
        return None

    def value(self, value: str) -> np.ndarray | None:
        """The array of a constant (loaded; cached only while small), else None."""
        found = self.constant_of(value)
        if found is None:
            return None
        content = self._find_content(value)
        if content is not None and content.dtype != object:
            return content
        array = found.load()
        if array.size <= CONTENT_LIMIT:
            self._content[value] = array
        return array

    def content(self, value: str) -> np.ndarray | None:
        """What is known of a small value: its array, or an object array of Dims where it depends on input shapes."""
        content = self._find_content(value)
        if content is not None:
            return content
        found = self.constant_of(value)
        if found is not None and isinstance(found.type.numel, int) and found.type.numel <= CONTENT_LIMIT:
            return self.value(value)
        return None

    def dims(self, value: str) -> tuple[Dim, ...] | None:
        """A known integer vector (or scalar) as dims, else None."""
        content = self.content(value)
        if content is None:
            return None
        return tuple(d if isinstance(d, DimExpr) else int(d) for d in np.ravel(content))

    def fresh(self, hint: str = "u", upper: Dim | None = None) -> DimExpr:
        """A new data-dependent symbol, at most `upper` where that is known."""
        name = f"u{next(self._names)}_{hint}" if hint != "u" else f"u{next(self._names)}"
        self.ranges[name] = Range(0, INF if upper is None else bounds(upper, self.ranges)[1])
        return sym(name)

    def sequence(self, items: Sequence[str]) -> str:
        """A list of values that exists only while the graph is built: no node of the graph sees it."""
        name = self.unique("sequence")
        self.sequences[name] = tuple(items)
        return name

    @property
    def mark(self) -> int:
        """A position in the graph, for `rename`."""
        return len(self._nodes)

    def since(self, mark: int) -> Sequence[Node]:
        """The nodes emitted after `mark`."""
        return self._nodes[mark:]

    def rename(self, value: str, name: str, since: int) -> str:
        """Call `value` (made after the mark `since`, so no earlier node reads it) `name`, or the like if that is taken.

        Returns the name that the value has now.
        """
        if value == name or value not in self.types or value in self._inputs:
            return value
        name = self.unique(name)
        self.types[name] = self.types.pop(value)
        if value in self.constants:
            self.constants[name] = self.constants.pop(value)
        if value in self._content:
            self._content[name] = self._content.pop(value)
        for k in range(since, len(self._nodes)):
            self._nodes[k] = renamed(self._nodes[k], {value: name})
        return name

    def unique(self, hint: str) -> str:
        """A value name not used yet."""
        hint = hint or "v"
        while hint in self._taken:
            hint = f"{hint.split('~')[0]}~{next(self._names)}"
        self._taken.add(hint)
        return hint

    # -- nodes ----------------------------------------------------------------------------------------------------

    def emit(
        self,
        op: str,
        inputs: Sequence[str | None],
        attrs: Mapping[str, Attr] | None = None,
        *,
        names: Sequence[str] = (),
        origin: tuple[str, ...] = (),
    ) -> tuple[str, ...]:
        """Add a node and return the names of its outputs (`names` are hints). Folds where it can."""
        opdef = OPS.get(op)
        ins = tuple(i or "" for i in inputs)
        attributes = MappingProxyType(dict(attrs or {}))
        context = InferContext(
            tuple(self.type(i) if i else None for i in ins), attributes, self.ranges,
            tuple(self.content(i) if i else None for i in ins), self.fresh,
        )  # fmt: skip
        try:
            types = opdef.infer(context)
        except BessemerError:
            raise
        except (ValueError, IndexError, KeyError, TypeError) as error:
            shown = ", ".join(str(t) for t in context.types)
            raise InvalidModel(f"{op}({shown}): {error}", where=", ".join(origin) or None) from error
        _check_taken(opdef, context, origin)
        folded = self._fold(opdef, ins, attributes, types, names)
        if folded is not None:
            return folded
        outputs = tuple(
            self.unique(names[k] if k < len(names) and names[k] else f"{op}") for k in range(len(types))
        )
        for name, type_ in zip(outputs, types):
            self.types[name] = type_
        self._nodes.append(Node(op, ins, outputs, attributes, origin[0] if origin else "", origin))
        return outputs

    def dims_value(self, values: np.ndarray, dtype: DType = dt.i64, name: str = "") -> str:
        """A value holding known integers: a constant, or a `dims` node where they depend on input shapes."""
        flat = [v if isinstance(v, DimExpr) else int(v) for v in values.ravel()]
        if not any(isinstance(v, DimExpr) for v in flat):
            return self.constant(np.array(flat, dtype.numpy).reshape(values.shape), dtype, name)
        attrs: dict[str, Attr] = {"values": tuple(flat), "shape": values.shape, "dtype": dtype}
        (out,) = self.emit("dims", (), attrs, names=(name,))
        self._content[out] = values
        return out

    def finish(
        self, outputs: Sequence[str], metadata: Mapping[str, str] | None = None, output_names: Sequence[str] = ()
    ) -> Graph:
        """The graph, without what its outputs do not depend on. `output_names` are what the model calls the outputs."""
        needed, nodes = set(outputs), []
        deciders = sizes.deciders(self._nodes, self.types)
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.outputs):
                nodes.append(node)
                needed.update(node.inputs, captures(node))
                asked = sizes.needed(node, self.types) & deciders.keys() if deciders else ()
                needed.update(out for size in asked for out in deciders[size].outputs)
        needed.update(out for node in nodes for out in node.outputs)
        return Graph(
            self.name, tuple(self._inputs), tuple(outputs), tuple(reversed(nodes)),
            {k: t for k, t in self.types.items() if k in needed or k in self._inputs},
            {k: c for k, c in self.constants.items() if k in needed},
            self.ranges if self.parent else dict(self.ranges), dict(metadata or {}), tuple(output_names),
        )  # fmt: skip

    # -- folding --------------------------------------------------------------------------------------------------

    def _find_content(self, value: str) -> np.ndarray | None:
        scope: GraphBuilder | None = self
        while scope is not None:
            if value in scope._content:
                return scope._content[value]
            scope = scope.parent
        return None

    def _fold(
        self, op: OpDef, ins: tuple[str, ...], attrs: Mapping[str, Attr], types: Sequence[TensorType],
        names: Sequence[str],
    ) -> tuple[str, ...] | None:  # fmt: skip
        if op.random or op.fusion is Fusion.CONTROL or not ins or (op.explicit and types[0].rank > 1):
            return None
        present = [i for i in ins if i]
        constants = [self.constant_of(i) for i in present]
        static = all(isinstance(d, int) for t in types for d in t.shape)
        if static and all(c is not None for c in constants):
            return self._fold_constants(op, ins, attrs, types, names)
        if op.symbolic and types[0].dtype.kind in "iub" and _small(types[0]):
            contents = [self.content(i) if i else None for i in ins]
            if all(c is not None for i, c in zip(ins, contents) if i):
                return self._fold_symbolic(op, contents, attrs, types, names)
        return None

    def _fold_constants(
        self, op: OpDef, ins: tuple[str, ...], attrs: Mapping[str, Attr], types: Sequence[TensorType],
        names: Sequence[str],
    ) -> tuple[str, ...]:  # fmt: skip
        sources = tuple(self.constant_of(i) if i else None for i in ins)
        folded = fold(op, sources, attrs, types)
        return tuple(
            self.constant(c, name=names[k] if k < len(names) and names[k] else op.name) for k, c in enumerate(folded)
        )

    def _fold_symbolic(
        self, op: OpDef, contents: Sequence[np.ndarray | None], attrs: Mapping[str, Attr],
        types: Sequence[TensorType], names: Sequence[str],
    ) -> tuple[str, ...] | None:  # fmt: skip
        arrays = [None if c is None else c.astype(object) for c in contents]
        token = SYMBOL_RANGES.set(self.ranges)
        try:
            results = op.reference(arrays, attrs)
        except (BessemerError, TypeError, ValueError):
            return None  # depends on a comparison that the shapes do not decide: stays in the graph
        finally:
            SYMBOL_RANGES.reset(token)
        out = []
        for k, (t, r) in enumerate(zip(types, results)):
            array = np.asarray(r, dtype=object)
            if not all(isinstance(v, (int, np.integer, DimExpr)) for v in array.ravel()):
                return None
            out.append(self.dims_value(array, t.dtype, names[k] if k < len(names) else ""))
        return tuple(out)


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """`node` with values renamed, where its subgraphs capture them too."""

    def of(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(v, v) for v in values)

    if names.keys().isdisjoint((*node.inputs, *node.outputs, *captures(node))):
        return node
    attrs: dict[str, Attr] = {}
    for key, attr in node.attrs.items():
        if isinstance(attr, Graph):
            attr = replace(attr, nodes=tuple(renamed(n, names) for n in attr.nodes))
        attrs[key] = attr
    return replace(node, inputs=of(node.inputs), outputs=of(node.outputs), attrs=MappingProxyType(attrs))


def _check_taken(op: OpDef, ctx: InferContext, origin: tuple[str, ...]) -> None:
    """InvalidModel for sizes that the op takes to be equal and that never are."""
    for left, right in op.taken(ctx) if op.taken else ():
        if compare(left, right, ctx.ranges)[0] is False:
            shown = ", ".join(str(t) for t in ctx.types)
            raise InvalidModel(
                f"{op.name}({shown}): sizes {left} and {right} differ", where=", ".join(origin) or None,
                fix="give the operands of this node sizes that agree",
            )  # fmt: skip


def _small(t: TensorType) -> bool:
    return isinstance(t.numel, int) and t.numel <= CONTENT_LIMIT
