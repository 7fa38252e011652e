"""Engine files whose digests are right and whose contents are nonsense."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from bessemer.core.errors import EngineFormatError
from bessemer.engine import format as fmt
from bessemer.engine.reader import read
from tests.engine.engines import engine, file_of, program

FILE = file_of(engine())


def forged(
    manifest: Callable[[dict[str, Any]], object] = lambda m: m,
    program: Callable[[dict[str, Any]], object] = lambda p: p,
    kernels: bytes | None = None,
    rows: Callable[[list[list[Any]]], object] = lambda r: r,
) -> bytes:
    """The file with sections changed and all digests put right, as somebody with this source could write it."""
    table = json.loads(FILE[16 : 16 + int.from_bytes(FILE[12:16], "little")])
    parts = {name: FILE[offset : offset + size] for name, offset, size, _ in table}
    for name, change in (("manifest", manifest), ("program", program)):
        data = json.loads(parts[name])
        changed = change(data)
        parts[name] = (
            changed if isinstance(changed, bytes) else json.dumps(data if changed is None else changed).encode()
        )
    parts["kernels"] = parts["kernels"] if kernels is None else kernels
    length = 0
    while True:
        end, out = 16 + length, []
        for name, data in parts.items():
            out.append([name, fmt.align(end), len(data), hashlib.sha256(data).hexdigest()])
            end = fmt.align(end) + len(data)
        changed = rows(out)
        text = changed if isinstance(changed, bytes) else json.dumps(out if changed is None else changed).encode()
        if len(text) == length:
            break
        length = len(text)
    data = FILE[:12] + length.to_bytes(4, "little") + text
    end = 16 + length
    for body in parts.values():
        data = data.ljust(fmt.align(end), b"\0") + body
        end = len(data)
    return data


def set_(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return change


def drop(*path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


def test_a_forgery_without_changes_is_read() -> None:
    assert read(forged()).program == program()


HUGE = 10**30
DEEP = b"[" * 100_000 + b"]" * 100_000
PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "not an object": lambda p: [p],
    "not json": lambda p: b"{",
    "not utf-8": lambda p: b'{"a": "\xff"}',
    "deep lists": lambda p: DEEP,
    "deep objects": lambda p: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "empty": lambda p: {},
    "null": lambda p: b"null",
    "NaN size": set_("arena_bytes", to=float("nan")),
    "float size": set_("arena_bytes", to=256.0),
    "bool size": set_("arena_bytes", to=True),
    "text size": set_("arena_bytes", to="256"),
    "huge arena": set_("arena_bytes", to=HUGE),
    "arena of a petabyte": set_("arena_bytes", to=2**50),
    "huge offset": set_("tensors", 2, 4, to=HUGE),
    "negative offset": set_("tensors", 2, 4, to=-64),
    "huge dim": set_("tensors", 0, 2, to=[str(HUGE)]),
    "number with 5000 digits": set_("tensors", 0, 2, to=["9" * 5000]),
    "dim is a number": set_("tensors", 0, 2, to=[4]),
    "dim is code": set_("tensors", 0, 2, to=["__import__('os').getpid()"]),
    "dim divides by zero": set_("tensors", 0, 2, to=["floordiv(n,0)"]),
    "dim is deep": set_("tensors", 0, 2, to=["(" * 9000 + "n" + ")" * 9000]),
    "dim is a deep minus": set_("tensors", 0, 2, to=["-" * 60_000 + "n"]),
    "dim explodes": set_("tensors", 0, 2, to=["*".join(["(n+u0+1)"] * 400)]),
    "dim is an endless sum": set_("tensors", 0, 2, to=["+".join(f"s{k}" for k in range(100_000))]),
    "dim is a long sum": set_("tensors", 0, 2, to=["+".join(f"s{k}" for k in range(2500))]),
    "dim is a long product": set_("tensors", 0, 2, to=["*".join(f"s{k}" for k in range(2500))]),
    "unknown dtype": set_("tensors", 0, 1, to="f8"),
    "short tensor": set_("tensors", 0, to=["x", "f32"]),
    "tensors are an object": set_("tensors", to={"a": 1}),
    "steps are null": set_("steps", to=None),
    "step is a string": set_("steps", 0, to="kernel"),
    "step without a kind": drop("steps", 0, "kind"),
    "args are numbers": set_("steps", 0, "args", to=[1, 2]),
    "workspace is short": set_("steps", 0, "workspace", to=[1]),
    "workspace is text": set_("steps", 0, "workspace", to="ab"),
    "symbols are a list": set_("symbols", to=[]),
    "symbol is short": set_("symbols", "n", to=[1]),
    "kernel without abi": drop("kernels", 0, "abi"),
    "kernel time is text": set_("kernels", 0, "time_us", to="fast"),
    "kernel time is huge": set_("kernels", 0, "time_us", to=10**400),
    "rejected is flat": set_("kernels", 0, "rejected", to=["a"]),
    "attrs are a number": set_("steps", 1, "attrs", to=5),
}


@pytest.mark.parametrize("change", PROGRAMS.values(), ids=PROGRAMS)
def test_nonsense_programs(change: Callable[[Any], Any]) -> None:
    started = time.process_time()
    with pytest.raises(EngineFormatError):
        read(forged(program=change))
    assert time.process_time() - started < 5


MANIFESTS: dict[str, Callable[[Any], Any]] = {
    "not an object": lambda m: [],
    "deep": lambda m: DEEP,
    "no blobs": drop("blobs"),
    "blobs are text": set_("blobs", to="ab"),
    "blobs are an object": set_("blobs", to={"ab": 1}),
    "blob outside": set_("blobs", to=[[0, 12], [4096, 7]]),
    "negative blob": set_("blobs", to=[[0, -12], [0, 6]]),
    "huge blob": set_("blobs", to=[[0, HUGE]]),
    "float blob": set_("blobs", to=[[0.0, 12.0], [4096.0, 6.0]]),
    "overlapping blobs": set_("blobs", to=[[0, 12], [0, 6]]),
    "hole between blobs": set_("blobs", to=[[0, 10], [4096, 6]]),
    "bytes behind the blobs": set_("blobs", to=[[0, 12]]),
    "no target": drop("target"),
    "target is text": set_("target", to="cpu"),
    "target without arch": drop("target", "arch"),
    "arch is a number": set_("target", "arch", to=90),
    "isa is a number": set_("target", "isa", to=3),
    "isa of numbers": set_("target", "isa", to=[1, 2]),
    "no model": drop("model"),
    "model is a list": set_("model", to=[]),
    "no count of nodes": drop("model", "nodes"),
    "no precision": drop("precision"),
    "notes are text": set_("notes", to="none"),
    "slow paths are an object": set_("slow_paths", to={}),
}


@pytest.mark.parametrize("change", [v for k, v in MANIFESTS.items() if k != "hole between blobs"],
                         ids=[k for k in MANIFESTS if k != "hole between blobs"])  # fmt: skip
def test_nonsense_manifests(change: Callable[[Any], Any]) -> None:
    with pytest.raises(EngineFormatError):
        read(forged(manifest=change))


def test_holes_between_kernels_are_refused() -> None:
    blobs = [[0, 12], [8192, 6]]
    with pytest.raises(EngineFormatError, match="out of place"):
        read(forged(manifest=set_("blobs", to=blobs), kernels=b"first binary".ljust(8192, b"x") + b"second"))


TABLES: dict[str, Callable[[Any], Any]] = {
    "not json": lambda r: b"[[",
    "not a list": lambda r: {"manifest": 1},
    "null": lambda r: b"null",
    "deep": lambda r: b"[" * 30_000 + b"]" * 30_000,
    "too long": lambda r: b" " * (fmt.TABLE_LIMIT + 1),
    "missing section": lambda r: r[:3],
    "twice": lambda r: [*r, r[0]],
    "unknown section": set_(0, 0, to="secrets"),
    "other order": lambda r: [r[1], r[0], *r[2:]],
    "negative offset": set_(0, 1, to=-4096),
    "unaligned offset": set_(0, 1, to=4097),
    "hole": set_(1, 1, to=1 << 20),
    "overlap": set_(1, 1, to=4096),
    "huge length": set_(3, 2, to=HUGE),
    "float length": set_(3, 2, to=70.0),
    "bool offset": set_(0, 1, to=True),
    "wrong digest": set_(2, 3, to="0" * 64),
    "digest is null": set_(2, 3, to=None),
    "short row": set_(0, to=["manifest", 4096]),
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_nonsense_section_tables(change: Callable[[Any], Any]) -> None:
    with pytest.raises(EngineFormatError):
        read(forged(rows=change))
