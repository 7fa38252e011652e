"""One ONNX node as a model: imported and interpreted, next to onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from bessemer.ir.verify import verify


def node_model(
    op: str, inputs: Sequence[np.ndarray | None], opset: int, attrs: dict[str, Any], outputs: int, constants: bool,
    dynamic: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """A model of one node over x0, x1, ...

    With `constants` all but x0 are initializers, with `dynamic` the sizes of x0 are named.
    """
    names = ["" if a is None else f"x{k}" for k, a in enumerate(inputs)]
    kept = {n: a for n, a in zip(names, inputs) if a is not None}
    fed = {n: a for n, a in kept.items() if not (constants and n != "x0")}
    sizes = {n: [f"n{k}" for k in range(a.ndim)] if dynamic and n == "x0" else a.shape for n, a in fed.items()}
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), sizes[n]) for n, a in fed.items()
    ]
    results = [helper.make_empty_tensor_value_info(f"y{k}") for k in range(outputs)]
    initializers = [numpy_helper.from_array(a, n) for n, a in kept.items() if n not in fed]
    node = helper.make_node(op, names, [f"y{k}" for k in range(outputs)], **attrs)
    graph = helper.make_graph([node], "g", infos, results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def check_node(
    op: str, inputs: Sequence[np.ndarray | None], opset: int, attrs: dict[str, Any] | None = None, *, outputs: int = 1,
    constants: Sequence[bool] = (True, False), dynamic: Sequence[bool] = (False, True), rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:  # fmt: skip
    """Hold the importer and the references to onnxruntime: parameters constant and fed, sizes fixed and dynamic."""
    ort = pytest.importorskip("onnxruntime")
    arrays = {f"x{k}": a for k, a in enumerate(inputs) if a is not None}
    plain = node_model(op, inputs, opset, attrs or {}, outputs, False)
    session = ort.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, arrays)
    for constant in constants:
        for sized in dynamic:
            graph = import_model(node_model(op, inputs, opset, attrs or {}, outputs, constant, sized))
            verify(graph)
            got = run(graph, {n: arrays[n] for n in graph.inputs})
            for k, want in enumerate(expected):
                label = f"{op}-{opset} output {k}, constants {constant}, dynamic {sized}"
                assert got[f"y{k}"].dtype == want.dtype, label
                np.testing.assert_allclose(got[f"y{k}"], want, rtol, atol, err_msg=label)
