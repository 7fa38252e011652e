"""Products of one tensor with several weights of one shape become one product (query, key and value of attention).

    x @ w1 + b1, x @ w2 + b2, ...   ->   x[None] @ stack(w1, w2, ...) + stack(b1, b2, ...), sliced

The stacked result has one run of memory per sibling, so the slices are views. For GPUs, where one launch of three times
the work fills the chip better.
"""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import product
from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "siblings"(%x: f32[2,3,8]) -> (%q, %k) {
  %wq: f32[8,8] = constant "normal:1"
  %wk: f32[8,8] = constant "normal:2"
  %bq: f32[8] = constant "normal:3"
  %bk: f32[8] = constant "normal:4"
  %xq: f32[2,3,8] = matmul(%x, %wq) {transpose_a = false, transpose_b = false}
  %xk: f32[2,3,8] = matmul(%x, %wk) {transpose_a = false, transpose_b = false}
  %q: f32[2,3,8] = add(%xq, %bq)
  %k: f32[2,3,8] = add(%xk, %bk)
}
"""
AFTER = """
graph "siblings"(%x: f32[2,3,8]) -> (%v4, %v6) {
  %c0: f32[2,8,8]
  %c1: f32[2,1,8]
  %v0: f32[1,6,8] = reshape(%x) {shape = (1, 6, 8)}
  %v1: f32[2,6,8] = matmul(%v0, %c0) {transpose_a = false, transpose_b = false}
  %v2: f32[2,6,8] = add(%v1, %c1)
  %v3: f32[1,6,8] = slice(%v2) {starts = (0, 0, 0), sizes = (1, 6, 8), steps = (1, 1, 1)}
  %v4: f32[2,3,8] = reshape(%v3) {shape = (2, 3, 8)}
  %v5: f32[1,6,8] = slice(%v2) {starts = (1, 0, 0), sizes = (1, 6, 8), steps = (1, 1, 1)}
  %v6: f32[2,3,8] = reshape(%v5) {shape = (2, 3, 8)}
}
"""


def merge_siblings(e: Editor, options: PassOptions) -> None:
    """Look at the readers of every value."""
    if options.target != "cuda":
        return
    for value in list(e.types):
        groups: dict[tuple[object, ...], list[Node]] = {}
        for user in e.users(value):
            if user.op == "matmul" and user.inputs[0] == value and not user.attrs["transpose_a"]:
                weight = e.constant_of(user.inputs[1])
                if weight is not None and weight.type.rank == 2 and e.type(value).rank >= 2:
                    key = (str(weight.type), user.attrs["transpose_b"], _bias(e, user) is not None)
                    groups.setdefault(key, []).append(user)
        for siblings in groups.values():
            if len(siblings) > 1:
                _merge(e, value, siblings)


def _bias(e: Editor, matmul: Node) -> tuple[Node, str] | None:
    """The add of a constant vector that alone reads the product."""
    add = e.only_user(matmul.outputs[0])
    if add is None or add.op != "add":
        return None
    other = next((i for i in add.inputs if i != matmul.outputs[0]), "")
    columns = e.type(matmul.outputs[0]).shape[-1]
    constant = e.constant_of(other) if other else None
    fits = constant is not None and constant.type.shape == (columns,)
    return (add, other) if fits and e.type(add.outputs[0]) == e.type(matmul.outputs[0]) else None


def _merge(e: Editor, value: str, siblings: Sequence[Node]) -> None:
    t, out = e.type(value), e.type(siblings[0].outputs[0])
    rows, columns = product(t.shape[:-1]), out.shape[-1]
    weight = e.type(siblings[0].inputs[1]).shape
    flat = e.emit("reshape", (value,), {"shape": (1, rows, t.shape[-1])}, like=siblings)
    parts = [e.emit("reshape", (s.inputs[1],), {"shape": (1, *weight)}, like=(s,)) for s in siblings]
    stacked = e.emit("concat", parts, {"axis": 0}, like=siblings)
    result = e.emit("matmul", (flat, stacked), siblings[0].attrs, like=siblings)
    biases = [_bias(e, s) for s in siblings]
    ends = [s.outputs[0] for s in siblings]
    if all(b is not None for b in biases):
        found = [b for b in biases if b is not None]
        vectors = [e.emit("reshape", (v,), {"shape": (1, 1, columns)}, like=(add,)) for add, v in found]
        result = e.emit("add", (result, e.emit("concat", vectors, {"axis": 0}, like=siblings)), like=siblings)
        ends = [add.outputs[0] for add, _ in found]
    for k, end in enumerate(ends):
        attrs = {"starts": (k, 0, 0), "sizes": (1, rows, columns), "steps": (1, 1, 1)}
        part = e.emit("slice", (result,), attrs, like=(siblings[k],))
        e.replace(end, e.emit("reshape", (part,), {"shape": out.shape}, like=(siblings[k],), hint=end))


PASS = Pass("merge_siblings", merge_siblings)
