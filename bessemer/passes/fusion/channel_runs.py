"""Pixelwise convolutions whose channels are read in equal runs become one product per run (query, key and value).

    slices of conv1x1(x, w) + b   ->   slices of x[None] @ stack(w1, w2, ...) + stack(b1, b2, ...)

The stacked result has one run of memory per slice, so the slices are views. For GPUs, as in `siblings`;
for fixed shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.dim import product
from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "runs"(%x: f32[2,4,3,5]) -> (%q, %k) {
  %w: f32[16,4,1,1] = constant "normal:1"
  %b: f32[1,16,1,1] = constant "normal:2"
  %c: f32[2,16,3,5] = conv(%x, %w) {layout = "NCHW", strides = (1, 1), dilations = (1, 1), groups = 1, pads = (0, 0, 0, 0)}
  %y: f32[2,16,3,5] = add(%c, %b)
  %last: f32[2,3,5,16] = transpose(%y) {perm = (0, 2, 3, 1)}
  %rows: f32[2,15,16] = reshape(%last) {shape = (2, 15, 16)}
  %q: f32[2,15,8] = slice(%rows) {starts = (0, 0, 0), sizes = (2, 15, 8), steps = (1, 1, 1)}
  %k: f32[2,15,8] = slice(%rows) {starts = (0, 0, 8), sizes = (2, 15, 8), steps = (1, 1, 1)}
}
"""  # noqa: E501
AFTER = """
graph "runs"(%x: f32[2,4,3,5]) -> (%v5, %v7) {
  %c0: f32[2,8,4]
  %c1: f32[2,1,8]
  %v0: f32[2,3,5,4] = transpose(%x) {perm = (0, 2, 3, 1)}
  %v1: f32[1,30,4] = reshape(%v0) {shape = (1, 30, 4)}
  %v2: f32[2,30,8] = matmul(%v1, %c0) {transpose_a = false, transpose_b = true}
  %v3: f32[2,30,8] = add(%v2, %c1)
  %v4: f32[1,30,8] = slice(%v3) {starts = (0, 0, 0), sizes = (1, 30, 8), steps = (1, 1, 1)}
  %v5: f32[2,15,8] = reshape(%v4) {shape = (2, 15, 8)}
  %v6: f32[1,30,8] = slice(%v3) {starts = (1, 0, 0), sizes = (1, 30, 8), steps = (1, 1, 1)}
  %v7: f32[2,15,8] = reshape(%v6) {shape = (2, 15, 8)}
}
"""

TO_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Runs:
    """`conv` [B, C, H, W], plus `bias` where there is one, read as `slices` of `width` channels of [B, H * W, C]."""

    conv: Node
    bias: str | None
    slices: tuple[Node, ...]
    width: int


def split_channel_runs(e: Editor, options: PassOptions) -> None:
    """Look at every convolution of fixed shape."""
    if options.target != "cuda":
        return
    for node in e.nodes():
        if node.op == "conv" and e.alive(node) and _is_product(e, node):
            runs = _runs(e, node)
            if runs is not None:
                _split(e, runs)


def _is_product(e: Editor, conv: Node) -> bool:
    weight = e.constant_of(conv.inputs[1])
    shape = (*e.type(conv.inputs[0]).shape, *e.type(conv.inputs[1]).shape)
    if len(conv.inputs) != 2 or weight is None or len(shape) != 8 or not all(isinstance(d, int) for d in shape):
        return False
    ones = (*weight.type.shape[2:], *conv.attrs["strides"])  # type: ignore[misc]
    plain = conv.attrs["layout"] == "NCHW" and conv.attrs["groups"] == 1
    return plain and set(ones) == {1} and set(conv.attrs["pads"]) == {0}  # type: ignore[arg-type]


def _runs(e: Editor, conv: Node) -> _Runs | None:
    value, bias = conv.outputs[0], None
    channels = e.type(value).shape[1]
    add = e.only_user(value)
    if add is not None and add.op == "add" and e.type(add.outputs[0]) == e.type(value):
        bias = next((i for i in add.inputs if i != value), "")
        constant = e.constant_of(bias) if bias else None
        if bias is None or constant is None or (1, *constant.type.shape)[-4:] != (1, channels, 1, 1):
            return None
        value = add.outputs[0]
    last = e.only_user(value)
    rows = e.only_user(last.outputs[0]) if last is not None and last.op == "transpose" else None
    if last is None or last.attrs.get("perm") != TO_LAST or rows is None or rows.op != "reshape":
        return None
    shape = e.type(rows.outputs[0]).shape
    slices = tuple(e.users(rows.outputs[0]))
    if len(shape) != 3 or shape[2] != channels or rows.outputs[0] in e.outputs or len(slices) < 2:
        return None
    widths = {s.attrs["sizes"] for s in slices if s.op == "slice" and s.attrs["steps"] == (1, 1, 1)}
    if len(widths) != 1 or any(s.op != "slice" or s.attrs["steps"] != (1, 1, 1) for s in slices):
        return None
    sizes = widths.pop()
    assert isinstance(sizes, tuple) and isinstance(channels, int)
    width = sizes[2]
    if sizes[:2] != shape[:2] or not isinstance(width, int) or channels % width or width == channels:
        return None
    if any(s.attrs["starts"][2] % width for s in slices):  # type: ignore[index,operator]
        return None
    return _Runs(conv, bias, slices, width)


def _split(e: Editor, r: _Runs) -> None:
    x, w = r.conv.inputs
    (batch, depth, *image), like = e.type(x).shape, (r.conv,)
    channels = e.type(w).shape[0]
    assert isinstance(channels, int)
    count, pixels = channels // r.width, product((batch, *image))
    last = e.emit("transpose", (x,), {"perm": TO_LAST}, like=like)
    flat = e.emit("reshape", (last,), {"shape": (1, pixels, depth)}, like=like)
    stacked = e.emit("reshape", (w,), {"shape": (count, r.width, depth)}, like=like)
    result = e.emit("matmul", (flat, stacked), {"transpose_a": False, "transpose_b": True}, like=like)
    if r.bias is not None:
        bias = e.emit("reshape", (r.bias,), {"shape": (count, 1, r.width)}, like=like)
        result = e.emit("add", (result, bias), like=like)
    for s in r.slices:
        start = s.attrs["starts"][2] // r.width  # type: ignore[index,operator]
        attrs = {"starts": (start, 0, 0), "sizes": (1, pixels, r.width), "steps": (1, 1, 1)}
        part = e.emit("slice", (result,), attrs, like=(s,))
        shape = e.type(s.outputs[0]).shape
        e.replace(s.outputs[0], e.emit("reshape", (part,), {"shape": shape}, like=(s,), hint=s.outputs[0]))


PASS = Pass("split_channel_runs", split_channel_runs)
