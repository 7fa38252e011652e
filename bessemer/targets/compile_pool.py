"""A pool of compiler processes, and the folder where compiled kernels are kept.

A kernel is compiled once for all builds: its key is the hash of everything that decides its bytes. A process that
crashes or exceeds the time limit is ended and replaced, and costs only the kernel that it was at.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.core import canon
from bessemer.core.errors import CompilerError
from bessemer.core.process import environment
from bessemer.core.processors import processors
from bessemer.targets import nvrtc_compile, triton_compile
from bessemer.targets.base import cache_folder, no_room

TIMEOUT = 180.0  # seconds for one kernel
WORKERS = 16  # processes at most, of up to half a gigabyte each
FORMAT = 3  # of the stored results; raise it with any change of compile_worker and what it calls


@dataclass(frozen=True)
class Job:
    """One kernel to compile: everything that decides the bytes, and how it is launched.

    `types` are those of the arguments that are not constants, in order ("*fp16", "i32"), `divisors` powers of two
    known to divide them (pointers: their alignment in bytes). A CUDA kernel's text has its constants in it."""

    text: str
    entry: str
    arch: str
    types: tuple[str, ...]
    divisors: tuple[int, ...]
    constants: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]
    language: str = "triton"

    def payload(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "text": self.text, "entry": self.entry, "arch": self.arch, "types": list(self.types),
            "divisors": list(self.divisors), "constants": dict(self.constants), "options": dict(self.options),
            "language": self.language,
        }  # fmt: skip

    @property
    def key(self) -> str:
        """The hash of the job, of the compiler's version and of the format of results."""
        return canon.digest([FORMAT, compiler_version(self.language), self.payload()])


def compiler_version(language: str) -> str:
    """The version of the compiler of a kernel language; CompilerError where it is not installed."""
    if language == "triton":
        return triton_compile.version()
    found = nvrtc_compile.version()
    if found is None:
        raise CompilerError(
            "NVRTC, the compiler of CUDA C++ kernels, is not installed", fix="pip install 'bessemer[cuda]'"
        )
    return found


class _Process:
    """One compiler process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bessemer.targets.compile_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment(),
        )  # fmt: skip

    def answer(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The process's answer; {"error": ...} where it dies or is too slow, and then it is gone."""
        assert self.process.stdin is not None and self.process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        alarm = threading.Timer(timeout, stop)
        alarm.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        code = self.process.wait()
        died = f"the compiler died (exit code {code})"
        return {"error": f"took more than {timeout:.0f} s" if late.is_set() else died}

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()


_idle: list[_Process] = []  # kept for the next call: starting one takes half a second


def _take() -> _Process:
    """An idle process, or a new one."""
    while True:
        try:
            process = _idle.pop()
        except IndexError:
            return _Process()
        if process.alive:
            return process
        process.close()


@atexit.register
def close_idle() -> None:
    """End the processes that wait for work."""
    while _idle:
        _idle.pop().close()


def compile_all(
    jobs: Sequence[Job], *, workers: int | None = None, timeout: float = TIMEOUT, folder: Path | None = None,
    done: Callable[[int, int], None] | None = None, seconds: float | None = None,
) -> list[tuple[bytes, dict[str, Any]] | str | None]:  # fmt: skip
    """For each job its cubin and launch ABI, or the compiler's error text. Equal jobs are compiled once.

    At most `workers` processes (by default as many as there are cores, and no more than WORKERS) share the jobs that
    `folder` does not hold, the first ones first. `done(finished, all)` is called as they finish. After `seconds` what
    is still being compiled is given up; such jobs, and those that nobody began, are None. BuildError where `folder`
    cannot be written."""
    where = folder or cache_folder("cubins")
    end = float("inf") if seconds is None else time.monotonic() + seconds
    missing = {job.key: job for job in jobs if _stored(where, job.key) is None}
    errors: dict[str, str | None] = dict.fromkeys(missing) if seconds is not None else {}
    work: queue.SimpleQueue[tuple[str, Job]] = queue.SimpleQueue()
    for item in missing.items():
        work.put(item)
    finished = [0]
    full: list[str] = []
    broken: list[BaseException] = []

    def run() -> None:
        process: _Process | None = None
        try:
            while (left := end - time.monotonic()) > 0 and not full and not broken:
                key, job = work.get_nowait()
                process = process or _take()
                found = process.answer({**job.payload(), "out": str(where / key[:2] / key)}, min(timeout, left))
                if "room" in found:
                    full.append(found["room"])
                if "error" in found and time.monotonic() < end:
                    errors[key] = found["error"]
                if not process.alive:
                    process.close()
                    process = None
                finished[0] += 1
                if done is not None:
                    done(finished[0], len(missing))
        except queue.Empty:
            pass
        except BaseException as error:  # what a thread raises is lost, and its jobs would seem to have failed
            broken.append(error)
        if process is not None and broken:
            process.close()
        elif process is not None:
            _idle.append(process)

    count = min(workers or min(WORKERS, processors()), len(missing))
    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if full:
        raise no_room(where, full[0])
    for error in broken:
        if isinstance(error, OSError):
            raise CompilerError(
                f"a compiler process does not start: {error}", fix="free memory, or end other processes"
            ) from error
        raise error
    return [_stored(where, job.key) or errors.get(job.key, "the compiler left no result") for job in jobs]


def _stored(folder: Path, key: str) -> tuple[bytes, dict[str, Any]] | None:
    """A kept result; None where there is none, or where it was damaged."""
    path = folder / key[:2] / key
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        cubin = path.with_suffix(".cubin").read_bytes()
        return (cubin, record["abi"]) if record["sha256"] == canon.digest(cubin) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
