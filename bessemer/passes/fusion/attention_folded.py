"""Attention whose heads are folded into the batch, as over the pixels of images: matmuls of rank 3.

Operands that are [B * H, D, T], split from [B, H * D, T], become attention of [B, T, H, D]; where they are channels of
an image [B, C, ...] they are read from its channels-last form, and the result is written as one, so that no transposes
are left between convolutions and the attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.dim import Dim, product
from bessemer.ir.graph import Attr, Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions
from bessemer.passes.fusion.attention import scores_of
from bessemer.passes.fusion.match import scaled

BEFORE = """
graph "pixels"(%x: f32[2,24,3,5]) -> (%y) {
  %root: f32[] = constant 0.5
  %flat: f32[2,24,15] = reshape(%x) {shape = (2, 24, 15)}
  %q: f32[2,8,15] = slice(%flat) {starts = (0, 0, 0), sizes = (2, 8, 15), steps = (1, 1, 1)}
  %k: f32[2,8,15] = slice(%flat) {starts = (0, 8, 0), sizes = (2, 8, 15), steps = (1, 1, 1)}
  %v: f32[2,8,15] = slice(%flat) {starts = (0, 16, 0), sizes = (2, 8, 15), steps = (1, 1, 1)}
  %scaled: f32[2,8,15] = mul(%q, %root)
  %qh: f32[4,4,15] = reshape(%scaled) {shape = (4, 4, 15)}
  %kh: f32[4,4,15] = reshape(%k) {shape = (4, 4, 15)}
  %vh: f32[4,4,15] = reshape(%v) {shape = (4, 4, 15)}
  %scores: f32[4,15,15] = matmul(%qh, %kh) {transpose_a = true, transpose_b = false}
  %weights: f32[4,15,15] = softmax(%scores) {axis = 2, log = false}
  %heads: f32[4,15,4] = matmul(%weights, %vh) {transpose_a = false, transpose_b = true}
  %swapped: f32[4,4,15] = transpose(%heads) {perm = (0, 2, 1)}
  %y: f32[2,8,3,5] = reshape(%swapped) {shape = (2, 8, 3, 5)}
}
"""
AFTER = """
graph "pixels"(%x: f32[2,24,3,5]) -> (%v14) {
  %v0: f32[2,3,5,24] = transpose(%x) {perm = (0, 2, 3, 1)}
  %v1: f32[2,15,24] = reshape(%v0) {shape = (2, 15, 24)}
  %v2: f32[2,3,5,24] = transpose(%x) {perm = (0, 2, 3, 1)}
  %v3: f32[2,15,24] = reshape(%v2) {shape = (2, 15, 24)}
  %v4: f32[2,3,5,24] = transpose(%x) {perm = (0, 2, 3, 1)}
  %v5: f32[2,15,24] = reshape(%v4) {shape = (2, 15, 24)}
  %v6: f32[2,15,8] = slice(%v1) {starts = (0, 0, 0), sizes = (2, 15, 8), steps = (1, 1, 1)}
  %v7: f32[2,15,8] = slice(%v3) {starts = (0, 0, 8), sizes = (2, 15, 8), steps = (1, 1, 1)}
  %v8: f32[2,15,8] = slice(%v5) {starts = (0, 0, 16), sizes = (2, 15, 8), steps = (1, 1, 1)}
  %v9: f32[2,15,2,4] = reshape(%v6) {shape = (2, 15, 2, 4)}
  %v10: f32[2,15,2,4] = reshape(%v7) {shape = (2, 15, 2, 4)}
  %v11: f32[2,15,2,4] = reshape(%v8) {shape = (2, 15, 2, 4)}
  %v12: f32[2,15,2,4] = attention(%v9, %v10, %v11) {scale = 0.5, causal = false, has_mask = false, layout = "BSHD"}
  %v13: f32[2,3,5,8] = reshape(%v12) {shape = (2, 3, 5, 8)}
  %v14: f32[2,8,3,5] = transpose(%v13) {perm = (0, 3, 1, 2)}
}
"""

LARGEST_HEAD = 128  # elements: above, tiles of attention are smaller than those of its two products
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def fuse_folded(e: Editor, options: PassOptions) -> None:
    """Start at every matmul of rank 3 whose left side is a softmax over the last axis."""
    for node in e.nodes():
        if node.op == "matmul" and e.alive(node):
            _fuse(e, node)


@dataclass(frozen=True)
class _Operand:
    """q, k or v: `value` is [G, size, rows], or [G, rows, size] unless `first`."""

    e: Editor
    value: str
    first: bool

    @property
    def rows(self) -> Dim:
        return self.e.type(self.value).shape[2 if self.first else 1]

    @property
    def size(self) -> Dim:
        return self.e.type(self.value).shape[1 if self.first else 2]

    def heads(self) -> int:
        """How many heads were folded into the batch; 1 where that cannot be told."""
        split = self.e.producer(self.value, "reshape")
        source = self.e.type(split.inputs[0]).shape if split is not None else ()
        if not self.first or len(source) != 3 or source[2] != self.rows or not isinstance(self.size, int):
            return 1
        channels = source[1]
        count = channels // self.size if isinstance(channels, int) and channels % self.size == 0 else 1
        return count if source[0] * count == self.e.type(self.value).shape[0] else 1

    def last(self, batch: Dim, heads: int, like: Node) -> str:
        """As [batch, rows, heads, size]."""
        e, shape = self.e, (batch, self.rows, heads, self.size)
        if not self.first:
            split = e.emit("reshape", (self.value,), {"shape": (batch, heads, self.rows, self.size)}, like=(like,))
            return e.emit("transpose", (split,), {"perm": (0, 2, 1, 3)}, like=(like,))
        source = self.value
        if heads > 1:
            split_heads = e.producer(self.value, "reshape")
            assert split_heads is not None
            source = split_heads.inputs[0]
        return e.emit("reshape", (_channels_last(e, source, like),), {"shape": shape}, like=(like,))


def _fuse(e: Editor, out: Node) -> None:
    softmax = e.producer(out.inputs[0], "softmax")
    if softmax is None or softmax.attrs["log"] or softmax.attrs["axis"] != 2 or out.attrs["transpose_a"]:
        return
    found = scores_of(e, softmax.inputs[0])
    if e.type(out.inputs[0]).rank != 3 or found is None or found[2] is not None:
        return
    scores, factor, _ = found
    q, q_factor = _unscaled(e, scores.inputs[0], scores)
    k, k_factor = _unscaled(e, scores.inputs[1], scores)
    if any(e.type(v).rank != 3 or e.type(v).shape[0] != e.type(q).shape[0] for v in (q, k, out.inputs[1])):
        return
    operands = (
        _Operand(e, q, bool(scores.attrs["transpose_a"])),
        _Operand(e, k, not scores.attrs["transpose_b"]),
        _Operand(e, out.inputs[1], bool(out.attrs["transpose_b"])),
    )
    if any(not isinstance(o.size, int) or o.size > LARGEST_HEAD for o in operands):
        return
    counts = {o.heads() for o in operands}
    heads = counts.pop() if len(counts) == 1 else 1
    groups = e.type(q).shape[0]
    split = e.producer(q, "reshape")
    batch = e.type(split.inputs[0]).shape[0] if heads > 1 and split is not None else groups
    attrs: dict[str, Attr] = {
        "scale": factor * q_factor * k_factor,
        "causal": False,
        "has_mask": False,
        "layout": "BSHD",
    }
    inputs = [o.last(batch, heads, scores) for o in operands]
    _write(e, out, e.emit("attention", inputs, attrs, like=(scores, softmax, out)))


def _unscaled(e: Editor, value: str, like: Node) -> tuple[str, float]:
    """`value` without its constant factor, which may be ahead of a reshape."""
    source, factor, _ = scaled(e, value)
    split = e.producer(source, "reshape")
    if split is None:
        return source, factor
    inner, more, _ = scaled(e, split.inputs[0])
    if inner == split.inputs[0]:
        return source, factor
    return e.emit("reshape", (inner,), split.attrs, like=(split, like)), factor * more


def _channels_last(e: Editor, value: str, like: Node) -> str:
    """[B, C, T] as [B, T, C]: channels of an image that is split into pixels are taken from its channels-last form."""
    batch, channels, rows = e.type(value).shape
    node = e.producer(value)
    if node is not None and node.op == "slice" and node.attrs["sizes"] == (batch, channels, rows):
        starts, steps = node.attrs["starts"], node.attrs["steps"]
        assert isinstance(starts, tuple)
        if starts[0] == starts[2] == 0 and steps == (1, 1, 1) and e.type(node.inputs[0]).shape[2] == rows:
            attrs = {"starts": (0, 0, starts[1]), "sizes": (batch, rows, channels), "steps": (1, 1, 1)}
            return e.emit("slice", (_channels_last(e, node.inputs[0], like),), attrs, like=(node,))
    if node is not None and node.op == "reshape":
        image = e.type(node.inputs[0]).shape
        if len(image) == 4 and image[:2] == (batch, channels) and product(image[2:]) == rows:
            last = e.emit("transpose", (node.inputs[0],), {"perm": TO_LAST}, like=(node,))
            return e.emit("reshape", (last,), {"shape": (batch, rows, channels)}, like=(node,))
    return e.emit("transpose", (value,), {"perm": (0, 2, 1)}, like=(like,))


def _write(e: Editor, out: Node, result: str) -> None:
    """Let the readers of `out` read `result` [B, T, H, D], as an image's channels where they are."""
    batch, rows, heads, size = e.type(result).shape
    swap = e.only_user(out.outputs[0])
    if swap is not None and swap.op == "transpose" and swap.attrs["perm"] == (0, 2, 1):
        join = e.only_user(swap.outputs[0])
        shape = e.type(join.outputs[0]).shape if join is not None and join.op == "reshape" else ()
        if join is not None and len(shape) == 4 and shape[:2] == (batch, heads * size) and product(shape[2:]) == rows:
            image = e.emit("reshape", (result,), {"shape": (batch, *shape[2:], heads * size)}, like=(join,))
            e.replace(join.outputs[0], e.emit("transpose", (image,), {"perm": TO_FIRST}, like=(swap, join)))
            return
    first = e.emit("transpose", (result,), {"perm": (0, 2, 1, 3)}, like=(out,))
    e.replace(out.outputs[0], e.emit("reshape", (first,), {"shape": e.type(out.outputs[0]).shape}, like=(out,)))


PASS = Pass("fuse_folded_attention", fuse_folded)
