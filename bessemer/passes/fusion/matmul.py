"""Transposes of the last two axes go into a matmul's flags, and a constant factor moves to its smaller side."""

from __future__ import annotations

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "matmul"(%a: f32[2,4,8], %b: f32[2,6,8]) -> (%y) {
  %swapped: f32[2,8,6] = transpose(%b) {perm = (0, 2, 1)}
  %y: f32[2,4,6] = matmul(%a, %swapped) {transpose_a = false, transpose_b = false}
}
"""
AFTER = """
graph "matmul"(%a: f32[2,4,8], %b: f32[2,6,8]) -> (%v0) {
  %v0: f32[2,4,6] = matmul(%a, %b) {transpose_a = false, transpose_b = true}
}
"""


def fuse_matmul_transpose(e: Editor, options: PassOptions) -> None:
    """matmul(a, transpose(b)) -> matmul(a, b) {transpose_b}, where only the last two axes are swapped."""
    for node in e.nodes():
        if node.op == "matmul" and e.alive(node):
            for k, flag in ((0, "transpose_a"), (1, "transpose_b")):
                node = _absorb(e, node, k, flag)


def _absorb(e: Editor, node: Node, k: int, flag: str) -> Node:
    transpose = e.producer(node.inputs[k], "transpose")
    if transpose is None:
        return node
    perm = transpose.attrs["perm"]
    assert isinstance(perm, tuple)
    rank = len(perm)
    if rank < 2 or perm != (*range(rank - 2), rank - 1, rank - 2):
        return node
    inputs = tuple(transpose.inputs[0] if j == k else i for j, i in enumerate(node.inputs))
    origin = tuple(dict.fromkeys((*transpose.origin, *node.origin)))
    return e.update(node, inputs=inputs, attrs={**node.attrs, flag: not node.attrs[flag]}, origin=origin)


PASS = Pass("fuse_matmul_transpose", fuse_matmul_transpose)
