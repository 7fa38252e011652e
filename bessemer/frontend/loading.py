"""From a path, bytes or a ModelProto to a ModelProto, its weights left where they are."""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from bessemer.core.errors import InvalidModel, ModelError
from bessemer.frontend import wire
from bessemer.frontend.wire import Slices


@dataclass(frozen=True)
class Loaded:
    """A parsed model. `folder` is where its external data lie (None: unknown, it came as bytes or as an object).

    Large weights are not in `proto` but in `slices`, which reads them from the mapped file.
    """

    proto: onnx.ModelProto
    folder: Path | None
    source: str
    slices: Slices = field(default_factory=Slices)


def load(model: str | Path | bytes | onnx.ModelProto) -> Loaded:
    """Parse `model`; ModelError where it cannot be read, InvalidModel where it is no ONNX model."""
    if isinstance(model, onnx.ModelProto):
        loaded = Loaded(model, None, "the given ModelProto")
    elif isinstance(model, (bytes, bytearray, memoryview)):
        loaded = _parse(memoryview(model).cast("B"), None, "the given bytes")
    elif isinstance(model, (str, Path)):
        path = Path(model)
        loaded = _parse(_mapped(path), path.parent, str(path))
    else:
        raise TypeError(f"a model is a path, bytes or an onnx.ModelProto, not {type(model).__name__}")
    if not loaded.proto.HasField("graph"):
        raise InvalidModel("the model holds no graph", where=loaded.source, fix="export it again; is it an ONNX file?")
    return loaded


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            return memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        fix = "free memory" if error.errno == errno.ENOMEM else "check the path and its permissions"
        raise ModelError(f"cannot read the model: {error.strerror}", where=str(path), fix=fix) from error


def _parse(data: memoryview, folder: Path | None, source: str) -> Loaded:
    if not data:
        raise InvalidModel("the model is empty (0 bytes)", where=source, fix="export or download it again")
    proto = onnx.ModelProto()
    rest, slices = wire.cut(data)
    try:
        proto.ParseFromString(rest)
    except (DecodeError, ValueError) as error:
        raise InvalidModel(
            f"not an ONNX model: the protobuf cannot be parsed ({error})",
            where=source,
            fix="check that the file is complete and is ONNX (not ORT, TensorFlow, a git-lfs pointer or a web page)",
        ) from error
    return Loaded(proto, folder, source, slices)
