"""Device times of calls on torch's current stream, in alternating blocks, and a limit on how long a block may take."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bench.machine import Clocks

BLOCKS = 7  # of runs of each, in turns
BLOCK_MS = 60.0  # of device time in one block, about
SPIN = 400_000  # cycles of the spin ahead of a run: about 0.2 ms
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


def clocked(fn: Call, runs: int) -> tuple[list[float], list[float]]:
    """Device ms of each run, and the MHz of the spin ahead of it: its cycles over its time, which is 2 % too long, as
    its launch is in it."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(3)] for _ in range(runs)]
    for before, start, end in events:
        before.record()
        torch.cuda._sleep(SPIN)
        start.record()
        fn()
        end.record()
        end.synchronize()
    ms = [start.elapsed_time(end) for _, start, end in events]
    return ms, [SPIN / before.elapsed_time(start) / 1e3 for before, start, _ in events]


def timed(fn: Call, runs: int) -> list[float]:
    """Device ms of each run."""
    return clocked(fn, runs)[0]


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
