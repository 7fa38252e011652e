"""What every application here takes for a network, and two ways to get one beside a Bessemer session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[dict[str, NDArray[Any]]], Arrays]


def with_onnxruntime(model: Path, threads: int = 2) -> Run:
    """A network in onnxruntime on the CPU. Needs the onnxruntime package."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # the exporters' leftovers are no news
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


class Recorder:
    """Passes every call on to `run` and keeps the distinct shapes' first feeds: the real inputs to measure with."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.feeds: list[dict[str, NDArray[Any]]] = []

    def __call__(self, feed: dict[str, NDArray[Any]]) -> Arrays:
        shapes = {name: value.shape for name, value in feed.items()}
        if all({name: value.shape for name, value in kept.items()} != shapes for kept in self.feeds):
            self.feeds.append({name: np.array(value) for name, value in feed.items()})
        return self._run(feed)


def only(outputs: Arrays) -> NDArray[Any]:
    """The output of a network that has one."""
    (value,) = outputs.values()
    return value
