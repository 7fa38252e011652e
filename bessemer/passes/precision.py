"""`--fp16` and `--bf16`: writes the casts. The graph stays strongly typed: the dtype written is the dtype run.

ALLOW ops always run in the low precision; DENY ops never do (their range or accumulated error does not fit); all others
follow their inputs. Normalisations and softmax are among those that follow, because their kernels compute in fp32
whatever they load. Inputs and outputs of the model keep their dtypes. Casts between two low ops cancel in `simplify`.
"""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

ALLOW = frozenset({"matmul", "conv", "conv_transpose", "attention", "lstm", "gru"})
DENY = frozenset(
    {"exp", "expm1", "log", "log1p", "pow", "cumsum", "cumprod", "reduce", "reciprocal", "rsqrt", "tan", "sinh", "cosh",
     "quantize", "dequantize", "grid_sample", "resize_dynamic", "topk", "nms"}
)  # fmt: skip
LOW = {"fp16": dt.f16, "bf16": dt.bf16}


def lower_precision(e: Editor, options: PassOptions) -> None:
    """Insert casts for `options.precision`; nothing for fp32."""
    low = LOW.get(options.precision)
    if low is None:
        return
    for node in e.nodes():
        if e.alive(node) and _runs_low(e, node, low):
            _convert(e, node, low)


def _runs_low(e: Editor, node: Node, low: DType) -> bool:
    fusion = OPS.get(node.op).fusion
    if node.op in DENY or node.op == "cast" or fusion in (Fusion.HOST, Fusion.CONTROL):
        return False
    floats = [i for i in node.inputs if i and e.type(i).dtype == dt.f32]
    if not floats or any(e.type(o).dtype.kind == "f" and e.type(o).dtype != dt.f32 for o in node.outputs if o):
        return False
    return node.op in ALLOW or any(_came_from(e, i, low) for i in floats)


def _came_from(e: Editor, value: str, low: DType) -> bool:
    cast = e.producer(value, "cast")
    return cast is not None and e.type(cast.inputs[0]).dtype == low


def _convert(e: Editor, node: Node, low: DType) -> None:
    inputs = tuple(
        e.emit("cast", (i,), {"to": low}, like=(node,)) if i and e.type(i).dtype == dt.f32 else i for i in node.inputs
    )
    attrs = {k: (low if v == dt.f32 else v) for k, v in node.attrs.items()}
    outputs = e.emit_all(node.op, inputs, attrs, like=(node,))
    for old, new in zip(node.outputs, outputs):
        if old:
            back = e.type(old).dtype
            e.replace(old, e.emit("cast", (new,), {"to": back}, like=(node,)) if e.type(new).dtype != back else new)


PASS = Pass("precision", lower_precision)
