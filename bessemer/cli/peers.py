"""Other implementations of a model, to compare an engine with: values by their ONNX names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bessemer.core.errors import BessemerError

PEERS = ("onnxruntime", "reference")
Arrays = Mapping[str, np.ndarray]


def values_of(peer: str, model: Path, feeds: Arrays, inner: Sequence[str]) -> dict[str, np.ndarray]:
    """The outputs of `model` on `feeds` by a peer, and those of the values `inner` that it has."""
    return _onnxruntime(model, feeds, inner) if peer == "onnxruntime" else _reference(model, feeds, inner)


def _onnxruntime(model: Path, feeds: Arrays, inner: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        import onnxruntime
    except ImportError as error:
        raise BessemerError("onnxruntime is not installed", fix="pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        source = _with_outputs(model, inner) if inner else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except Exception as error:  # onnxruntime's own exceptions share no base but this
        raise BessemerError(
            f"onnxruntime cannot run the model: {error}", where=str(model), fix="compare with --against reference"
        ) from error


def _with_outputs(model: Path, inner: Sequence[str]) -> bytes:
    """The model with these values among its outputs."""
    import onnx

    proto = onnx.load(str(model))
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in inner if n not in known)
    return bytes(proto.SerializeToString())


def _reference(model: Path, feeds: Arrays, inner: Sequence[str]) -> dict[str, np.ndarray]:
    from bessemer.frontend.onnx import import_model
    from bessemer.ir.interp import run

    kept: dict[str, np.ndarray] = {}
    outputs = run(import_model(model), feeds, keep=kept if inner else None)
    return {**{n: kept[n] for n in inner if n in kept}, **outputs}
