"""Writing a file so that it is there whole or not at all, and one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of errors that free space would mend
ABANDONED = 3600.0  # seconds without a write, after which a temporary file that nobody has locked is a killed process's


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` that takes its place, synced, when the block ends well; OSError where it cannot.

    Folders are made; the permissions are those of an ordinary new file. What a link points to is replaced, not the
    link; what is there and no file, a device for one, is left alone. What killed processes left of `path` is removed.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is there already, and no ordinary file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(handle)
            _remove_abandoned(path, os.fstat(handle).st_mtime - ABANDONED)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)  # while it is locked
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path, since: float) -> None:
    """Remove the temporary files of `path` that nobody has locked and that were last written before `since`: where
    files cannot be locked they stay, and where a lock is not seen on other machines, what is being written stays."""
    temporary = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.part")  # as mkstemp names them
    with suppress(OSError):  # a folder that cannot be listed
        for other in (p for p in path.parent.iterdir() if temporary.fullmatch(p.name)):
            with suppress(OSError):  # gone by now, or another user's
                if other.stat().st_mtime < since:
                    with other.open("rb+") as file:
                        if _lock(file.fileno()):
                            other.unlink()


def _lock(handle: int) -> bool:
    """Lock a file until it is closed; False where another one has it locked, or where files cannot be."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block for that folder (which is made). A process that dies leaves it.

    The folder itself is locked, so nothing is left behind; where it cannot be, as on some network shares, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0o077)  # read by writing: private while it takes
    os.umask(current)
    return current
