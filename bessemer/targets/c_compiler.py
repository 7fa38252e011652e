"""The C compiler: which one, its flags per ISA level, and a content-hashed cache of object files and of the header that
takes longest to read."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from bessemer.core.errors import BuildError, CompilerError
from bessemer.core.processors import processors
from bessemer.targets.base import cache_folder, no_room

TIMEOUT = 120.0  # seconds for one file
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-semantic-interposition", "-w")
# gcc 12 splits a loop whose branches begin at iterations of their own (a concatenation) wrongly: a part is read from
# where the next one begins. AddressSanitizer and UBSan find nothing in such a kernel.
GNU_FLAGS = ("-fno-split-loops",)
FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)) + (
    "File size limit exceeded",
)  # fmt: skip
INTRINSICS = "#include <immintrin.h>\n"
MARCH = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "scalar": None}


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C, and what it says of itself."""

    command: tuple[str, ...]
    version: str
    is_gnu: bool = False

    @property
    def is_zig(self) -> bool:
        return "ziglang" in self.command

    def flags(self, arch: str, optimise: bool) -> tuple[str, ...]:
        """Flags for ISA level `arch`; without `optimise`, for quick compiles whose speed does not matter."""
        march = MARCH[arch]
        machine: tuple[str, ...] = ()
        if march is not None:
            machine = (f"-mcpu={march.replace('-', '_')}",) if self.is_zig else (f"-march={march}",)
            if arch == "avx512" and not self.is_zig:
                machine += ("-mprefer-vector-width=512",)
        level = FLAGS if optimise else tuple("-O1" if f == "-O3" else f for f in FLAGS)
        own = GNU_FLAGS if self.is_gnu else ("-fno-sanitize=undefined",) if self.is_zig else ()
        return (*level, *machine, *own)


@lru_cache(maxsize=1)
def find_compiler() -> Compiler:
    """$CC, cc, gcc or clang of this machine, else the ziglang wheel; CompilerError says how to get one."""
    candidates = [(c,) for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)]
    if importlib.util.find_spec("ziglang") is not None:
        candidates.append((sys.executable, "-m", "ziglang", "cc"))  # type: ignore[arg-type]
    for command in candidates:
        try:
            found = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        is_gnu = "Free Software Foundation" in found.stdout
        first = next(iter(found.stdout.splitlines()), "").strip()
        return Compiler(tuple(command), first or " ".join(command), is_gnu)
    raise CompilerError(
        "no C compiler was found (tried $CC, cc, gcc, clang and the ziglang package)",
        fix="install one (apt-get install gcc), or pip install 'bessemer[cpu]', which brings one as a wheel",
    )


@dataclass(frozen=True)
class Source:
    """One C file: its text, the functions it exports, and the suffix that makes their names unique: that of a text with
    other functions is another."""

    text: str
    entries: tuple[str, ...]

    @property
    def suffix(self) -> str:
        return hashlib.sha256("\0".join((*self.entries, self.text)).encode()).hexdigest()[:16]

    def symbol(self, entry: str) -> str:
        """The name of `entry` in the object file."""
        return f"{entry}_{self.suffix}"


def compile_objects(
    sources: Sequence[Source], arch: str, *, optimise: bool = True, timeout: float = TIMEOUT,
    seconds: float | None = None,
) -> list[Path | str | None]:  # fmt: skip
    """An object file for each source, or the text of its failure; in parallel, and from the cache where known.

    After `seconds` what is still being compiled is given up; such sources, and those that nobody began, are None."""
    compiler = find_compiler()
    flags = compiler.flags(arch, optimise)
    end = float("inf") if seconds is None else time.monotonic() + seconds
    header = _Intrinsics(compiler, flags)

    def compiled(source: Source) -> Path | str | None:
        left = end - time.monotonic()
        found = _compile(compiler, source, flags, min(timeout, left), header) if left > 0 else None
        return None if isinstance(found, str) and time.monotonic() >= end else found

    try:
        with ThreadPoolExecutor(max_workers=processors()) as pool:
            return list(pool.map(compiled, sources))
    except OSError as error:
        raise no_room(cache_folder("objects"), error.strerror) from error


