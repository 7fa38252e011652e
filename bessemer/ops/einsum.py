"""Einsum, as matrix products, sums and transposes; and op `diagonal`, for a label that an operand has twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import same_dim
from bessemer.ops.matmul import with_equal_batches


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, first, second = ctx.type(0), ctx.attr("first"), ctx.attr("second")
    if not 0 <= first < second < x.rank:
        raise ValueError(f"axes {first} and {second} are not two ascending axes of {x}")
    size = same_dim(x.shape[first], x.shape[second], ctx.ranges)
    kept = (size if k == first else d for k, d in enumerate(x.shape) if k != second)
    return (TensorType(x.dtype, tuple(kept)),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    return (np.ascontiguousarray(np.moveaxis(np.diagonal(x, 0, attrs["first"], attrs["second"]), -1, attrs["first"])),)


def _compute(ctx: InferContext) -> ex.ComputeDef:
    (out,), first, second = _infer(ctx), ctx.attr("first"), ctx.attr("second")
    axes = list(ex.out_axes(out.rank))
    axes.insert(second, axes[first])
    return ex.ComputeDef(out.shape, out.dtype, ex.load(0, tuple(axes), out.dtype))


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((3, 4, 3, 5)).astype(np.float32)
    return (Sample((x,), {"first": 0, "second": 2}), Sample((x[0, 0, :, :3],), {"first": 0, "second": 1}))


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield ctx.type(0).shape[ctx.attr("first")], ctx.type(0).shape[ctx.attr("second")]


register(OpDef("diagonal", _infer, _reference, Fusion.INJECTIVE, compute=_compute, samples=_samples, taken=_taken))


@dataclass(frozen=True)
class _Term:
    """A value whose axes are labelled."""

    value: str
    labels: str


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """(labels of each operand, labels of the result); an ellipsis becomes capital or private-use letters.

    ValueError for an equation that does not fit operands of these ranks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"equation {equation!r} has {len(terms)} operands, the node {len(ranks)}")
    widths = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks)]
    for term, width, rank in zip(terms, widths, ranks):
        if width < 0 or (width and "..." not in term):
            raise ValueError(f"term {term!r} of {equation!r} does not fit an operand of rank {rank}")
    most = max((w for term, w in zip(terms, widths) if "..." in term), default=0)
    dots = "".join(chr(0xE000 + k) for k in range(most))
    operands = [term.replace("...", dots[most - width :]) for term, width in zip(terms, widths)]
    if arrow:
        result = right.replace("...", dots)
    else:
        seen = "".join(operands)
        result = dots + "".join(sorted(c for c in set(seen) if c.isalpha() and c not in dots and seen.count(c) == 1))
    unknown = set(result) - set("".join(operands))
    if unknown or len(set(result)) != len(result):
        raise ValueError(f"the result of {equation!r} repeats a label, or has one that no operand has")
    return operands, result


@onnx_op("Einsum", since=(12, 28))
def _import(ctx: ImportContext) -> Values:
    names = [ctx.input(k) for k in range(len(ctx.inputs))]
    try:
        labels, result = parse_equation(ctx.attr("equation"), [ctx.rank(n) for n in names])
    except ValueError as error:
        ctx.unsupported(str(error))
    terms = [_take_diagonals(ctx, _Term(n, ls)) for n, ls in zip(names, labels)]
    while len(terms) > 1:
        later = set(result).union(*(t.labels for t in terms[2:]))
        terms[:2] = [_contract(ctx, terms[0], terms[1], later)]
    return _arrange(ctx, _sum_out(ctx, terms[0], set(result)), result).value


def _take_diagonals(ctx: ImportContext, t: _Term) -> _Term:
    for second in range(len(t.labels) - 1, 0, -1):
        first = t.labels.index(t.labels[second])
        if first < second:
            value = ctx.emit("diagonal", t.value, first=first, second=second)
            t = _Term(value, t.labels[:second] + t.labels[second + 1 :])
    return t


def _sum_out(ctx: ImportContext, t: _Term, kept: set[str]) -> _Term:
    axes = tuple(k for k, label in enumerate(t.labels) if label not in kept)
    if not axes:
        return t
    value = ctx.emit("reduce", t.value, kind="sum", axes=axes, keepdims=False)
    return _Term(value, "".join(label for label in t.labels if label in kept))


def _arrange(ctx: ImportContext, t: _Term, order: str) -> _Term:
    if t.labels == order:
        return t
    return _Term(ctx.emit("transpose", t.value, perm=tuple(t.labels.index(c) for c in order)), order)


def _contract(ctx: ImportContext, a: _Term, b: _Term, later: set[str]) -> _Term:
    """The product of two terms, summed over labels that nothing reads later."""
    a = _sum_out(ctx, a, later | set(b.labels))
    b = _sum_out(ctx, b, later | set(a.labels))
    shared = [c for c in a.labels if c in b.labels]
    summed = "".join(c for c in shared if c not in later)
    batch = "".join(c for c in shared if c in later)
    rows = "".join(c for c in a.labels if c not in shared)
    columns = "".join(c for c in b.labels if c not in shared)
    if not summed:
        return _multiply(ctx, a, b, batch + rows + columns)
    left, transpose_a = _matrix(ctx, a, batch, rows, summed)
    right, transpose_b = _matrix(ctx, b, batch, summed, columns)
    out = ctx.emit("matmul", *with_equal_batches(ctx, left, right), transpose_a=transpose_a, transpose_b=transpose_b)
    lead = ctx.shape(out)[:-2]
    sizes = {c: d for t in (a, b) for c, d in zip(t.labels, ctx.shape(t.value))}
    shape = (*lead, *(sizes[c] for c in rows), *(sizes[c] for c in columns))
    return _Term(_reshaped(ctx, out, shape), batch + rows + columns)


def _matrix(ctx: ImportContext, t: _Term, batch: str, rows: str, columns: str) -> tuple[str, bool]:
    """`t` as [*batch, rows, columns], or transposed (True) where its axes already lie that way."""
    transposed = t.labels == batch + columns + rows and t.labels != batch + rows + columns
    first, second = (columns, rows) if transposed else (rows, columns)
    t = _arrange(ctx, t, batch + first + second)
    shape, n = ctx.shape(t.value), len(batch)
    cut = n + len(first)
    return _reshaped(ctx, t.value, (*shape[:n], product(shape[n:cut]), product(shape[cut:]))), transposed


def _reshaped(ctx: ImportContext, value: str, shape: tuple[Any, ...]) -> str:
    return value if ctx.shape(value) == shape else ctx.emit("reshape", value, shape=shape)


def _multiply(ctx: ImportContext, a: _Term, b: _Term, labels: str) -> _Term:
    """The elementwise product over all labels, each operand broadcast along those it lacks."""
    sides = []
    for t in (a, b):
        t = _arrange(ctx, t, "".join(c for c in labels if c in t.labels))
        sizes = dict(zip(t.labels, ctx.shape(t.value)))
        sides.append(_reshaped(ctx, t.value, tuple(sizes.get(c, 1) for c in labels)))
    return _Term(ctx.emit("mul", *sides), labels)
