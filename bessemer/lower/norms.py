"""Layer and RMS norms that go into the product behind them, where a tactic computes both in one kernel.

    matmul(layer_norm(x) * scale + bias, w)   ->   norm_matmul(x, w * scale, sums)

with the sums that the op needs folded. Where others read the norm too (the residual of a post-norm block), it is the
second output. For 16-bit floats: their products have kernels that see whole tokens. This depends on what tactics
support, and so is no pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import symbols
from bessemer.ir.graph import Attr, Graph, Node
from bessemer.ir.opdef import OPS, InferContext
from bessemer.ir.rewrite import Editor
from bessemer.kernels.base import Operand, Problem

Supports = Callable[[Problem], str | None]  # None: some tactic applies; else why none does


def merge_norms(graph: Graph, supports: Supports) -> Graph:
    """The graph with norm_matmuls."""
    e = Editor(graph)
    for node in e.nodes():
        if node.op == "layer_norm" and e.alive(node):
            _merge(e, node, supports)
    return e.finish()


def _merge(e: Editor, norm: Node, supports: Supports) -> None:
    """Let the first product that reads the norm compute it."""
    x, out = e.type(norm.inputs[0]), norm.outputs[0]
    constant = all(e.constant_of(i) is not None for i in norm.inputs[1:])
    if x.dtype not in (dt.f16, dt.bf16) or norm.attrs["axis"] != x.rank - 1 or not isinstance(x.shape[-1], int):
        return
    found = next(iter(_products(e, out)), None) if constant else None
    if found is None:
        return
    value, product = found
    view = e.producer(value, "reshape") if value != out else None
    keep = out in e.outputs or len(e.users(out)) > 1 or (view is not None and len(e.users(value)) > 1)
    scale, bias = _affine(e, norm)
    w, sums = _weights(e, product, scale, bias)
    source = norm.inputs[0]
    if view is not None:
        source = e.emit("reshape", (source,), view.attrs, like=(norm,))
    inputs = [source, w, sums]
    if keep:
        rows = [e.emit("reshape", (v,), {"shape": (1, x.shape[-1])}) for v in (scale, bias)]
        inputs.append(e.emit("concat", rows, {"axis": 0}))
    attrs: dict[str, Attr] = {"epsilon": norm.attrs["epsilon"], "mode": norm.attrs["mode"],
                              "transpose_b": product.attrs["transpose_b"], "keep": keep}  # fmt: skip
    if supports(_problem(e, inputs, attrs)) is not None:
        return
    results = e.emit_all("norm_matmul", inputs, attrs, like=(norm, product))
    e.replace(product.outputs[0], results[0])
    if not keep:
        return
    e.replace(value, results[1])
    if view is not None:  # its place is that of the first reader: what comes before may go into the product's kernel
        readers = [n for n in e.nodes() if out in n.inputs and n is not view]
        e.replace(out, e.emit("reshape", (results[1],), {"shape": x.shape}, like=readers[:1]))


def _products(e: Editor, out: str) -> list[tuple[str, Node]]:
    """Products of the norm, or of a reshape that keeps its last axis, with constant weights; what they read first."""
    size = e.type(out).shape[-1]
    views = [u.outputs[0] for u in e.users(out) if u.op == "reshape" and e.type(u.outputs[0]).shape[-1:] == (size,)]
    return [
        (value, user)
        for value in (out, *views)
        for user in e.users(value)
        if user.op == "matmul" and user.inputs[0] == value and not user.attrs["transpose_a"]
        and e.type(value).rank >= 2 and e.type(user.inputs[1]).rank >= 2 and e.constant_of(user.inputs[1]) is not None
    ]  # fmt: skip


def _affine(e: Editor, norm: Node) -> list[str]:
    """The norm's scale and bias in f32, or what stands for them."""
    given = list(norm.inputs[1:])
    size = e.type(norm.inputs[0]).shape[-1]
    assert isinstance(size, int)
    out = []
    for has, otherwise in (("has_scale", 1.0), ("has_bias", 0.0)):
        if norm.attrs[has]:
            out.append(e.emit("cast", (given.pop(0),), {"to": dt.f32}))
        else:
            out.append(e.constant(np.full(size, otherwise, np.float32)))
    return out


def _weights(e: Editor, product: Node, scale: str, bias: str) -> tuple[str, str]:
    """Weights that hold the scale, and for each of their columns its sum and its product with the bias."""
    w, transposed = product.inputs[1], bool(product.attrs["transpose_b"])
    t = e.type(w)
    rank, size = t.rank, e.type(scale).shape[0]
    axis = rank - 1 if transposed else rank - 2
    along = {"shape": (1, size) if transposed else (size, 1)}
    wide = e.emit("cast", (w,), {"to": dt.f32})
    scaled = e.emit("cast", (e.emit("mul", (wide, e.emit("reshape", (scale,), along))),), {"to": t.dtype})
    shifted = e.emit("mul", (wide, e.emit("reshape", (bias,), along)))
    shape = (*t.shape[:-2], 1, t.shape[-2] if transposed else t.shape[-1])
    attrs: dict[str, Attr] = {"kind": "sum", "axes": (axis,), "keepdims": True}
    sums = [e.emit("reduce", (v,), attrs) for v in (e.emit("cast", (scaled,), {"to": dt.f32}), shifted)]
    rows = [e.emit("reshape", (v,), {"shape": shape}) for v in sums]
    return scaled, e.emit("concat", rows, {"axis": rank - 2})


def _problem(e: Editor, inputs: list[str], attrs: Mapping[str, Attr]) -> Problem:
    types = tuple(e.type(i) for i in inputs)
    outputs = OPS.get("norm_matmul").infer(InferContext(types, attrs, e.ranges))
    operands = tuple(Operand(t, e.constant_of(i) is not None) for i, t in zip(inputs, types))
    names = {s for t in (*types, *outputs) for d in t.shape for s in symbols(d)}
    ranges, known = tuple(sorted((s, e.ranges[s]) for s in names)), tuple(sorted(attrs.items()))
    return Problem("norm_matmul", operands, outputs, known, len(inputs), outputs[0], ranges=ranges)
