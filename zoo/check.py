"""Runs catalogue models in onnxruntime at every listed shape: the proof that files, shapes and inputs fit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from zoo.model import Feed, Model


@dataclass(frozen=True)
class Checked:
    """What onnxruntime made of one model at one set of shapes."""

    model: str
    shapes: str
    dims: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    nodes: int  # with those of nested graphs
    opset: int
    median_ms: float


def check(model: Model, *, threads: int = 2, rounds: int = 9) -> Iterator[Checked]:
    """Run `model` at each of its shapes with fresh inputs.

    Raises ValueError when an output is not finite or has one value everywhere, or when the tolerance names an output
    that the model lacks; onnxruntime's own errors pass through.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # warnings about unused initialisers are the exporters' business
    session = onnxruntime.InferenceSession(str(model.path()), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    unknown = set(model.tolerance.classes) - set(names)
    if unknown:
        raise ValueError(f"{model.key}: the tolerance names outputs {sorted(unknown)}, the model has {names}")
    graph = onnx.load(model.path(), load_external_data=False)
    for shapes in model.shapes:
        feed = model.make_inputs(shapes, np.random.default_rng(0))
        results = dict(zip(names, session.run(None, feed), strict=True))
        for name, result in results.items():
            if not np.isfinite(result).all():
                raise ValueError(f"{model.key}, {shapes.name}: output {name} is not finite")
            if result.size > 1 and np.ptp(result) == 0:
                raise ValueError(f"{model.key}, {shapes.name}: output {name} is {result.flat[0]} everywhere")
        yield Checked(
            model.key,
            shapes.name,
            dict(shapes.dims),
            {name: result.shape for name, result in results.items()},
            count_nodes(graph.graph),
            next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")),
            _median_ms(session, feed, rounds),
        )


def count_nodes(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of the graphs nested in it."""
    nested = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(count_nodes(inner) for inner in nested)


def _median_ms(session: Any, feed: Feed, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
