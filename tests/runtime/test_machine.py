"""Engines for another processor, ISA level, target, or library: refused before any of their code is loaded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bessemer
from bessemer.core.errors import EngineFormatError, EngineMismatchError
from bessemer.device import cpu
from bessemer.engine.engine import Engine
from bessemer.engine.format import HEADER, VERSION
from bessemer.engine.reader import read
from tests.runtime.networks import built, perceptron

VERSION_HERE = bessemer.__version__


@pytest.fixture(scope="module")
def engine() -> Engine:
    return built(perceptron())


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, blob: bytes) -> None:
        raise AssertionError("native code was loaded")

    monkeypatch.setattr(cpu.Library, "__init__", refuse)


def forged(engine: Engine, path: Path, target: dict[str, Any], blob: bytes | None = None, **manifest: Any) -> Path:
    """A whole, valid file of the engine with another manifest or another binary."""
    changed = {**engine.manifest, "target": {**engine.manifest["target"], **target}, **manifest}
    blobs = engine.blobs if blob is None else (blob,)
    return replace(engine, manifest=changed, blobs=blobs).save(path)


def machine(number: int) -> Callable[[bytes], bytes]:
    return lambda blob: blob[:18] + struct.pack("<H", number) + blob[20:]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[bytes], bytes], tuple[str, ...], str]] = {
    "ISA": ({"isa": ["avx2", "avx10_2"], "arch": "avx10"}, {}, bytes,
            ("for CPUs with avx10_2, avx2 (avx10)", "this one lacks avx10_2"), "--target cpu:avx2"),
    "processor": ({}, {}, machine(243), ("for riscv64 processors", "this one is"), "build it on this machine"),
    "unknown processor": ({}, {}, machine(4242), ("for ELF machine 4242 processors",), "build it on this machine"),
    "system": ({}, {}, lambda blob: b"\xcf\xfa\xed\xfe" + blob[4:],
               (r"starts with b'\xcf\xfa\xed\xfe'", "loads ELF"), "on this system"),
    "newer library": ({}, {"bessemer": "0.99.0"}, bytes,
                      ("built by Bessemer 0.99.0", f"this is Bessemer {VERSION_HERE}"), "build the engine again"),
    "no library": ({}, {"bessemer": None}, bytes, ("built by Bessemer None",), "build the engine again"),
    "target": ({"name": "tpu"}, {}, bytes, ("target 'tpu'", "'cpu' and 'cuda'"), "build it for one of those"),
}  # fmt: skip


@pytest.mark.parametrize("target,manifest,blob,said,fix", REFUSED.values(), ids=REFUSED)
def test_both_sides_are_named(
    engine: Engine, tmp_path: Path, target: dict[str, Any], manifest: dict[str, Any],
    blob: Callable[[bytes], bytes], said: tuple[str, ...], fix: str,
) -> None:  # fmt: skip
    path = forged(engine, tmp_path / "m.engine", target, blob(bytes(engine.blobs[0])), **manifest)
    assert read(path).program == engine.program, "the file itself is whole"
    with pytest.raises(EngineMismatchError) as caught:
        bessemer.load(path)
    assert all(part in caught.value.what for part in said), caught.value.what
    assert fix in (caught.value.fix or "")


def test_another_format_version(engine: Engine, tmp_path: Path) -> None:
    path = engine.save(tmp_path / "m.engine")
    data = bytearray(path.read_bytes())
    magic, _, length = HEADER.unpack_from(data)
    HEADER.pack_into(data, 0, magic, VERSION + 1, length)
    path.write_bytes(data)
    with pytest.raises(EngineMismatchError, match=f"version {VERSION + 1}, this runtime reads version {VERSION}"):
        bessemer.load(path)


@pytest.mark.parametrize("threads", [None, 0, -1, True, "2", 1.5])
def test_a_manifest_without_a_number_of_threads_is_malformed(engine: Engine, tmp_path: Path, threads: Any) -> None:
    with pytest.raises(EngineFormatError, match="number of threads"):
        bessemer.load(forged(engine, tmp_path / "m.engine", {"threads": threads}))


def test_releases_of_one_minor_version_fit_together(engine: Engine, tmp_path: Path) -> None:
    major, minor = bessemer.__version__.split(".")[:2]
    with pytest.raises(AssertionError, match="native code was loaded"):
        bessemer.load(forged(engine, tmp_path / "m.engine", {}, bessemer=f"{major}.{minor}.99"))