def _run(command: Sequence[str], folder: str, timeout: float) -> str | None:
    """What a command of the compiler says where it fails; BuildError where that is for want of room."""
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": folder}
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, env=environment)
    except OSError as error:
        what = f"the compiler {command[0]} cannot be started: {error.strerror}"
        raise CompilerError(what, fix="set CC to a C compiler") from error
    if not done.returncode:
        return None
    full = next((text for text in FULL if text in done.stderr), None)
    if full is not None:
        raise no_room(Path(folder).parent, full)
    return done.stderr.strip()[:4000] or f"the compiler ended with status {done.returncode}"


class _Intrinsics:
    """`#include <immintrin.h>` as GCC precompiles it, for one set of flags: to read its text is a third of what a small
    kernel takes. Objects are the same with it and without."""

    def __init__(self, compiler: Compiler, flags: Sequence[str]) -> None:
        self.command = [*compiler.command, *flags]
        self.usable = compiler.is_gnu
        identity = "\0".join((compiler.version, *flags, INTRINSICS))
        self.path = cache_folder("objects") / f"{hashlib.sha256(identity.encode()).hexdigest()}.h"
        self.lock = Lock()

    def flags(self, text: str, timeout: float) -> list[str]:
        """What to compile `text` with; made when it is first asked for, and done without where there is no room for it.
        TimeoutExpired."""
        if INTRINSICS not in text:
            return []
        with self.lock:
            made = self.path.with_suffix(".h.gch")
            if self.usable and not made.exists():
                try:
                    self.path.write_text(INTRINSICS, encoding="utf-8")
                    self.usable = _make(made, INTRINSICS, [*self.command, "-x", "c-header"], timeout) is None
                except (OSError, BuildError):
                    self.usable = False
        return ["-include", str(self.path)] if self.usable else []


def _make(path: Path, text: str, command: Sequence[str], timeout: float) -> str | None:
    """Keeps as `path` what the command makes of `text`, or gives what it says where it fails. TimeoutExpired."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        Path(folder, "kernel.c").write_text(text, encoding="utf-8")
        failed = _run([*command, "-c", "kernel.c", "-o", "kernel.o"], folder, timeout)
        if failed is None:
            os.replace(Path(folder, "kernel.o"), path)
    return failed


def _compile(
    compiler: Compiler, source: Source, flags: Sequence[str], timeout: float, header: _Intrinsics
) -> Path | str:
    defines = [f"-D{e}={source.symbol(e)}" for e in source.entries]
    identity = "\0".join((compiler.version, *flags, *defines, source.text))
    path = cache_folder("objects") / f"{hashlib.sha256(identity.encode()).hexdigest()}.o"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [*compiler.command, *flags, *defines]
    try:
        included = header.flags(source.text, timeout)
        failed = _make(path, source.text, [*command, *included], timeout)
        if failed is not None and included:  # where memory is laid out in another way, GCC stops at what it precompiled
            failed = _make(path, source.text, command, timeout)
    except subprocess.TimeoutExpired:
        return f"the compiler did not finish within {timeout:.0f} s"
    return path if failed is None else failed


def link_objects(objects: Sequence[Path]) -> bytes:
    """One shared object; the same objects give the same bytes."""
    compiler = find_compiler()
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "engine.so"
            listing = Path(folder) / "objects.txt"
            listing.write_text("\n".join(str(o) for o in objects), encoding="utf-8")
            command = [*compiler.command, "-shared", "-Wl,--build-id=none", "-s", f"@{listing}", "-o", str(out)]
            failed = _run([*command, "-lpthread", "-lm"], folder, TIMEOUT)
            if failed is not None:
                raise CompilerError(f"the engine's native code could not be linked:\n{failed}")
            return out.read_bytes()
    except OSError as error:
        raise no_room(Path(tempfile.gettempdir()), error.strerror) from error
