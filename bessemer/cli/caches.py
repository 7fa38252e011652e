"""Timing caches as commands name them: files that are none, and none where one is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bessemer.core.errors import TimingCacheError


def check_cache(path: Path) -> None:
    """TimingCacheError where the file is no timing cache, not even a damaged one: its lines are JSON objects."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError:  # whoever reads it says so, or makes it
        return
    if start and not start.startswith(b"{"):
        raise TimingCacheError(
            f"not a timing cache: it starts with {start[:8]!r}, a cache with {b'{'!r}", where=str(path),
            fix="name another file",
        )  # fmt: skip


@contextmanager
def needed(path: Path | None, mode: str) -> Iterator[None]:
    """What a build misses in mode "require" is missing since no cache was named, where none was."""
    try:
        yield
    except TimingCacheError as error:
        if path is not None or mode != "require":
            raise
        fix = "name one that has them: --timing-cache FILE"
        raise TimingCacheError(f"{error.what}: none was named", where=error.where, fix=fix) from error
