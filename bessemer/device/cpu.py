"""The CPU as a device: shared objects loaded from memory, aligned blocks, and the native step table.

    library = Library(blob)                     # the engine's shared object
    table = StepTable(library, steps, kernels, n_pointers, n_integers, threads=2)
    table.pointers[3] = address                 # numpy views of what the interpreter reads: patch them between runs
    table.integers[:] = values
    table.run()                                 # one C call; the GIL is released
"""

from __future__ import annotations

import _ctypes
import ctypes
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from bessemer.core.errors import DeviceError

ALIGN = 64
SPINS = 20_000  # of a waiting worker before it sleeps: some tens of microseconds
KERNEL, HOST, COPY, BRANCH, JUMP = range(5)

HostCallback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


class _Step(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("kind", "kernel", "pointer", "integer", "items", "target", "serial")]


class _Table(ctypes.Structure):
    _fields_ = [
        ("steps", ctypes.c_void_p), ("pointers", ctypes.c_void_p), ("integers", ctypes.c_void_p),
        ("kernels", ctypes.c_void_p), ("host", HostCallback), ("nanoseconds", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class NativeStep:
    """One step of the table; see interp.c for what each kind reads."""

    kind: int
    kernel: int = 0
    pointer: int = 0
    integer: int = 0
    items: int = 0
    target: int = 0
    serial: bool = False


class Library:
    """A shared object loaded from bytes; DeviceError where the system refuses it."""

    def __init__(self, blob: bytes | memoryview) -> None:
        self._path: Path | None = None
        try:
            self._library = ctypes.CDLL(self._materialise(blob))
        except OSError as error:
            raise DeviceError(
                f"the engine's native code cannot be loaded: {error}",
                fix="if this system forbids executable memory files, set TMPDIR to a folder that allows execution",
            ) from error
        finally:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        self._declare()

    def __del__(self) -> None:
        """Unload, but not at the end of the process, when threads may still be in it. The descriptor stays open until
        here: the loader knows objects by path, and that is its number."""
        if sys.is_finalizing():
            return
        if getattr(self, "_library", None) is not None:
            _ctypes.dlclose(self._library._handle)
        if getattr(self, "_handle", -1) >= 0:
            os.close(self._handle)

    def address(self, symbol: str) -> int:
        """The address of a function; DeviceError where the object has none of that name."""
        try:
            found = ctypes.cast(getattr(self._library, symbol), ctypes.c_void_p).value
        except AttributeError:
            raise DeviceError(f"the engine's native code has no function {symbol!r}") from None
        assert found is not None
        return found

    def _materialise(self, blob: bytes | memoryview) -> str:
        self._handle = -1
        if hasattr(os, "memfd_create"):
            self._handle = os.memfd_create("bessemer", os.MFD_CLOEXEC)
            with os.fdopen(os.dup(self._handle), "wb") as file:
                file.write(blob)
            return f"/proc/self/fd/{self._handle}"
        import tempfile  # seldom needed, and it brings a tenth of what the runtime may take to be imported

        handle, name = tempfile.mkstemp(suffix=".so")
        self._path = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        return name

    def _declare(self) -> None:
        c = self._library
        c.bsm_pool_create.restype, c.bsm_pool_create.argtypes = ctypes.c_void_p, [ctypes.c_int64, ctypes.c_int64]
        c.bsm_pool_destroy.restype, c.bsm_pool_destroy.argtypes = None, [ctypes.c_void_p]
        c.bsm_run.restype = ctypes.c_int64
        c.bsm_run.argtypes = [ctypes.POINTER(_Table), ctypes.c_int64, ctypes.c_int64]
        self.run, self.pool_create = c.bsm_run, c.bsm_pool_create
        self.pool_destroy = c.bsm_pool_destroy


class StepTable:
    """Steps ready to run, with a pool of their own. Not for two threads at once: each context has one."""

    def __init__(
        self, library: Library, steps: Sequence[NativeStep], kernels: Sequence[str], n_pointers: int, n_integers: int,
        threads: int, host: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        self.library, self.n_steps = library, len(steps)
        self.pointers = np.zeros(max(1, n_pointers), np.uint64)
        self.integers = np.zeros(max(1, n_integers), np.int64)
        self.nanoseconds = np.zeros(max(1, len(steps)), np.int64)
        self._steps = (_Step * max(1, len(steps)))(*(_native(s) for s in steps))
        self._kernels = np.array([library.address(k) for k in kernels] or [0], np.uint64)
        self._host = HostCallback(host or (lambda step: 1))
        pool = library.pool_create(threads, SPINS)
        if not pool:
            raise DeviceError("the thread pool could not be created", fix="use fewer threads")
        self._end = finalize(self, _end, library.pool_destroy, pool, os.getpid())  # runs before any __del__ of garbage
        self._end.atexit = False
        self._table = _Table(
            ctypes.addressof(self._steps), self.pointers.ctypes.data, self.integers.ctypes.data,
            self._kernels.ctypes.data, self._host, None, pool,
        )  # fmt: skip
        self._reference = ctypes.byref(self._table)
        self.keep: object = None  # what the addresses in the table belong to, if nobody else keeps it

    def run(self, first: int = 0, last: int | None = None) -> int:
        """Run the steps [first, last); 0, or what a host step returned when it failed."""
        return int(self.library.run(self._reference, first, self.n_steps if last is None else last))

    def timed(self, on: bool) -> None:
        """Whether runs add each step's time to `nanoseconds`."""
        self._table.nanoseconds = self.nanoseconds.ctypes.data if on else None

    def single(self) -> None:
        """Run without workers from now on: for a forked child, which has none of its parent's threads."""
        self._table.pool = self.library.pool_create(1, 0)

    def close(self) -> None:
        """End the pool's threads."""
        self._end()


def _end(destroy: Callable[[int], None], pool: int, process: int) -> None:
    """Not in a forked child, which has none of its parent's threads to wait for."""
    if os.getpid() == process:
        destroy(pool)


def _native(s: NativeStep) -> _Step:
    return _Step(s.kind, s.kernel, s.pointer, s.integer, s.items, s.target, int(s.serial))


def empty_array(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """An uninitialised array; DeviceError where memory is too short."""
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):  # numpy calls what no machine could hold a ValueError
        raise DeviceError(
            f"{math.prod(shape) * dtype.itemsize} bytes of memory could not be allocated",
            fix="free memory, run a smaller batch, or build with a smaller profile",
        ) from None


def aligned_block(nbytes: int) -> np.ndarray:
    """An uninitialised uint8 array of `nbytes` at a 64-byte boundary; DeviceError where memory is too short."""
    raw = empty_array((nbytes + ALIGN,), np.dtype(np.uint8))
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes]
