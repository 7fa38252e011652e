"""Device times of calls on torch's current stream, in alternating blocks, and a limit on how long a block may take."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bench.machine import Clocks

BLOCKS = 7  # of runs of each, in turns
BLOCK_MS = 60.0  # of device time in one block, about
SPIN = 400_000  # cycles of the spin ahead of a run: about 0.2 ms
SPINS = tuple(k * SPIN for k in (1, 2, 4, 4, 4))  # ahead of a run that was queued too late again and again
LONGEST_SPIN = max(SPINS)
AHEAD = 16  # runs that are queued while one runs, where they follow each other
SETTLE_S = 4.0  # at the power limit the clock falls for two seconds, swings once, and then keeps its range
Call = Callable[[], Any]


class OutOfTime(BaseException):
    """The limit of a block ended. Not an Exception: compilers that catch those must not swallow it."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after that time."""

    def late(number: int, frame: object) -> None:
        raise OutOfTime

    previous = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class _Clock:
    """Three events: before a spin, between it and a run, and behind that."""

    def __init__(self, fn: Call) -> None:
        self.fn = fn
        self.before, self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(3))

    def run(self, spin: int) -> bool:
        """One run behind a spin of so many cycles; whether all of it was queued before the spin was over."""
        self.before.record()
        torch.cuda._sleep(spin)
        self.start.record()
        self.fn()
        self.end.record()
        early = not self.start.query()
        self.end.synchronize()
        return early


def clocked(fn: Call, runs: int) -> tuple[list[float], list[float]]:
    """Device ms of each run, and the MHz of the spin ahead of it: its cycles over its time, which is 2 % too long, as
    its launch is in it.

    A run that was not queued before its spin was over has its launch in its time: it is timed again, behind a longer
    spin. Not so where the longest is never long enough, as for torch without a graph; a first run alone does not tell,
    as it may capture a graph."""
    clock, ms, mhz = _Clock(fn), [], []
    spins = SPINS if any(clock.run(LONGEST_SPIN) for _ in SPINS) else SPINS[:1]
    for _ in range(runs):
        for spin in spins:
            if clock.run(spin):
                break
        ms.append(clock.start.elapsed_time(clock.end))
        mhz.append(spin / clock.before.elapsed_time(clock.start) / 1e3)
    return ms, mhz


def timed(fn: Call, runs: int) -> list[float]:
    """Device ms of each run."""
    return clocked(fn, runs)[0]


def chained(fn: Call, runs: int) -> tuple[list[float], int]:
    """Device ms of runs that follow each other without a gap, from the end of one to the end of the next, as under full
    load; and how many had a gap ahead of them after all, as the host queued them late."""
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    torch.cuda._sleep(LONGEST_SPIN)
    fn()
    ends[0].record()
    late = 0
    for k in range(runs):
        fn()
        late += ends[k].query()
        ends[k + 1].record()
        if k >= AHEAD:
            ends[k - AHEAD].synchronize()
    ends[runs].synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(ends)], late


def settle(fn: Call) -> None:
    """Run for a while, so that the GPU has the clock that it keeps under this load."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        timed(fn, 10)


def queued(fn: Call, runs: int) -> list[float]:
    """Host ms that each run takes to queue, while the device is busy: in a plain loop a small model takes no less."""
    ms = []
    for _ in range(runs):
        torch.cuda._sleep(LONGEST_SPIN)
        began = time.perf_counter()
        fn()
        ms.append((time.perf_counter() - began) * 1e3)
        torch.cuda.current_stream().synchronize()
    return ms


def summary(ms: list[float]) -> dict[str, float]:
    """Median, 99th percentile and least."""
    return {"median": float(np.median(ms)), "p99": float(np.percentile(ms, 99)), "min": min(ms), "runs": len(ms)}


def in_turns(calls: Mapping[str, Call], clocks: Clocks | None) -> dict[str, list[list[float]]]:
    """Blocks of times of each call, one block of each after the other."""
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    runs = {}
    for name, fn in calls.items():
        fn()
        runs[name] = max(5, min(200, int(BLOCK_MS / float(np.median(timed(fn, 5))))))
    for _ in range(BLOCKS):
        for name, fn in calls.items():
            times[name].append(timed(fn, runs[name]))
            if clocks is not None:
                for _ in range(-(-runs[name] // 10)):
                    fn()
                clocks.sample()  # while those run
    return times
