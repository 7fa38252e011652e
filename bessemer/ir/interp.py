"""The interpreter: runs a graph op by op through the numpy references. It is the oracle of every kernel and pass.

    outputs = run(graph, {"x": array})

Arrays are stored ones (bf16 as uint16 bits). Every value is held against its type: a reference whose result has another
dtype or shape than its op inferred is a GraphError, never a wrong number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from bessemer.core import dim
from bessemer.core.dim import DimExpr
from bessemer.core.errors import BessemerError, GraphError, InputError
from bessemer.core.interval import Range
from bessemer.ir.fold import evaluate
from bessemer.ir.graph import Attr, Graph, Node, TensorType, captures
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.text import print_node

Arrays = Mapping[str, np.ndarray]
Watch = Callable[[Node, Sequence[np.ndarray]], None]


def run(
    graph: Graph, inputs: Arrays, *, keep: MutableMapping[str, np.ndarray] | None = None,
    symbols: Mapping[str, int] | None = None, watch: Watch | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Run `graph`; outputs by the model's names. `keep` receives every value of the outermost graph by its IR name.

    `symbols` are values of dims that the inputs' shapes do not tell. `watch` is told the results of every node, nested
    graphs' too; for it both branches of an If are run, and one that fails on these inputs gives way to the other.

    InputError for an input that is missing, unknown, or of another dtype or shape than the graph's.
    """
    frame = _Frame(graph, symbols=dict(symbols or {}), watch=watch)
    _bind_inputs(graph, inputs, frame)
    results = _run(frame, {} if keep is not None else _last_reads(graph))
    if keep is not None:
        keep.update(frame.values)
    names = graph.output_names or graph.outputs
    return dict(zip(names, results, strict=True))


@dataclass
class _Frame:
    """One graph being run: values so far, and the symbols bound so far. Frames of nested graphs see the outer ones."""

    graph: Graph
    symbols: dict[str, int]
    outer: _Frame | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    watch: Watch | None = None

    def value(self, name: str) -> np.ndarray:
        frame: _Frame | None = self
        while frame is not None:
            if name in frame.values:
                return frame.values[name]
            if name in frame.graph.constants:
                array = frame.graph.constants[name].load()
                frame.values[name] = array
                return array
            frame = frame.outer
        raise GraphError(f"value {name!r} is read before it is written", where=f"graph {self.graph.name}")

    def type(self, name: str) -> TensorType:
        frame: _Frame | None = self
        while frame is not None:
            if name in frame.graph.types:
                return frame.graph.types[name]
            frame = frame.outer
        raise GraphError(f"value {name!r} has no type", where=f"graph {self.graph.name}")


def _last_reads(graph: Graph) -> dict[int, list[str]]:
    """The values that no node after a node reads, by the node's place."""
    last = {name: k for k, node in enumerate(graph.nodes) for name in (*node.inputs, *node.outputs, *captures(node))}
    out: dict[int, list[str]] = {}
    for name, k in last.items():
        if name not in graph.outputs:
            out.setdefault(k, []).append(name)
    return out


def _run(frame: _Frame, dropped: Mapping[int, Sequence[str]] = MappingProxyType({})) -> list[np.ndarray]:
    """The outputs; after the node of place k the values dropped[k] are forgotten."""
    for k, node in enumerate(frame.graph.nodes):
        try:
            results = _node(frame, node)
        except BessemerError:
            raise
        except Exception as error:
            shown = ", ".join(f"{a.dtype}{list(a.shape)}" for a in (frame.value(i) for i in node.inputs if i))
            raise GraphError(
                f"the reference of {node.op} failed on ({shown}): {type(error).__name__}: {error}",
                where=print_node(node, frame.graph.types),
            ) from error
        for name, array in zip(node.outputs, results, strict=True):
            if name:
                _check(frame, node, name, array)
                frame.values[name] = array
        if frame.watch is not None:
            frame.watch(node, results)
        for name in dropped.get(k, ()):
            frame.values.pop(name, None)
    return [frame.value(o) for o in frame.graph.outputs]


def _node(frame: _Frame, node: Node) -> Sequence[np.ndarray]:
    op = OPS.get(node.op)
    if op.fusion is Fusion.CONTROL:
        return _CONTROL[node.op](frame, node)
    arrays = [frame.value(i) if i else None for i in node.inputs]
    types = [frame.type(i) if i else None for i in node.inputs]
    attrs = {key: _resolved(value, frame.symbols) for key, value in node.attrs.items()}
    return evaluate(op, arrays, types, attrs, [frame.graph.types[o] for o in node.outputs])


