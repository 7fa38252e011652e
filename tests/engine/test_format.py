"""The engine file: bytes that never change, round trips, and every kind of damage."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.errors import EngineFormatError, EngineMismatchError
from bessemer.engine.engine import Engine, Weights
from bessemer.engine.reader import read
from tests.engine.engines import engine, file_of, program

# base64 of zlib of a version 1 file: every later reader must refuse it or read it, and this one must read it
GOLDEN = Path(__file__).parent / "golden_v1.txt"
FILE = file_of(engine())


def test_golden_file() -> None:
    """Old engines stay readable, and the same engine gives the same bytes on every machine."""
    golden = zlib.decompress(base64.b64decode(GOLDEN.read_text()))
    assert FILE == golden
    assert read(golden).program == program()


def test_layout_is_as_documented() -> None:
    assert FILE[:8] == b"BESSEMR\n"
    version, length = np.frombuffer(FILE[8:16], "<u4")
    assert version == 1
    rows = json.loads(FILE[16 : 16 + int(length)])
    assert [r[0] for r in rows] == ["manifest", "program", "kernels", "weights"]
    for _, offset, size, digest in rows:
        assert offset % 4096 == 0
        assert hashlib.sha256(FILE[offset : offset + size]).hexdigest() == digest
    assert rows[-1][1] + rows[-1][2] == len(FILE)
    manifest = json.loads(FILE[rows[0][1] : rows[0][1] + rows[0][2]])
    assert manifest["blobs"] == [[0, 12], [4096, 6]]


def test_write_of_read_is_the_same_bytes(tmp_path: Path) -> None:
    opened = read(FILE)
    assert file_of(opened) == FILE
    path = engine().save(tmp_path / "tiny.engine")
    assert path.read_bytes() == FILE
    mapped = read(path)
    assert mapped.path == path and mapped.program == program()
    assert file_of(mapped) == FILE
    assert [bytes(b) for b in mapped.blobs] == [b"first binary", b"second"]


def test_weights_are_where_the_program_says() -> None:
    out = np.full(70, 255, np.uint8)
    read(FILE).weights.fill(out)
    assert list(out[:16].view(np.float32)) == [1, 2, 3, 4]
    assert not out[16:64].any(), "gaps are zeros"
    assert list(out[64:].view(np.uint16)) == [0x3F80, 0x4000, 0x4040]


def test_signature_and_facts() -> None:
    e = read(FILE)
    assert [(i.name, i.dtype.name, [str(d) for d in i.shape]) for i in e.inputs] == [("x", "f32", ["n", "4"])]
    assert [o.name for o in e.outputs] == ["y"]
    assert e.target == "cpu:avx2"
    assert e.memory == {"weights": 70, "arena": 256, "peak": 193}


def test_an_engine_without_weights_kernels_or_steps() -> None:
    bare = replace(
        program(), steps=(), kernels=(), tensors=program().tensors[:1], outputs=(), arena_bytes=0, weights_bytes=0
    )
    empty = Engine(engine().manifest, bare, (), Weights(0))
    data = file_of(empty)
    assert file_of(read(data)) == data


def test_truncation_at_every_length() -> None:
    lengths = {*range(600), *(b + d for b in range(0, len(FILE), 512) for d in (-1, 0, 1)), len(FILE) - 1}
    for length in sorted(n for n in lengths if 0 <= n < len(FILE)):
        with pytest.raises(EngineFormatError):
            read(FILE[:length])


def test_appended_bytes_are_refused() -> None:
    for extra in (b"\0", b"x" * 4096):
        with pytest.raises(EngineFormatError, match="truncated or padded"):
            read(FILE + extra)


def test_every_flipped_byte_is_refused() -> None:
    """All of the header, the table and the sections with both a single bit and a whole byte, padding included."""
    for position in range(len(FILE)):
        for mask in (0x01, 0xFF) if FILE[position] or position < 1024 or position % 16 == 0 else (0x20,):
            damaged = bytearray(FILE)
            damaged[position] ^= mask
            with pytest.raises(EngineFormatError):
                read(bytes(damaged))


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, FILE[:8] + noise, FILE[:16] + noise):
        with pytest.raises(EngineFormatError):
            read(data)


@pytest.mark.parametrize(
    "start", [b"", b"\x7fELF\x02\x01\x01", b"PK\x03\x04", b"\x08\x07\x12\x07pytorch", b"BESSEMR\r\n", b"bessemr\n"]
)
def test_foreign_files(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.engine"
    path.write_bytes(start and start.ljust(9000, b"\0"))
    with pytest.raises(EngineFormatError, match="empty" if not start else "not a Bessemer engine: it starts with"):
        read(path)


def test_damage_says_in_which_file_and_what_to_do(tmp_path: Path) -> None:
    """Whatever is wrong with it: cut off anywhere, altered, foreign, of another version, with an unsafe program."""
    unsafe = file_of(replace(engine(), program=replace(program(), arena_bytes=0)))
    cases = [*(FILE[:n] for n in (0, 9, 300, len(FILE) - 1)), FILE[:-1] + b"\xff", b"PK".ljust(9000, b"\0"), unsafe,
             FILE[:8] + b"\2" + FILE[9:]]  # fmt: skip
    errors = []
    for data in cases:
        path = tmp_path / "damaged.engine"
        path.write_bytes(data)
        with pytest.raises(EngineFormatError) as caught:
            read(path)
        assert caught.value.where == str(path) and caught.value.fix, caught.value
        errors.append(caught.value)
        if data:
            with pytest.raises(type(caught.value)) as of_bytes:
                read(data)
            told = of_bytes.value
            assert (told.what, told.where, told.fix) == (caught.value.what, None, caught.value.fix)
    assert [e.fix for e in errors[:5]] == ["copy or build the engine again"] * 5
    assert "`bessemer build`" in str(errors[5].fix) and "with this version" in str(errors[7].fix)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.engine", tmp_path):
        with pytest.raises(EngineFormatError, match="cannot be read") as caught:
            read(path)
        assert caught.value.where == str(path)


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_other_versions_name_both_sides(version: int) -> None:
    data = FILE[:8] + version.to_bytes(4, "little") + FILE[12:]
    with pytest.raises(EngineMismatchError, match=f"format version {version}, this runtime reads version 1"):
        read(data)


def test_a_hundred_megabytes_load_in_a_third_of_a_second(tmp_path: Path) -> None:
    size = 100 << 20
    big = replace(engine(weights_bytes=size), weights=Weights(size, buffer=memoryview(bytes(size))))
    path = big.save(tmp_path / "big.engine")
    seconds = []
    for _ in range(3):
        started = time.process_time()
        read(path)
        seconds.append(time.process_time() - started)
    os.unlink(path)
    assert min(seconds) < 0.3
