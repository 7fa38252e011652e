"""The engine file's byte layout, version 1.

    offset  size  field
    0       8     magic  b"BESSEMR\\n"
    8       4     version (u32, little endian), this file: 1
    12      4     length of the section table in bytes (u32)
    16      n     section table: canonical JSON, a list of [name, offset, length, sha256 hex]
    ...           sections, each starting at a multiple of 4096, in the order of the table, zero padding between

Sections: "manifest" (canonical JSON: target, model, precision, the builder's version and notes, places of binaries),
"program" (canonical JSON of engine.program), "kernels" (binaries, each aligned to 4096), "weights" (raw bytes, each
tensor aligned to 64).

History: version 1 (2026-11) is the first. A reader refuses every version it was not written for. A new version is
needed for any change that an old reader would misread; adding a manifest key is not one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass

from bessemer.core.errors import EngineFormatError, EngineMismatchError

MAGIC = b"BESSEMR\n"
VERSION = 1
ALIGN = 4096
WEIGHT_ALIGN = 64
HEADER = struct.Struct("<8sII")
TABLE_LIMIT = 1 << 16
SECTIONS = ("manifest", "program", "kernels", "weights")
AGAIN = "copy or build the engine again"  # what mends a damaged file


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section lies in the file, and its digest."""

    name: str
    offset: int
    length: int
    sha256: str


def align(offset: int, to: int = ALIGN) -> int:
    """The next multiple of `to`."""
    return -(-offset // to) * to


def read_table(data: memoryview | bytes) -> tuple[Section, ...]:
    """The section table of a whole file, checked: magic, version, order, bounds, alignment, no unknown sections."""
    size = len(data)
    if size < HEADER.size:
        raise EngineFormatError(f"the file has {size} bytes, less than an engine's header of {HEADER.size}")
    magic, version, length = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise EngineFormatError(
            f"not a Bessemer engine: it starts with {bytes(magic)!r}, an engine with {MAGIC!r}",
            fix="give a file that `bessemer build` or Engine.save wrote",
        )
    if version != VERSION:
        raise EngineMismatchError(
            f"the engine has format version {version}, this runtime reads version {VERSION}",
            fix="build the engine again with this version of Bessemer",
        )
    if length > TABLE_LIMIT or HEADER.size + length > size:
        raise EngineFormatError(f"the section table claims {length} bytes, the file has {size}")
    try:
        rows = json.loads(bytes(data[HEADER.size : HEADER.size + length]))
        table = tuple(Section(str(n), _natural(o), _natural(s), str(h)) for n, o, s, h in rows)
    except (ValueError, TypeError, RecursionError) as error:
        raise EngineFormatError(f"the section table is damaged: {error}") from None
    _check_layout(table, HEADER.size + length, size)
    end = HEADER.size + length
    for section in table:
        if any(data[end : section.offset]):
            raise EngineFormatError(f"the padding before section {section.name} is not zero")
        end = section.offset + section.length
    return table


def _natural(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"{value!r} is not a size")
    return value


def _check_layout(table: tuple[Section, ...], start: int, size: int) -> None:
    if tuple(s.name for s in table) != SECTIONS:
        raise EngineFormatError(f"sections are {[s.name for s in table]}, expected {list(SECTIONS)}")
    end = start
    for s in table:
        if s.offset != align(end):
            raise EngineFormatError(f"section {s.name} starts at {s.offset}, expected {align(end)}")
        end = s.offset + s.length
    if end != size:
        raise EngineFormatError(f"the file has {size} bytes, its sections end at {end}: it is truncated or padded")


def check_digest(section: Section, data: memoryview | bytes) -> None:
    """EngineFormatError where the bytes of `section` are not those that were written."""
    found = hashlib.sha256(data[section.offset : section.offset + section.length]).hexdigest()
    if found != section.sha256:
        raise EngineFormatError(
            f"section {section.name} is damaged: sha256 {found[:16]}..., the table says {section.sha256[:16]}...",
            fix=AGAIN,
        )