def _resolved(value: Attr, symbols: Mapping[str, int]) -> Attr:
    """An attribute with its symbolic dims replaced by their values."""
    if isinstance(value, DimExpr):
        return dim.evaluate(value, symbols)
    return tuple(_resolved(v, symbols) for v in value) if isinstance(value, tuple) else value


# -- shapes -------------------------------------------------------------------------------------------------------


def _bind_inputs(graph: Graph, inputs: Arrays, frame: _Frame) -> None:
    unknown = [name for name in inputs if name not in graph.inputs]
    missing = [name for name in graph.inputs if name not in inputs]
    if unknown or missing:
        parts = [f"no array for {', '.join(missing)}"] if missing else []
        parts += [f"no input called {', '.join(unknown)}"] if unknown else []
        raise InputError("; ".join(parts), fix=f"the inputs are {', '.join(graph.inputs) or 'none'}")
    for name in graph.inputs:  # all of them first: a dimension may be a sum of those of inputs behind it
        _bind_symbols(graph.types[name], np.shape(inputs[name]), frame.symbols)
    for name in graph.inputs:
        array, type_ = np.asarray(inputs[name]), graph.types[name]
        if array.dtype != type_.dtype.numpy:
            raise InputError(f"input {name!r} is {array.dtype}, the graph takes {type_.dtype}")
        problem = _mismatch(type_, array.shape, frame.symbols)
        if problem:
            raise InputError(f"input {name!r}: {problem}")
        frame.values[name] = array
    for symbol, value in frame.symbols.items():
        r = graph.ranges.get(symbol, Range())
        if not r.lo <= value <= r.hi or value % r.multiple:
            step = f" in steps of {r.multiple}" if r.multiple > 1 else ""
            raise InputError(f"dimension {symbol} is {value}, and the graph takes {r.lo} to {r.hi}{step}")


def _mismatch(type_: TensorType, shape: tuple[int, ...], symbols: dict[str, int]) -> str:
    """How `shape` differs from a type, or ""; symbols that stand alone in a dimension are bound where they are new."""
    if len(shape) != type_.rank:
        return f"the shape {list(shape)} has not the rank of {type_}"
    _bind_symbols(type_, shape, symbols)
    for axis, (size, d) in enumerate(zip(shape, type_.shape)):
        expected = dim.evaluate(d, symbols)
        if size != expected:
            shown = f"{d} = {expected}" if isinstance(d, DimExpr) else str(d)
            return f"dimension {axis} of shape {list(shape)} is {size}, {type_} says {shown}"
    return ""


