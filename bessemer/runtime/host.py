"""Host steps: ops without a kernel, run by their numpy references.

Only engines that hold such steps load the op library, when they are loaded; `inspect` lists them as slow paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from bessemer.core.errors import DeviceError, EngineFormatError, GraphError, InputError
from bessemer.engine.codec import decode
from bessemer.engine.program import Step


class HostStep:
    """One host step, ready to run: a graph of one node."""

    def __init__(self, step: Step) -> None:
        text, interp = (import_module(f"bessemer.ir.{m}") for m in ("text", "interp"))
        fold = import_module("bessemer.ir.fold")
        try:
            arrays = {key: decode(value) for key, value in step.attrs["weights"].items()}
            types = {key: decode(value) for key, value in step.attrs["dtypes"].items()}
            weights = {key: fold.constant_from(a, types[key]) for key, a in arrays.items()}
            self.graph: Any = text.parse(step.attrs["graph"], weights)
        except (KeyError, ValueError, TypeError) as error:
            raise EngineFormatError(f"host step {step.name} is malformed: {error!r}") from None
        self.names: tuple[str, ...] = self.graph.inputs
        self.name = f"ONNX nodes {', '.join(step.origin)}" if step.origin else f"step {step.name}"
        self._run = interp.run

    def run(self, arrays: Sequence[np.ndarray], env: Mapping[str, int]) -> list[np.ndarray]:
        """The outputs, in the order of the step's writes."""
        try:
            outputs = self._run(self.graph, dict(zip(self.names, arrays, strict=True)), symbols=env)
        except GraphError as error:  # what the op does not take: k of 4 of 3 elements, an index outside its axis
            why = error.__cause__
            if isinstance(why, MemoryError):
                raise DeviceError(f"too little memory for {self.name}: {why}", fix="give smaller inputs") from error
            raise InputError(
                f"the model does not run on these values: {why or error.what}", where=self.name,
                fix="check the inputs that this step depends on",
            ) from error
        return list(outputs.values())
