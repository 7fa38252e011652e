"""Control flow: if, loop and scan hold nested graphs, which read values of the graphs around them.

    if(cond)                        then_branch, else_branch: graphs without inputs
    loop(trip, cond, *carried)      body(step, cond, *carried) -> (cond, *carried, *collected); trip, cond may be absent
    scan(*states, *sequences)       body(*states, *slices) -> (*states, *collected)

A size that differs between branches or iterations is a new data-dependent symbol outside; inside a body, a carried
value's changing sizes are symbols that are bound anew in each iteration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, maximum, symbols
from bessemer.core.errors import GraphError, InputError, InvalidModel
from bessemer.core.interval import compare
from bessemer.ir.graph import Attr, Graph, TensorType
from bessemer.ir.importer import ImportContext, Refusal, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register

WIDENINGS = 8  # imports of a body until the types of its carried values are stable


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    raise GraphError("an op with nested graphs is run by the interpreter, not by a reference")


def _graph(ctx: InferContext, name: str) -> Graph:
    graph = ctx.attr(name)
    if not isinstance(graph, Graph):
        raise ValueError(f"the attribute {name} is not a graph")
    return graph


def _fresh(ctx: InferContext, hint: str, upper: Dim | None = None) -> Dim:
    if ctx.fresh is None:
        raise ValueError("a data-dependent size is not allowed here")
    return ctx.fresh(hint, upper)


def _outside(ctx: InferContext, d: Dim, hint: str) -> Dim:
    """A size inside a nested graph as seen outside: a data-dependent one may be known inside only."""
    return _fresh(ctx, hint, d) if any(s.startswith("u") for s in symbols(d)) else d


def _scalar(t: TensorType | None, dtype: dt.DType, what: str) -> None:
    if t is not None and (t.dtype != dtype or t.numel != 1):
        raise ValueError(f"{what} must be one {dtype}, not {t}")


# -- if -----------------------------------------------------------------------------------------------------------


def _if_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    _scalar(ctx.type(0), dt.bool_, "the condition")
    then, other = _graph(ctx, "then_branch"), _graph(ctx, "else_branch")
    if len(then.outputs) != len(other.outputs):
        raise ValueError(f"the branches have {len(then.outputs)} and {len(other.outputs)} outputs")
    out = []
    for a, b in zip((then.types[o] for o in then.outputs), (other.types[o] for o in other.outputs)):
        if a.dtype != b.dtype or a.rank != b.rank:
            raise ValueError(f"the branches give {a} and {b}: element type and rank must agree")
        dims = [
            _outside(ctx, x, "if") if x == y else _fresh(ctx, "if", maximum(x, y)) for x, y in zip(a.shape, b.shape)
        ]
        out.append(TensorType(a.dtype, tuple(dims)))
    return tuple(out)


register(OpDef("if", _if_infer, _reference, Fusion.CONTROL))


@onnx_op("If", since=(1, 11, 13, 16, 19, 21, 23, 24, 25))
def _if(ctx: ImportContext) -> Values:
    cond = ctx.input(0)
    known = ctx.value(cond)
    if known is not None:
        return ctx.inline_subgraph(ctx.attr("then_branch" if bool(known.reshape(-1)[0]) else "else_branch"))
    branches: dict[str, Graph] = {}
    failed: dict[str, InvalidModel] = {}
    for name in ("then_branch", "else_branch"):
        try:
            branches[name] = ctx.subgraph(name, ())
        except InvalidModel as error:
            failed[name] = error
    if failed:
        return _only_branch(ctx, cond, failed)
    for a, b in zip(*([g.types[o] for o in g.outputs] for g in branches.values())):
        if a.rank != b.rank and _squeezes_or_keeps(ctx.attr("then_branch"), ctx.attr("else_branch")):
            (squeezed,) = ctx.inline_subgraph(ctx.attr("then_branch"))
            return ctx.emit("require", squeezed, cond, reason=f"{ctx.name} squeezes a dimension that is not 1 here")
        if a.dtype != b.dtype or a.rank != b.rank:
            ctx.unsupported(
                f"the branches give {a} and {b}, of different type or rank (where a dynamic dimension decides the "
                "condition, a fixed size or a narrower profile leaves one branch)"
            )
    return ctx.emit_all("if", cond, **branches)


def _only_branch(ctx: ImportContext, cond: str, failed: Mapping[str, InvalidModel]) -> Values:
    """The branch that the sizes of the inputs allow; taking the other is an error of the run.

    With fixed sizes exporters leave branches behind that fit other sizes only (another sampling rate).
    """
    if len(failed) == 2:
        raise failed["then_branch"]
    ((name, error),) = failed.items()
    first, *rest = ctx.inline_subgraph(ctx.attr("else_branch" if name == "then_branch" else "then_branch"))
    holds = ctx.emit("not", cond) if name == "then_branch" else cond
    reason = f"{ctx.name} takes its {name}, which does not fit the sizes of the inputs: {error.what}"
    return (ctx.emit("require", first, holds, reason=reason), *rest)


def _squeezes_or_keeps(then: Any, other: Any) -> bool:
    """Whether two branches are `Squeeze(x)` and `x`: what exporters write for a squeeze of a dimension that may be 1.

    What follows is made for the squeezed rank, so the other branch can only lead to an error.
    """
    kinds = [[n.op_type for n in graph.node if n.op_type != "Constant"] for graph in (then, other)]
    return kinds == [["Squeeze"], ["Identity"]]


def _require_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    _scalar(ctx.type(1), dt.bool_, "the condition")
    return (ctx.type(0),)


def _require_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    x, holds = inputs
    assert x is not None and holds is not None
    if not holds.all():
        raise InputError(str(attrs["reason"]), fix="give other inputs, or build for other shapes")
    return (x,)


def _require_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.standard_normal((2, 3)).astype(np.float32), np.array(True)), {"reason": "never"}),)


register(OpDef("require", _require_infer, _require_reference, Fusion.HOST, samples=_require_samples))


# -- loop ---------------------------------------------------------------------------------------------------------


def _loop_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    _scalar(ctx.types[0], dt.i64, "the trip count")
    _scalar(ctx.types[1], dt.bool_, "the condition")
    body, n_carried = _graph(ctx, "body"), len(ctx.types) - 2
    if len(body.inputs) != n_carried + 2 or len(body.outputs) < n_carried + 1:
        raise ValueError(f"its body takes {len(body.inputs)} and gives {len(body.outputs)}, {n_carried} are carried")
    carried = _carried_types(ctx, body, 2, 1, n_carried, "loop")
    trip = _trip_count(ctx, body)
    collected = []
    for name in body.outputs[1 + n_carried :]:
        t = body.types[name]
        collected.append(TensorType(t.dtype, (trip, *(_outside(ctx, d, "loop") for d in t.shape))))
    return (*carried, *collected)


def _carried_types(
    ctx: InferContext, body: Graph, skip_in: int, skip_out: int, count: int, hint: str
) -> list[TensorType]:
    """Types of carried values after the last iteration. A size that an iteration may change is unknown outside."""
    out = []
    for k in range(count):
        first, before = ctx.type(skip_in + k), body.types[body.inputs[skip_in + k]]
        after = body.types[body.outputs[skip_out + k]]
        if not first.dtype == before.dtype == after.dtype or not first.rank == before.rank == after.rank:
            raise ValueError(f"the carried value {k} is {first}, then {after}: element type and rank must stay")
        dims = [a if a == b == c else _fresh(ctx, hint) for a, b, c in zip(first.shape, before.shape, after.shape)]
        out.append(TensorType(first.dtype, tuple(dims)))
    return out


def _trip_count(ctx: InferContext, body: Graph) -> Dim:
    """How often the body runs: exact where only the trip count ends the loop and it is known."""
    trip = ctx.value(0)
    known = None if trip is None else trip.reshape(-1)[0]
    limit: Dim | None = None if known is None else known if not isinstance(known, np.integer) else int(known)
    if limit is not None and compare(limit, 0, ctx.ranges)[1] is not False:
        limit = maximum(limit, 0)
    if limit is not None and _goes_on(ctx, body):
        return limit
    return _fresh(ctx, "loop", limit)


def _goes_on(ctx: InferContext, body: Graph) -> bool:
    """Whether the condition is true before and after every iteration."""
    first = ctx.value(1)
    starts = ctx.types[1] is None or (first is not None and bool(first.reshape(-1)[0]))
    out = body.outputs[0]
    constant = body.constants.get(out)
    return starts and (out == body.inputs[1] or (constant is not None and bool(constant.load().reshape(-1)[0])))


register(OpDef("loop", _loop_infer, _reference, Fusion.CONTROL))


@onnx_op("Loop", since=(1, 11, 13, 16, 19, 21, 23, 24, 25))
def _loop(ctx: ImportContext) -> Values:
    trip, cond = (ctx.inputs[k] if ctx.has(k) else None for k in (0, 1))
    carried = [ctx.input(k) for k in range(2, len(ctx.inputs))]
    proto = ctx.attr("body")
    if len(proto.input) != len(carried) + 2 or len(proto.output) <= len(carried):
        ctx.unsupported(f"its body takes {len(proto.input)} and gives {len(proto.output)} values")
    # The step and the condition are scalars; some exporters declare them as vectors of one element.
    ranks = [min(len(i.type.tensor_type.shape.dim), 1) for i in proto.input[:2]]
    fixed = [TensorType(t, (1,) * rank) for t, rank in zip((dt.i64, dt.bool_), ranks)]
    body = _stable_body(ctx, fixed, [ctx.type(v) for v in carried], [], 1)
    return ctx.emit_all("loop", trip, cond, *carried, body=body)


def _stable_body(
    ctx: ImportContext, before: Sequence[TensorType], carried: Sequence[TensorType], after: Sequence[TensorType],
    skip_out: int,
) -> Graph:  # fmt: skip
    """The body, imported for types of the carried values that hold in every iteration."""
    types = list(carried)
    for _ in range(WIDENINGS):
        body = ctx.subgraph("body", [*before, *types, *after])
        results = [body.types[o] for o in body.outputs[skip_out : skip_out + len(types)]]
        wider = [_widened(ctx, k, a, b) for k, (a, b) in enumerate(zip(types, results))]
        if wider == types:
            return body
        types = wider
    raise Refusal("the shapes of its carried values change in every iteration in a way that is not supported")


def _widened(ctx: ImportContext, k: int, before: TensorType, after: TensorType) -> TensorType:
    if before.dtype != after.dtype or before.rank != after.rank:
        ctx.unsupported(f"the carried value {k} is {before}, then {after}; element type and rank must stay")
    dims = [
        a if a == b or _is_variable(a) else ctx.builder.fresh("loop") for a, b in zip(before.shape, after.shape)
    ]
    return TensorType(before.dtype, tuple(dims))


def _is_variable(d: Dim) -> bool:
    names = symbols(d)
    return len(names) == 1 and str(d) in names and str(d).startswith("u") and str(d).endswith("_loop")


# -- scan ---------------------------------------------------------------------------------------------------------


def _scan_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    body, axes = _graph(ctx, "body"), tuple(ctx.attr("input_axes"))
    n_states = len(ctx.types) - len(axes)
    out_axes = tuple(ctx.attr("output_axes"))
    if len(body.inputs) != len(ctx.types) or len(body.outputs) != n_states + len(out_axes):
        raise ValueError(f"the body takes {len(body.inputs)} and gives {len(body.outputs)} for {len(ctx.types)} inputs")
    lengths = [ctx.type(n_states + k).shape[axis] for k, axis in enumerate(axes)]
    if any(compare(lengths[0], n, ctx.ranges)[0] is False for n in lengths):
        raise ValueError(f"the sequences have the lengths {', '.join(map(str, lengths))}")
    states = _carried_types(ctx, body, 0, 0, n_states, "scan")
    collected = []
    for name, axis in zip(body.outputs[n_states:], out_axes):
        t = body.types[name]
        dims = [_outside(ctx, d, "scan") for d in t.shape]
        collected.append(TensorType(t.dtype, (*dims[:axis], lengths[0], *dims[axis:])))
    return (*states, *collected)


register(OpDef("scan", _scan_infer, _reference, Fusion.CONTROL))


@onnx_op("Scan", since=(9, 11, 16, 19, 21, 23, 24, 25))
def _scan(ctx: ImportContext) -> Values:
    values = [ctx.input(k) for k in range(len(ctx.inputs))]
    proto, count = ctx.attr("body"), ctx.attr("num_scan_inputs")
    n_states = len(values) - count
    n_collected = len(proto.output) - n_states
    if not 0 < count <= len(values) or n_collected < 0 or len(proto.input) != len(values):
        ctx.unsupported(f"its body takes {len(proto.input)} and gives {len(proto.output)} values")
    states, sequences = values[:n_states], values[n_states:]
    axes = _per_value(ctx, "scan_input_axes", count)
    axes = tuple(ctx.axis(a, ctx.rank(v)) for a, v in zip(axes, sequences))
    slices = [
        TensorType(ctx.dtype(v), (*ctx.shape(v)[:axis], *ctx.shape(v)[axis + 1 :])) for v, axis in zip(sequences, axes)
    ]
    body = _stable_body(ctx, [], [ctx.type(v) for v in states], slices, 0)
    ranks = [body.types[o].rank + 1 for o in body.outputs[n_states:]]
    out_axes = _per_value(ctx, "scan_output_axes", n_collected)
    return ctx.emit_all(
        "scan", *values, body=body,
        input_axes=axes,
        input_reversed=tuple(bool(d) for d in _per_value(ctx, "scan_input_directions", count)),
        output_axes=tuple(ctx.axis(a, rank) for a, rank in zip(out_axes, ranks)),
        output_reversed=tuple(bool(d) for d in _per_value(ctx, "scan_output_directions", n_collected)),
    )  # fmt: skip


def _per_value(ctx: ImportContext, name: str, count: int) -> tuple[int, ...]:
    values = tuple(ctx.attr(name, (0,) * count))
    if len(values) != count:
        ctx.unsupported(f"{name} has {len(values)} entries, not {count}")
    return values
