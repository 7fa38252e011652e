"""--tf32 marks fp32 products and nothing else."""

from __future__ import annotations

import numpy as np

from bessemer.core import dtype as dt
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import TensorType
from bessemer.passes import pipeline
from bessemer.passes.base import PassOptions


def _ops(options: PassOptions) -> dict[str, object]:
    b = GraphBuilder("g")
    x = b.input("x", TensorType(dt.f32, (4, 8)))
    w = b.constant(np.ones((8, 5), np.float32))
    (y,) = b.emit("matmul", (x, w), {"transpose_a": False, "transpose_b": False})
    (z,) = b.emit("relu", (y,))
    graph = pipeline.run(b.finish((z,)), options)
    return {n.op: n.attrs.get("tf32") for n in graph.nodes}


def test_products_are_marked_only_when_asked() -> None:
    assert _ops(PassOptions("cuda", "fp32", tf32=True)) == {"matmul": True, "relu": None}
    assert _ops(PassOptions("cuda", "fp32")) == {"matmul": None, "relu": None}


def test_half_precision_needs_no_mark() -> None:
    assert _ops(PassOptions("cuda", "fp16", tf32=True))["matmul"] is None
