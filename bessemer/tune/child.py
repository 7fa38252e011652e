"""Processes for work that may crash or hang: they are ended by their own id, and what became of them is told.

    child = forked(work)                     # a copy of this process, which does work(send) and ends
    child = started("package.module", fd)    # a new one, which finds the other end by `parent()`
    child.send(message)
    child.receive(seconds)                   # the next answer, or Lost: "crashed (signal 11)", "did not end within 9 s"

A child does not outlive its parent, even where it hangs. (Linux ends it with the thread that made it.)
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any

from bessemer.core.process import environment

PR_SET_PDEATHSIG = 1
GRACE = 5.0  # seconds that a process which has hung up is given to end


class Lost(Exception):
    """A child ended before it answered, or was ended because it did not; the text says how."""


class Child:
    """A process at the other end of a connection; `poll` gives its exit code once it has ended, that of a signal as
    a negative. `errors` is the file that it writes errors to, if that is its own."""

    def __init__(
        self, connection: Any, pid: int, poll: Callable[[], int | None], errors: IO[bytes] | None = None
    ) -> None:
        self.pid = pid
        self._connection, self._poll, self._errors = connection, poll, errors
        self._last_line = ""
        self._code: int | None = None

    def send(self, message: Any) -> None:
        """Lost where the process has ended."""
        try:
            self._connection.send(message)
        except OSError:
            raise self._ended() from None

    def receive(self, seconds: float) -> Any:
        """What the process sends next; Lost, and it is gone, where it ends or sends nothing for so many seconds."""
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        self.close()
        raise Lost(f"did not end within {seconds:.0f} s")

    def close(self, grace: float = 0.0) -> int:
        """End it, whatever it does, unless it ends by itself within so many seconds; its exit code."""
        end = time.monotonic() + grace
        self._connection.close()
        while self._code is None:
            self._code = self._poll()
            if self._code is None and time.monotonic() >= end:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.001)
        if self._errors is not None and not self._errors.closed:
            self._last_line = _last_line(self._errors)
        return self._code

    def _ended(self) -> Lost:
        code = self.close(GRACE)
        how = f"crashed (signal {-code})" if code < 0 else "crashed"
        return Lost(f"{how}: {self._last_line}" if self._last_line else how)


def _last_line(file: IO[bytes]) -> str:
    """The last line of a file, which is closed."""
    with file:
        file.seek(0)
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def forked(work: Callable[[Callable[[Any], None]], None]) -> Child:
    """A copy of this process that does `work(send)`, whose answers are what it sends, and ends."""
    parent, (reader, writer) = os.getpid(), Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        try:
            reader.close()
            faulthandler.disable()  # a crash is an answer too
            _end_with(parent)
            work(writer.send)
        finally:
            os._exit(0)
    writer.close()

    def poll() -> int | None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None

    return Child(reader, pid, poll)


def started(module: str, *handles: int) -> Child:
    """A new process of Python that runs a module, which takes what it needs by `parent()`: open files too."""
    here, there = Pipe()
    given, errors = (there.fileno(), *handles), tempfile.TemporaryFile()
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(os.getpid()), *map(str, given)], pass_fds=given, env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
    )  # fmt: skip
    there.close()
    return Child(here, process.pid, process.poll, errors)


def parent() -> tuple[Any, list[int]]:
    """In a process that was started: the connection to its parent, and the files that it was given."""
    pid, connection, *handles = (int(text) for text in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent decides
    _end_with(pid)
    return Connection(connection), handles


def _end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)
