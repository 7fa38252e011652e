"""Bytes to engine. Nothing of a file reaches a driver or the loader before its sizes, digests and program check out."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from bessemer.core.errors import EngineFormatError, InputError
from bessemer.engine.engine import Engine, Weights
from bessemer.engine.format import AGAIN, Section, align, check_digest, read_table
from bessemer.engine.program import from_json
from bessemer.engine.verify import verify


def read(source: str | Path | bytes | memoryview) -> Engine:
    """Map (a path) or view (bytes) an engine, check it and return it.

    Raises EngineFormatError for anything that is not a whole, unaltered engine of this format version, InputError for
    what is neither a path nor bytes.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    try:
        return _engine(_map(path) if path is not None else _view(source), path)
    except EngineFormatError as error:  # what is wrong with the bytes: which file they are from is known here
        where = error.where if path is None else str(path)
        raise type(error)(error.what, where=where, fix=error.fix or AGAIN) from error.__cause__


def _engine(data: memoryview, path: Path | None) -> Engine:
    table = {s.name: s for s in read_table(data)}
    for section in table.values():
        check_digest(section, data)
    manifest = _json(data, table["manifest"])
    program_data = _json(data, table["program"])
    try:
        program = from_json(program_data)
        blobs = _blobs(data, table["kernels"], manifest)
        _check_manifest(manifest)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise EngineFormatError(f"the engine's program is malformed: {error!r}") from None
    weights = table["weights"]
    verify(program, len(blobs), weights.length)
    manifest.pop("blobs")
    view = data[weights.offset : weights.offset + weights.length]
    return Engine(manifest, program, blobs, Weights(weights.length, buffer=view), path)


def _view(source: object) -> memoryview:
    try:
        return memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(
            f"an engine was given as {type(source).__name__}", fix="give a path, the bytes of a file, or an Engine"
        ) from None


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise EngineFormatError("the engine file is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise EngineFormatError(
            f"the engine cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error


def _json(data: memoryview, section: Section) -> dict[str, Any]:
    try:
        out = json.loads(bytes(data[section.offset : section.offset + section.length]))
    except (ValueError, RecursionError) as error:
        raise EngineFormatError(f"section {section.name} is not JSON: {error}") from None
    if not isinstance(out, dict):
        raise EngineFormatError(f"section {section.name} is not a JSON object")
    return out


def _check_manifest(manifest: dict[str, Any]) -> None:
    """ValueError or LookupError where something that is read of a manifest is not there, or of another kind."""
    target, model = manifest["target"], manifest["model"]
    for where, key, kind in (
        (target, "name", str), (target, "arch", str), (target, "fingerprint", dict), (model, "name", str),
        (model, "nodes", int), (model, "metadata", dict), (manifest, "precision", str),
    ):  # fmt: skip
        if not isinstance(where[key], kind):
            raise ValueError(f"{key} is {where[key]!r} in its manifest")
    for where, key in ((target, "isa"), (manifest, "slow_paths"), (manifest, "notes"), (manifest, "kept_in_fp32")):
        texts = where.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"{key} is {texts!r} in its manifest")


def _blobs(data: memoryview, section: Section, manifest: dict[str, Any]) -> tuple[memoryview, ...]:
    """The kernel binaries: one after the other, each at the next multiple of ALIGN, nothing between or behind."""
    out, end = [], 0
    for offset, length in manifest["blobs"]:
        if offset != align(end) or length < 0 or offset + length > section.length:
            raise ValueError(f"kernel binary at {offset}+{length} is out of place in its {section.length} bytes")
        end = offset + length
        out.append(data[section.offset + offset : section.offset + end])
    if end != section.length:
        raise ValueError(f"kernel binaries end at {end}, their section at {section.length}")
    return tuple(out)