def _bind_symbols(type_: TensorType, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    """Give symbols that stand alone in a dimension, and have no value yet, that of the dimension."""
    for size, d in zip(shape, type_.shape):
        name = _symbol(d)
        if name is not None:
            symbols.setdefault(name, size)


def _symbol(d: dim.Dim) -> str | None:
    names = dim.symbols(d)
    (name,) = names if len(names) == 1 else (None,)
    return name if name is not None and d == dim.sym(name) else None


def _check(frame: _Frame, node: Node, name: str, array: np.ndarray) -> None:
    type_, before = frame.graph.types[name], set(frame.symbols)
    problem = _mismatch(type_, array.shape, frame.symbols)
    if array.dtype != type_.dtype.numpy:
        problem = f"dtype {array.dtype} is not {type_.dtype}"
    for symbol in frame.symbols.keys() - before:
        bound = frame.graph.ranges.get(symbol, Range()).hi
        if frame.symbols[symbol] > bound:
            problem = f"{symbol} is {frame.symbols[symbol]}, above its bound {bound}"
    if problem:
        raise GraphError(f"output {name!r} of {node.op}: {problem}", where=print_node(node, frame.graph.types))


# -- control flow -------------------------------------------------------------------------------------------------


def _body(frame: _Frame, graph: Attr, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a nested graph. Its own symbols may have other values each time it runs, so they are bound anew."""
    assert isinstance(graph, Graph)
    inner = _Frame(graph, dict(frame.symbols), frame, watch=frame.watch)
    for name, array in zip(graph.inputs, inputs, strict=True):
        problem = _mismatch(graph.types[name], array.shape, inner.symbols)
        if problem:
            raise GraphError(f"input {name!r} of graph {graph.name}: {problem}")
        inner.values[name] = array
    return _run(inner)


def _if(frame: _Frame, node: Node) -> Sequence[np.ndarray]:
    taken = bool(frame.value(node.inputs[0]).reshape(-1)[0])
    branches = ("then_branch", "else_branch") if taken else ("else_branch", "then_branch")
    if frame.watch is None:
        return _body(frame, node.attrs[branches[0]], ())
    results, failures = [], []
    for branch in branches:
        try:
            results.append(_body(frame, node.attrs[branch], ()))
        except BessemerError as error:
            failures.append(error)
    if not results:
        raise failures[0]
    return results[0]


def _loop(frame: _Frame, node: Node) -> Sequence[np.ndarray]:
    trip, cond, *carried_names = node.inputs
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    limit = int(frame.value(trip).reshape(-1)[0]) if trip else None
    going = bool(frame.value(cond).reshape(-1)[0]) if cond else True
    carried = [frame.value(i) for i in carried_names]
    collected: list[list[np.ndarray]] = [[] for _ in node.outputs[len(carried) :]]
    step = 0
    while going and (limit is None or step < limit):
        keep_going, *rest = _body(frame, body, [_counter(body, 0, step), _counter(body, 1, going), *carried])
        going = bool(keep_going.reshape(-1)[0])
        carried = rest[: len(carried)]
        for kept, array in zip(collected, rest[len(carried) :], strict=True):
            kept.append(array)
        step += 1
    scans = [_stacked(frame, name, kept, 0) for name, kept in zip(node.outputs[len(carried) :], collected)]
    return [*carried, *scans]


def _counter(body: Graph, k: int, value: int | bool) -> np.ndarray:
    """The step or the condition, of the rank (0 or 1) that the body takes it with."""
    type_ = body.types[body.inputs[k]]
    return np.full((1,) * type_.rank, value, type_.dtype.numpy)


def _scan(frame: _Frame, node: Node) -> Sequence[np.ndarray]:
    in_axes, in_reversed, out_axes, out_reversed = (
        _ints(node, key) for key in ("input_axes", "input_reversed", "output_axes", "output_reversed")
    )
    arrays = [frame.value(i) for i in node.inputs]
    n_states = len(arrays) - len(in_axes)
    states, sequences = arrays[:n_states], arrays[n_states:]
    length = sequences[0].shape[in_axes[0]]
    collected: list[list[np.ndarray]] = [[] for _ in out_axes]
    for step in range(length):
        slices = [
            np.asarray(np.take(a, length - 1 - step if back else step, axis))
            for a, axis, back in zip(sequences, in_axes, in_reversed)
        ]
        results = _body(frame, node.attrs["body"], [*states, *slices])
        states = results[:n_states]
        for kept, array in zip(collected, results[n_states:], strict=True):
            kept.append(array)
    names = node.outputs[n_states:]
    ordered = [kept[::-1] if back else kept for kept, back in zip(collected, out_reversed)]
    scans = [_stacked(frame, name, kept, axis) for name, kept, axis in zip(names, ordered, out_axes)]
    return [*states, *scans]


def _ints(node: Node, key: str) -> tuple[int, ...]:
    values = node.attrs[key]
    assert isinstance(values, tuple)
    return tuple(int(v) for v in values)  # type: ignore[arg-type]


def _stacked(frame: _Frame, name: str, arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """What each iteration gave, along `axis`; after none, an empty array (unknown sizes are 0)."""
    if arrays:
        if len({a.shape for a in arrays}) > 1:
            raise GraphError(f"iterations give {name!r} different shapes: {sorted({a.shape for a in arrays})}")
        return np.stack(arrays, axis)
    type_ = frame.graph.types[name]
    known = [0 if dim.symbols(d) - frame.symbols.keys() else dim.evaluate(d, frame.symbols) for d in type_.shape]
    return np.zeros([0 if k == axis else size for k, size in enumerate(known)], type_.dtype.numpy)


_CONTROL: Mapping[str, Callable[[_Frame, Node], Sequence[np.ndarray]]] = {"if": _if, "loop": _loop, "scan": _scan}
