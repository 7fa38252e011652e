"""The zoo's models import with their dynamic dimensions, and the interpreter agrees with onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core.dim import symbols
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from bessemer.ir.graph import Graph
from bessemer.ir.interp import run
from bessemer.ir.text import parse, print_graph
from bessemer.ir.verify import verify
from zoo.models import MODELS

KEYS = [pytest.param(key, marks=pytest.mark.torch if model.needs_torch else ()) for key, model in MODELS.items()
        if key != "bert-large"]  # fmt: skip
SMALL = [key for key in MODELS if key.startswith(("g1-", "h2", "a1-cls"))]

pytestmark = pytest.mark.download


def _imported(key: str) -> Graph:
    return import_model(MODELS[key].path(), profiles=[Profile(MODELS[key].bounds())])


@pytest.mark.parametrize("key", KEYS)
def test_a_model_imports_over_its_whole_range(key: str):
    graph = _imported(key)
    verify(graph)
    assert parse(print_graph(graph)) == graph
    assert set(graph.inputs) == set(MODELS[key].shapes[0].dims)
    sizes = {s for t in graph.types.values() for d in t.shape for s in symbols(d)}
    assert not [s for s in sizes if s not in graph.ranges or s.startswith("u")], "a size depends on data"
    assert all(node.op != "dims" for node in graph.nodes), "shape arithmetic is left in the graph"


@pytest.mark.parametrize("key", SMALL)
def test_the_interpreter_agrees_with_onnxruntime(key: str):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, graph = MODELS[key], _imported(key)
    session = onnxruntime.InferenceSession(str(model.path()), providers=["CPUExecutionProvider"])
    for shapes in model.shapes:
        feed = model.make_inputs(shapes, np.random.default_rng(1))
        expected = dict(zip((o.name for o in session.get_outputs()), session.run(None, feed)))
        got = run(graph, {name: feed[name] for name in graph.inputs})
        for name, array in expected.items():
            assert got[name].shape == array.shape and got[name].dtype == array.dtype
            assert np.linalg.norm(got[name] - array) <= 1e-4 * np.linalg.norm(array), (shapes.name, name)
