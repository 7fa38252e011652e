"""Scaled dot-product attention: softmax(q @ k^T * scale + mask) @ v, and the head transposes around it.

The scale may be on q, on k, on both, or on the scores; the mask is whatever is added to the scores. q, k and v that
are [B, S, H, D] tensors with their middle axes swapped are read as they are (layout BSHD), and so is the result
written where only the swap back reads it.
"""

from __future__ import annotations

from bessemer.ir.graph import Attr, Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions
from bessemer.passes.fusion.match import scaled, sides

BEFORE = """
graph "attention"(%q: f32[2,5,3,8], %k: f32[2,6,3,8], %v: f32[2,6,3,8], %mask: f32[2,1,1,6]) -> (%y) {
  %root: f32[] = constant 2.0
  %qt: f32[2,3,5,8] = transpose(%q) {perm = (0, 2, 1, 3)}
  %kt: f32[2,3,8,6] = transpose(%k) {perm = (0, 2, 3, 1)}
  %vt: f32[2,3,6,8] = transpose(%v) {perm = (0, 2, 1, 3)}
  %product: f32[2,3,5,6] = matmul(%qt, %kt) {transpose_a = false, transpose_b = false}
  %scores: f32[2,3,5,6] = div(%product, %root)
  %masked: f32[2,3,5,6] = add(%scores, %mask)
  %weights: f32[2,3,5,6] = softmax(%masked) {axis = 3, log = false}
  %heads: f32[2,3,5,8] = matmul(%weights, %vt) {transpose_a = false, transpose_b = false}
  %y: f32[2,5,3,8] = transpose(%heads) {perm = (0, 2, 1, 3)}
}
"""
AFTER = """
graph "attention"(%q: f32[2,5,3,8], %k: f32[2,6,3,8], %v: f32[2,6,3,8], %mask: f32[2,1,1,6]) -> (%v5) {
  %v0: f32[2,3,5,8] = transpose(%q) {perm = (0, 2, 1, 3)}
  %v1: f32[2,3,8,6] = transpose(%k) {perm = (0, 2, 3, 1)}
  %v2: f32[2,3,6,8] = transpose(%v) {perm = (0, 2, 1, 3)}
  %v3: f32[2,3,6,8] = transpose(%v1) {perm = (0, 1, 3, 2)}
  %v4: f32[2,3,5,8] = attention(%v0, %v3, %v2, %mask) {scale = 0.5, causal = false, has_mask = true, layout = "BHSD"}
  %v5: f32[2,5,3,8] = transpose(%v4) {perm = (0, 2, 1, 3)}
}
"""

SWAP_HEADS = (0, 2, 1, 3)


def fuse_attention(e: Editor, options: PassOptions) -> None:
    """Start at every matmul whose left side is a softmax over the last axis."""
    for node in e.nodes():
        if node.op == "matmul" and e.alive(node):
            _fuse(e, node)


def absorb_heads(e: Editor, options: PassOptions) -> None:
    """Read and write [B, S, H, D] where only head swaps stand between."""
    for node in e.nodes():
        if node.op == "attention" and e.alive(node) and node.attrs["layout"] == "BHSD":
            _absorb_transposes(e, node)


def _fuse(e: Editor, out: Node) -> None:
    probabilities = _skip_nan_guard(e, out.inputs[0])
    softmax = e.producer(probabilities, "softmax")
    rank = e.type(out.inputs[0]).rank
    if softmax is None or softmax.attrs["log"] or softmax.attrs["axis"] != rank - 1 or out.attrs["transpose_a"]:
        return
    if e.only_user(softmax.outputs[0]) is None and probabilities == out.inputs[0]:
        return
    if rank != 4:
        return
    found = scores_of(e, softmax.inputs[0])
    if found is None:
        return
    scores, factor, mask = found
    q, q_factor, _ = scaled(e, scores.inputs[0])
    k, k_factor, _ = scaled(e, scores.inputs[1])
    v = out.inputs[1]
    if scores.attrs["transpose_a"] or any(e.type(t).rank != 4 for t in (q, k, v)):
        return
    if not scores.attrs["transpose_b"]:
        k = e.emit("transpose", (k,), {"perm": (0, 1, 3, 2)}, like=(scores,))
    if out.attrs["transpose_b"]:
        v = e.emit("transpose", (v,), {"perm": (0, 1, 3, 2)}, like=(out,))
    if not _same_batch(e, q, k, v):
        return
    attrs: dict[str, Attr] = {
        "scale": factor * q_factor * k_factor, "causal": False, "has_mask": mask is not None, "layout": "BHSD",
    }  # fmt: skip
    inputs = (q, k, v) if mask is None else (q, k, v, mask)
    e.replace(out.outputs[0], e.emit("attention", inputs, attrs, like=(scores, softmax, out)))


def _same_batch(e: Editor, q: str, k: str, v: str) -> bool:
    """q, k and v agree in batch and heads without broadcasting."""
    lead = e.type(q).shape[:2]
    return e.type(k).shape[:2] == lead and e.type(v).shape[:2] == lead


def scores_of(e: Editor, value: str) -> tuple[Node, float, str | None] | None:
    """(matmul, factor, mask) of the softmax's argument."""
    source, factor, _ = scaled(e, value)
    matmul = e.producer(source, "matmul")
    if matmul is not None:
        return (matmul, factor, None)
    add = e.producer(value, "add")
    if add is None:
        return None
    for scores, mask in sides(add):
        source, factor, _ = scaled(e, scores)
        matmul = e.producer(source, "matmul")
        if matmul is not None and e.type(mask).rank <= 4 and e.type(source) == e.type(value):
            return matmul, factor, mask
    return None


def _skip_nan_guard(e: Editor, value: str) -> str:
    """where(isnan(p), 0, p) -> p: exporters guard against rows that are masked entirely; the kernel gives 0 there."""
    where = e.producer(value, "where")
    if where is None or e.scalar(where.inputs[1]) != 0.0:
        return value
    isnan = e.producer(where.inputs[0], "isnan")
    guarded = where.inputs[2]
    return guarded if isnan is not None and isnan.inputs[0] == guarded else value


def _absorb_transposes(e: Editor, node: Node) -> None:
    """Read [B, S, H, D] directly where q, k and v are all head swaps of such tensors."""
    swaps = [e.producer(i, "transpose") for i in node.inputs[:3]]
    if any(s is None or s.attrs["perm"] != SWAP_HEADS for s in swaps):
        return
    sources = [s.inputs[0] for s in swaps if s is not None]
    attrs = {**node.attrs, "layout": "BSHD"}
    like = tuple(s for s in swaps if s is not None)
    new = e.emit("attention", (*sources, *node.inputs[3:]), attrs, like=(*like, node))
    e.replace(node.outputs[0], e.emit("transpose", (new,), {"perm": SWAP_HEADS}, like=(node,)))


PASS = Pass("fuse_attention", fuse_attention)
HEADS = Pass("absorb_heads", absorb_heads)
