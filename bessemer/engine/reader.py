"""Bytes to engine. Nothing of a file reaches a driver or the loader before its sizes, digests and program check out."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from bessemer.core.errors import EngineFormatError
from bessemer.engine.engine import Engine, Weights
from bessemer.engine.format import Section, check_digest, read_table
from bessemer.engine.program import from_json
from bessemer.engine.verify import verify


def read(source: str | Path | bytes | memoryview) -> Engine:
    """Map (a path) or view (bytes) an engine, check it and return it.

    Raises EngineFormatError for anything that is not a whole, unaltered engine of this format version.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    data = _map(path) if path is not None else memoryview(source)  # type: ignore[arg-type]
    table = {s.name: s for s in read_table(data)}
    for section in table.values():
        check_digest(section, data)
    manifest = _json(data, table["manifest"])
    program_data = _json(data, table["program"])
    try:
        program = from_json(program_data)
        blobs = _blobs(data, table["kernels"], manifest)
        str(manifest["target"]["name"]), str(manifest["target"]["arch"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise EngineFormatError(f"the engine's program is malformed: {error!r}") from None
    weights = table["weights"]
    verify(program, len(blobs), weights.length)
    manifest.pop("blobs")
    view = data[weights.offset : weights.offset + weights.length]
    return Engine(manifest, program, blobs, Weights(weights.length, buffer=view), path)


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise EngineFormatError("the engine file is empty", where=str(path))
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise EngineFormatError(f"the engine cannot be read: {error.strerror}", where=str(path)) from error


def _json(data: memoryview, section: Section) -> dict[str, Any]:
    try:
        out = json.loads(bytes(data[section.offset : section.offset + section.length]))
    except (ValueError, RecursionError) as error:
        raise EngineFormatError(f"section {section.name} is not JSON: {error}") from None
    if not isinstance(out, dict):
        raise EngineFormatError(f"section {section.name} is not a JSON object")
    return out


def _blobs(data: memoryview, section: Section, manifest: dict[str, Any]) -> tuple[memoryview, ...]:
    out = []
    for offset, length in manifest["blobs"]:
        if not (0 <= offset and 0 <= length and offset + length <= section.length):
            raise ValueError(f"kernel binary at {offset}+{length} lies outside its section of {section.length} bytes")
        out.append(data[section.offset + offset : section.offset + offset + length])
    return tuple(out)
