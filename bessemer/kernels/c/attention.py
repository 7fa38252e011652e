"""Scaled dot-product attention: the scores of a few queries at a time, with all keys of a head in cache."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import (
    WORKSPACE,
    Config,
    Int,
    KernelCode,
    Launch,
    Limits,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
)
from bessemer.kernels.c import cost, scalar, simd
from bessemer.kernels.c.emit import row_epilogue
from bessemer.kernels.c.reduce import over_buffer, weights

ROWS = 6  # of attention.h
VECS = {"avx512": 4, "avx2": 2, "scalar": 2}
FLOATS = (dt.f32, dt.f16, dt.bf16)


@dataclass(frozen=True)
class _Form:
    """Sizes of a problem; axes of batch, head and row in its tensors."""

    batch: Dim
    heads: Dim
    s: Dim
    t: Dim
    d: Dim
    dv: Dim
    repeat: int
    inside: bool  # heads inside rows: layout BSHD

    def steps(self, t: TensorType) -> tuple[Dim, Dim, Dim]:
        """Elements between batches, heads and rows of a tensor."""
        _, first, second, size = t.shape
        inner, outer = size, second * size
        return (first * outer, inner, outer) if self.inside else (first * outer, outer, inner)


class Attention:
    """attention in float, with fewer heads of k and v, an additive or bool mask, and causality."""

    name = "c_attention"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("attention",))
        if other is not None:
            return other
        types = [o.type for o in problem.operands[:3]]
        if any(t.dtype not in FLOATS for t in types) or len({t.dtype for t in types}) != 1:
            return Reason(f"takes f32, f16 or bf16, not {', '.join(str(t) for t in types)}")
        form = _form(problem)
        return form if isinstance(form, Reason) else _mask_reason(problem, form)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        form, lanes = _form(problem), simd.lanes(target.arch)
        assert isinstance(form, _Form)
        heads, s, t, d, dv = cost.typical(problem, form.batch * form.heads, form.s, form.t, form.d, form.dv)
        block = _block(problem, target, form)
        keys = -(-s // block) * t * d / 8  # transposed for each block
        scores = s * -(-t // lanes)
        cycles = heads * (keys + scores * (d + 2 * cost.HEAVY_CYCLES) / 1.5 + s * -(-dv // lanes) * t / 1.5)
        return cost.microseconds(target, cycles + cost.traffic_cycles(problem, target), heads * -(-s // block))

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = _form(problem)
        assert isinstance(form, _Form)
        q, k, v = (o.type for o in problem.operands[:3])
        mask, steps, along = _mask(problem)
        lanes, in_place = simd.lanes(target.arch), k.dtype == dt.f32
        tp, dvp = ceildiv(form.t, lanes) * lanes, ceildiv(form.dv, lanes) * lanes
        block = _block(problem, target, form)
        values: Dim = 0 if in_place else form.t * form.dv
        scratch = ceildiv(form.d * tp + values + ROWS * (form.d + tp + dvp), 16) * 16
        out = (form.s * form.heads, 1, form.heads) if form.inside else (form.heads * form.s, form.s, 1)
        fields: list[Dim] = [form.s, form.t, form.heads, form.d, form.dv, tp, dvp]
        for t in (q, k, v):
            fields += form.steps(t)
        fields += [*steps, *out, form.repeat, ceildiv(form.s, block), block, scratch]
        scale = struct.unpack("<I", struct.pack("<f", float(problem.attr("scale"))))[0]
        store = row_epilogue(problem, "store_row", ptr0=5, int0=len(fields) + 1)
        defines = {
            "VECS": VECS[target.arch], "KV_FLOAT": int(in_place), "CAUSAL": int(bool(problem.attr("causal"))),
            "Q_T": scalar.STORAGE[q.dtype.name], "KV_T": scalar.STORAGE[k.dtype.name],
            "READ_Q(x)": scalar.read("(x)", q.dtype), "READ_KV(x)": scalar.read("(x)", k.dtype),
            "MASK_T": scalar.STORAGE[mask.name] if mask else "float", "MASK_STEP": along,
            "MASKED(s, m)": _masked(mask), "SHAPE_FIELDS": len(fields), "HAS_MASK": int(mask is not None),
            "VALUES_FLOATS": "0" if in_place else "g->t * g->dv",
        }  # fmt: skip
        helpers = over_buffer("top", dt.f32)[1] + weights(dt.f32)
        text = "".join(f"#define {name} {value}\n" for name, value in defines.items()) + simd.template("attention.h")
        header = simd.header(target.arch) + simd.template("transpose.h")
        args = (
            Ptr(0), Ptr(1), Ptr(2), Ptr(3 if mask else 0), Ptr(WORKSPACE), *(Int(f) for f in fields), Int(scale),
            *store.args,
        )  # fmt: skip
        launch = Launch("attention", (form.batch * form.heads * ceildiv(form.s, block),), args)
        return KernelCode(
            "c", header + scalar.assemble(helpers + store.text + text), (launch,),
            workspace=4 * scratch * target.limits.get("threads", 1),
        )  # fmt: skip


def _block(problem: Problem, target: Limits, form: _Form) -> int:
    """Queries of one work item: many, so that keys are transposed seldom, but enough items for all threads."""
    threads = target.limits.get("threads", 1)
    heads, s = problem.typical(form.batch * form.heads), max(1, problem.typical(form.s))
    pieces = 1 if heads >= 2 * threads else -(-2 * threads // max(1, heads))
    each = -(-s // pieces)
    return min(40, -(-each // ROWS)) * ROWS


def _form(problem: Problem) -> _Form | Reason:
    q, k, v = (o.type.shape for o in problem.operands[:3])
    inside = problem.attr("layout") == "BSHD"
    rows, heads = (1, 2) if inside else (2, 1)
    many, few = q[heads], k[heads]
    repeat = 1
    if many != few:
        if not isinstance(many, int) or not isinstance(few, int) or many % few:
            return Reason(f"{many} heads of queries do not divide into {few} of keys")
        repeat = many // few
    if k[heads] != v[heads] or k[rows] != v[rows] or q[0] != k[0] or q[0] != v[0] or q[3] != k[3]:
        return Reason(f"q, k and v disagree: {', '.join(str(o.type) for o in problem.operands[:3])}")
    return _Form(q[0], q[heads], q[rows], k[rows], q[3], v[3], repeat, inside)


def _mask_type(problem: Problem) -> TensorType | None:
    return problem.operands[3].type if problem.attr("has_mask") else None


def _mask_reason(problem: Problem, form: _Form) -> Reason | None:
    mask = _mask_type(problem)
    if mask is None:
        return None
    if mask.dtype not in (*FLOATS, dt.bool_):
        return Reason(f"adds f32, f16 or bf16 masks and keeps by bool ones, not {mask}")
    scores = (form.batch, form.heads, form.s, form.t)
    if mask.rank > 4 or any(m != 1 and m != x for m, x in zip(reversed(mask.shape), reversed(scores))):
        return Reason(f"mask {mask} does not broadcast to the scores [{', '.join(str(x) for x in scores)}]")
    return None


def _mask(problem: Problem) -> tuple[dt.DType | None, tuple[Dim, Dim, Dim], int]:
    """The mask's dtype, its steps along batch, head and query, and along the keys (0 or 1)."""
    mask = _mask_type(problem)
    if mask is None:
        return None, (0, 0, 0), 0
    steps: list[Dim] = []
    step: Dim = 1
    for size in reversed((1,) * (4 - mask.rank) + mask.shape):
        steps.insert(0, 0 if size == 1 else step)
        step = step * size
    return mask.dtype, (steps[0], steps[1], steps[2]), int(steps[3] != 0)


def _masked(mask: dt.DType | None) -> str:
    if mask is None:
        return "(s)"
    if mask == dt.bool_:
        return "((m) ? (s) : -__builtin_inff())"
    return f"((s) + {scalar.read('(m)', mask)})"


register(Attention())
