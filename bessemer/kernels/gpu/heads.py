"""Attention as kernels see it: sizes, layouts and the mask of a Problem."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Problem, Reason, other_op
from bessemer.kernels.gpu.shapes import element_types

MAX_HEAD = 256


@dataclass(frozen=True)
class Heads:
    """Sizes of one problem: queries s, keys t, head sizes d (of q and k) and dv; `repeat` heads of q share one of k.

    `inside`: the tensors are [batch, rows, heads, size], else [batch, heads, rows, size]."""

    batch: Dim
    heads: Dim
    s: Dim
    t: Dim
    d: int
    dv: int
    repeat: int
    inside: bool
    itemsize: int


def heads_of(problem: Problem) -> Heads | Reason:
    """The sizes of an attention problem, or why kernels do not take it."""
    other = other_op(problem, ("attention",))
    if other is not None:
        return other
    dtype = element_types(problem, 3)
    if isinstance(dtype, Reason):
        return dtype
    q, k, v = (o.type.shape for o in problem.operands[:3])
    inside = problem.attr("layout") == "BSHD"
    rows, heads = (1, 2) if inside else (2, 1)
    d, dv = q[3], v[3]
    if not isinstance(d, int) or not isinstance(dv, int) or max(d, dv) > MAX_HEAD:
        return Reason(f"takes heads of at most {MAX_HEAD} elements, not {d} and {dv}")
    repeat = 1 if q[heads] == k[heads] else _ratio(q[heads], k[heads])
    if repeat == 0 or k[heads] != v[heads] or k[rows] != v[rows] or q[0] != k[0] or q[0] != v[0]:
        return Reason(f"q, k and v disagree: {', '.join(str(o.type) for o in problem.operands[:3])}")
    mask = _mask_reason(problem, (q[0], q[heads], q[rows], k[rows]))
    if mask is not None:
        return mask
    return Heads(q[0], q[heads], q[rows], k[rows], d, dv, repeat, inside, dtype.itemsize)


def _ratio(many: Dim, few: Dim) -> int:
    """How many heads of q share one of k; 0 where that is no whole number."""
    return many // few if isinstance(many, int) and isinstance(few, int) and few and many % few == 0 else 0


def _mask_type(problem: Problem) -> TensorType | None:
    return problem.operands[3].type if problem.attr("has_mask") else None


def _mask_reason(problem: Problem, scores: tuple[Dim, ...]) -> Reason | None:
    mask = _mask_type(problem)
    if mask is None:
        return None
    if not (mask.dtype.is_float or mask.dtype == dt.bool_) or mask.dtype == dt.f64:
        return Reason(f"adds f16, bf16 or f32 masks and keeps by bool ones, not {mask}")
    if mask.rank > 4 or any(m != 1 and m != x for m, x in zip(reversed(mask.shape), reversed(scores))):
        return Reason(f"mask {mask} does not broadcast to the scores [{', '.join(str(x) for x in scores)}]")
    return None


def mask_of(problem: Problem) -> tuple[str, tuple[Dim, Dim, Dim], int]:
    """How the mask acts, its strides along batch, head and query, and its stride along the keys."""
    mask = _mask_type(problem)
    if mask is None:
        return "none", (0, 0, 0), 0
    shape = (1,) * (4 - mask.rank) + mask.shape
    strides: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        strides.insert(0, 0 if d == 1 else step)
        step = step * d
    last = strides[3]
    assert isinstance(last, int)
    return "keep" if mask.dtype == dt.bool_ else "add", (strides[0], strides[1], strides[2]), last
