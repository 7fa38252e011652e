"""From a path, bytes or a ModelProto to a ModelProto, its weights left where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bessemer.core.errors import InvalidModel, ModelError


@dataclass(frozen=True)
class Loaded:
    """A parsed model. `folder` is where its external data lie (None: unknown, it came as bytes or as an object)."""

    proto: onnx.ModelProto
    folder: Path | None
    source: str


def load(model: str | Path | bytes | onnx.ModelProto) -> Loaded:
    """Parse `model`; ModelError where it cannot be read, InvalidModel where it is no ONNX model."""
    if isinstance(model, onnx.ModelProto):
        loaded = Loaded(model, None, "the given ModelProto")
    elif isinstance(model, (bytes, bytearray, memoryview)):
        loaded = Loaded(_parse(bytes(model), "the given bytes"), None, "the given bytes")
    elif isinstance(model, (str, Path)):
        path = Path(model)
        loaded = Loaded(_parse(_read(path), str(path)), path.parent, str(path))
    else:
        raise TypeError(f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__name__}")
    if not loaded.proto.HasField("graph"):
        raise InvalidModel("the model holds no graph", where=loaded.source, fix="export it again; is it an ONNX file?")
    return loaded


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read the model: {error.strerror}", where=str(path), fix="check the path and its permissions"
        ) from error


def _parse(data: bytes, source: str) -> onnx.ModelProto:
    if not data:
        raise InvalidModel("the model is empty (0 bytes)", where=source, fix="export or download it again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise InvalidModel(
            f"not an ONNX model: the protobuf cannot be parsed ({error})",
            where=source,
            fix="check that the file is complete and is ONNX (not ORT, TensorFlow, a git-lfs pointer or a web page)",
        ) from error
    return proto
