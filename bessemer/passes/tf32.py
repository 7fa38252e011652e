"""`--tf32`: marks the products that may use TF32, for kernels to read; nothing else of them changes."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

PRODUCTS = frozenset({"matmul", "conv", "conv_transpose", "attention"})


def allow_tf32(e: Editor, options: PassOptions) -> None:
    """Set the attribute `tf32` on products of fp32."""
    if not options.tf32:
        return
    for node in e.nodes():
        if node.op in PRODUCTS and e.type(node.outputs[0]).dtype == dt.f32 and not node.attrs.get("tf32"):
            e.update(node, attrs={**node.attrs, "tf32": True})


PASS = Pass("allow_tf32", allow_tf32)
