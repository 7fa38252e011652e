"""The step interpreter and its thread pool, through hand-written kernels."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from weakref import finalize

import numpy as np
import pytest

from bessemer.core.errors import DeviceError
from bessemer.device.cpu import ALIGN, BRANCH, COPY, HOST, JUMP, KERNEL, Library, NativeStep, StepTable, aligned_block
from bessemer.kernels.base import KernelCode, Launch, Problem
from bessemer.targets.cpu import cpu_target

PROBLEM = Problem("test", (), ())
TEXT = """#include <stdint.h>
void add(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    int64_t *out = p[0];
    for (int64_t i = begin; i < end; i++) out[i] += d[0];
}
void who(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    int64_t *out = p[0];
    for (int64_t i = begin; i < end; i++) {
        for (volatile int64_t k = 0; k < d[0]; k++) {}
        out[i] = thread;
    }
}
"""
CODE = KernelCode("c", TEXT, (Launch("add", (1,), ()), Launch("who", (1,), ())))


@pytest.fixture(scope="module")
def linked() -> tuple[Library, list[str]]:
    found = cpu_target("scalar", 1).link([(PROBLEM, CODE)])
    return Library(found.blobs[0]), [found.placement(PROBLEM, CODE, launch).symbol for launch in CODE.launches]


Host = Callable[[int], int]


def table(
    linked: tuple[Library, list[str]], steps: list[NativeStep], threads: int = 1, host: Host | None = None
) -> StepTable:
    library, symbols = linked
    return StepTable(library, steps, symbols, 8, 8, threads, host)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_item_is_done_once(linked: tuple[Library, list[str]], threads: int) -> None:
    out = np.zeros(1001, np.int64)
    t = table(linked, [NativeStep(KERNEL, 0, 0, 0, 1)], threads)
    t.pointers[0], t.integers[:2] = out.ctypes.data, (3, len(out))
    for _ in range(500):
        assert t.run() == 0
    assert (out == 1500).all()
    t.integers[:2] = 1, 7  # patched between runs
    t.run()
    assert (out[:7] == 1501).all() and (out[7:] == 1500).all()
    t.close()


def test_work_is_shared_and_threads_are_numbered(linked: tuple[Library, list[str]]) -> None:
    out = np.full(64, -1, np.int64)
    t = table(linked, [NativeStep(KERNEL, 1, 0, 0, 1), NativeStep(KERNEL, 1, 0, 0, 1, serial=True)], 2)
    t.pointers[0], t.integers[:2] = out.ctypes.data, (2_000_000, len(out))
    t.run(0, 1)
    assert set(out) == {0, 1}
    t.integers[0] = 10
    t.run(1, 2)
    assert set(out) == {0}
    t.close()


def test_sleeping_workers_wake_up(linked: tuple[Library, list[str]]) -> None:
    out = np.zeros(64, np.int64)
    t = table(linked, [NativeStep(KERNEL, 0, 0, 0, 1)], 3)
    t.pointers[0], t.integers[:2] = out.ctypes.data, (1, len(out))
    for _ in range(20):
        t.run()
        time.sleep(0.01)
    assert (out == 20).all()
    t.close()


def test_contexts_run_side_by_side(linked: tuple[Library, list[str]]) -> None:
    outs = [np.zeros(4096, np.int64) for _ in range(4)]
    tables = [table(linked, [NativeStep(KERNEL, 0, 0, 0, 1)] * 3, 2) for _ in outs]
    for t, out in zip(tables, outs):
        t.pointers[0], t.integers[:2] = out.ctypes.data, (1, len(out))
    threads = [threading.Thread(target=lambda t=t: [t.run() for _ in range(200)]) for t in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((out == 600).all() for out in outs)
    for t in tables:
        t.close()


def test_branches_jumps_copies_and_host_steps(linked: tuple[Library, list[str]]) -> None:
    condition, source, target = np.zeros(1, np.bool_), np.arange(5), np.zeros(5, np.int64)
    calls: list[int] = []

    def host(step: int) -> int:
        calls.append(step)
        return 7 if step == 4 and len(calls) > 3 else 0

    steps = [
        NativeStep(BRANCH, pointer=0, target=3), NativeStep(COPY, pointer=1, integer=0), NativeStep(JUMP, target=4),
        NativeStep(HOST), NativeStep(HOST),
    ]  # fmt: skip
    t = table(linked, steps, 1, host)
    t.pointers[:3] = condition.ctypes.data, target.ctypes.data, source.ctypes.data
    t.integers[0] = source.nbytes
    assert t.run() == 0 and calls == [3, 4] and not target.any()
    condition[0] = True
    assert t.run() == 0 and calls == [3, 4, 4] and (target == source).all()
    assert t.run() == 7, "what a failing host step returns ends the run"
    t.close()


def test_times_of_steps(linked: tuple[Library, list[str]]) -> None:
    out = np.zeros(8, np.int64)
    t = table(linked, [NativeStep(KERNEL, 1, 0, 0, 1), NativeStep(KERNEL, 1, 0, 2, 3)])
    t.pointers[0], t.integers[:4] = out.ctypes.data, (100_000, 8, 1, 1)
    t.run()
    assert not t.nanoseconds.any()
    t.timed(True)
    t.run()
    assert t.nanoseconds[0] > t.nanoseconds[1] > 0
    t.close()


def test_unknown_symbols_and_bad_objects(linked: tuple[Library, list[str]]) -> None:
    with pytest.raises(DeviceError, match="no function 'nothing'"):
        linked[0].address("nothing")
    with pytest.raises(DeviceError, match="cannot be loaded"):
        Library(b"this is no shared object")


def test_garbage_of_a_library_and_its_tables_ends_their_threads_first() -> None:
    found = cpu_target("scalar", 1).link([(PROBLEM, CODE)])
    symbols = [found.placement(PROBLEM, CODE, launch).symbol for launch in CODE.launches]
    for first in (True, False):
        garbage: list[object] = [Library(found.blobs[0])]
        tables = [table((garbage[0], symbols), [], 3) for _ in range(4)]  # type: ignore[arg-type]
        garbage += [garbage, *tables] if first else [*tables, garbage]
        freed: list[int] = []
        for part in tables:
            finalize(part, freed.append, 1)
        del garbage, tables, part
        gc.collect()
        assert len(freed) == 4


def test_blocks_are_aligned() -> None:
    for nbytes in (1, 63, 64, 1000):
        block = aligned_block(nbytes)
        assert block.nbytes == nbytes and block.ctypes.data % ALIGN == 0
    assert aligned_block(0).nbytes == 0
    with pytest.raises(DeviceError, match="could not be allocated"):
        aligned_block(1 << 60)
