"""Engine to bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bessemer.core import canon
from bessemer.core.errors import BuildError
from bessemer.core.files import NO_ROOM, replacing
from bessemer.engine.engine import Buffer, Engine
from bessemer.engine.format import ALIGN, HEADER, MAGIC, VERSION, Section, align
from bessemer.engine.program import to_json


def write(engine: Engine, path: Path) -> Path:
    """Write the file whole or not at all. BuildError where the disk is full, the place not writable, or memory short:
    weights are only made here."""
    try:
        with replacing(path) as file:
            write_to(engine, file)
    except OSError as error:
        other = "choose another -o"
        fix = f"free space or {other}" if error.errno in NO_ROOM else f"{other}: a file that can be made"
        raise BuildError(f"the engine could not be written: {error.strerror}", where=str(path), fix=fix) from error
    except MemoryError as error:
        raise BuildError(
            f"there is too little memory to make the engine's weights: {error}", where=str(path), fix="free memory"
        ) from error
    return path


def write_to(engine: Engine, file: BinaryIO) -> None:
    """Write all sections; weights are streamed, part by part."""
    manifest = dict(engine.manifest)
    manifest["blobs"] = _blob_table(engine.blobs)
    sections: list[tuple[str, int, str]] = []
    small = {"manifest": canon.dumps(manifest).encode(), "program": canon.dumps(to_json(engine.program)).encode()}
    for name, data in small.items():
        sections.append((name, len(data), hashlib.sha256(data).hexdigest()))
    kernels = b"".join(_kernel_chunks(engine.blobs))
    sections.append(("kernels", len(kernels), hashlib.sha256(kernels).hexdigest()))
    sections.append(("weights", engine.weights.nbytes, engine.weights.sha256()))
    table = _layout(sections)
    text = _table_text(table)
    file.write(HEADER.pack(MAGIC, VERSION, len(text)))
    file.write(text)
    position = HEADER.size + len(text)
    for section in table:
        file.write(bytes(section.offset - position))
        chunks: Iterator[Buffer] | list[Buffer]
        chunks = engine.weights.chunks() if section.name == "weights" else [small.get(section.name, kernels)]
        for chunk in chunks:
            file.write(chunk)
        position = section.offset + section.length


def _blob_table(blobs: tuple[Buffer, ...]) -> list[list[int]]:
    table, position = [], 0
    for blob in blobs:
        position = align(position)
        table.append([position, len(blob)])
        position += len(blob)
    return table


def _kernel_chunks(blobs: tuple[Buffer, ...]) -> Iterator[bytes]:
    position = 0
    for blob in blobs:
        yield bytes(align(position) - position)
        yield bytes(blob)
        position = align(position) + len(blob)


def _layout(sections: list[tuple[str, int, str]]) -> list[Section]:
    """Offsets depend on the table's length and that on the offsets' digits: repeat until they agree."""
    length = 0
    while True:
        end, table = HEADER.size + length, []
        for name, size, digest in sections:
            table.append(Section(name, align(end, ALIGN), size, digest))
            end = align(end, ALIGN) + size
        actual = len(_table_text(table))
        if actual == length:
            return table
        length = actual


def _table_text(table: list[Section]) -> bytes:
    return canon.dumps([[s.name, s.offset, s.length, s.sha256] for s in table]).encode()
