"""How long every step of a program takes on the GPU, in its place.

A kernel timed alone between two events is timed wrongly: the events and the launch cost microseconds, and its operands
lie in other caches than in the real sequence. So prefixes of the sequence are timed, each as one captured graph: steps
0 to k, right after a whole run. What step k takes is the difference between the prefix that ends with it and the one
before, taken within one round; the median of the rounds counts, of which there are fewer than asked for where the
program is long. So the steps of a graph add up to the graph, and its
first step carries the launch of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bessemer.device.cuda_graph import Capture
from bessemer.runtime.cuda_context import CudaContext, State

CHUNK = 32  # prefixes that are captured at a time
SECONDS = 10.0  # that all rounds of a graph may take; one round is always taken
AHEAD_MS = 0.06  # of work that is queued ahead of a timed prefix, so that its launch is not waited for


def step_times(context: CudaContext, state: State, runs: int) -> list[float]:
    """Device microseconds of every step at the state's shapes; 0 for host steps, branches and what is jumped over."""
    return _Profiler(context, state, runs).times()


class _Profiler:
    def __init__(self, context: CudaContext, state: State, runs: int) -> None:
        self.context, self.state, self.runs = context, state, runs
        self.stream = context.stream
        self.start, self.end = context.device.event(timing=True), context.device.event(timing=True)

    def times(self) -> list[float]:
        out = [0.0] * len(self.context.program.steps)
        path: list[int] = []  # the segments that lead to the current one
        position = 0
        while position < len(self.context.segments):
            kind, first, last = self.context.segments[position]
            following = self._run([position])
            if kind == "graph":
                out[first:last] = self._segment(first, last, path)
                following = self._run([*path, position])
            path.append(position)
            position = following
        return out

    def _run(self, path: Sequence[int]) -> int:
        """Run these segments; the one that comes next."""
        following = 0
        for position in path:
            following = self.context.advance(position, self.state, self.stream)
        return following

    def _segment(self, first: int, last: int, path: Sequence[int]) -> list[float]:
        """Microseconds of the steps of one graph."""
        whole = self._captured(first, last)
        self._timed(whole, None, path)
        whole_ms = max(self._timed(whole, None, path), 1e-3)
        ahead = math.ceil(AHEAD_MS / whole_ms)
        round_ms = (last - first) * (ahead + 0.5) * whole_ms  # a prefix takes half as long as the whole on average
        count = max(1, min(self.runs, int(SECONDS * 1e3 / round_ms)))
        times: list[float] = []
        for begin in range(first, last, CHUNK):
            ends = range(begin, min(last, begin + CHUNK) + 1)
            prefixes = [self._captured(first, end) for end in ends]
            rounds = [[self._timed(p, (whole, ahead), path) for p in prefixes] for _ in range(count)]
            times += [max(0.0, float(us)) for us in np.median(np.diff(rounds, axis=1), axis=0) * 1e3]
            for prefix in prefixes:
                if prefix is not None:
                    prefix.close()
        if whole is not None:
            whole.close()
        return times

    def _captured(self, first: int, last: int) -> Capture | None:
        """A graph of these steps, as they were launched before; None where there are none."""
        return self.context.captured(self.state, first, last) if last > first else None

    def _timed(self, graph: Capture | None, ahead: tuple[Capture | None, int] | None, path: Sequence[int]) -> float:
        """Device ms of a graph. What it reads is made first: steps overwrite what others have read. Nothing leads to
        the first graph, which reads inputs and weights alone; whole runs go ahead of it."""
        self._run(path)
        if not path and ahead is not None and ahead[0] is not None:
            for _ in range(ahead[1]):
                ahead[0].launch(self.stream)
        self.start.record(self.stream)
        if graph is not None:
            graph.launch(self.stream)
        self.end.record(self.stream)
        self.end.synchronize()
        return self.end.milliseconds_since(self.start)
