"""Leaves the bytes of large weights where they are: in the mapped file, and not in the parsed model.

Protobuf copies every `raw_data` into memory, twice while it parses. Here the message is walked on the wire (ModelProto,
its graph, the graph's initializers), the large `raw_data` are cut out, and what remains is parsed. A tensor that was
cut carries a ticket in its doc_string, which says where its bytes lie; a ticket holds a random number, so that no model
can forge one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LARGE = 4096  # bytes of raw_data from which on it is cut out
_GRAPH, _INITIALIZER, _RAW_DATA, _DOC_STRING = 7, 5, 9, 12  # field numbers in onnx.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class _Malformed(ValueError):
    """The bytes are not what the protobuf wire format allows here."""


@dataclass(frozen=True)
class Slices:
    """The large weights of one file: `find` gives the bytes behind a tensor's ticket."""

    data: memoryview = field(default_factory=lambda: memoryview(b""))
    secret: str = ""

    def find(self, doc_string: str) -> memoryview | None:
        """The bytes that a ticket stands for; None for any other text."""
        if not self.secret or not doc_string.startswith(self.secret):
            return None
        start, stop = doc_string.removeprefix(self.secret).split(":")
        return self.data[int(start) : int(stop)]


def cut(data: memoryview) -> tuple[bytes, Slices]:
    """What is left of a serialized ModelProto without its large weights, and these.

    Bytes that are malformed on the wire come back whole: the parser then says what is wrong.
    """
    slices = Slices(data, f"{secrets.token_hex(16)}:")

    def tensor(start: int, stop: int) -> bytes | None:
        return _tensor(slices, start, stop)

    def graph(start: int, stop: int) -> bytes | None:
        return _rewritten(data, start, stop, _INITIALIZER, tensor)

    try:
        rest = _rewritten(data, 0, len(data), _GRAPH, graph)
    except _Malformed:
        rest = None
    return (bytes(data), Slices()) if rest is None else (rest, slices)


def _rewritten(
    data: memoryview, start: int, stop: int, number: int, rewrite: Callable[[int, int], bytes | None]
) -> bytes | None:
    """The message with its fields `number` rewritten (None: that one stays); None where all stay."""
    parts: list[bytes | memoryview] = []
    copied = start
    for found, wire, field_start, body, field_stop in _fields(data, start, stop):
        if found != number or wire != _BYTES:
            continue
        new = rewrite(body, field_stop)
        if new is not None:
            parts += [data[copied:field_start], _length_delimited(number, new)]
            copied = field_stop
    if not parts:
        return None
    return b"".join([*parts, data[copied:stop]])


def _tensor(slices: Slices, start: int, stop: int) -> bytes | None:
    """A TensorProto with a ticket in place of its large raw_data."""
    if stop - start < LARGE:
        return None
    data = slices.data
    raw = [f for f in _fields(data, start, stop) if f[0] == _RAW_DATA and f[1] == _BYTES]
    if len(raw) != 1 or raw[0][4] - raw[0][3] < LARGE:
        return None
    ((_, _, field_start, body, field_stop),) = raw
    ticket = f"{slices.secret}{body}:{field_stop}".encode()
    return b"".join([data[start:field_start], data[field_stop:stop], _length_delimited(_DOC_STRING, ticket)])


def _fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start of the field, start of its body, end) of each field of a message."""
    at = start
    while at < stop:
        tag, body = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            end = _varint(data, body, stop)[1]
        elif wire == _BYTES:
            length, body = _varint(data, body, stop)
            end = body + length
        elif wire in (_FIXED64, _FIXED32):
            end = body + (8 if wire == _FIXED64 else 4)
        else:
            raise _Malformed
        if end > stop or number == 0:
            raise _Malformed
        yield number, wire, at, body, end
        at = end


def _varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """A variable-length integer at `at`, and where it ends."""
    value = shift = 0
    while at < stop and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Malformed


def _length_delimited(number: int, body: bytes) -> bytes:
    head, length = bytearray([number << 3 | _BYTES]), len(body)
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body
