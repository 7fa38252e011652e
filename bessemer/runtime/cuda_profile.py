"""How long every step of a program takes on the GPU, in its place.

A kernel timed alone between two events is timed wrongly: the events and the launch cost microseconds, and its operands
lie in other caches than in the real sequence. So windows of the sequence are timed, each as one captured graph, right
after the steps ahead of it ran: they leave its operands as they are in a run, in memory and in caches. The windows of a
chunk of steps begin LEAD steps ahead of it, where there are any, and end before, between and behind its steps. What a
step takes is the difference between the window that ends with it and the one before. Windows are short, so their times
spread by fractions of a microsecond where those of whole prefixes spread by tens.

Each round times all windows of a chunk, in turns; the median of the rounds counts, of which there are fewer than asked
for where the program is long. No step takes less than nothing: where noise says so, neighbours share their time. So the
steps of a graph add up to the graph, and its first step carries the launch of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bessemer.device.cuda_graph import Capture
from bessemer.runtime.cuda_context import CudaContext
from bessemer.runtime.cuda_state import State

CHUNK = 16  # steps whose windows begin together
LEAD = 4  # steps of a window ahead of its chunk: the launch of the graph and the cold start are theirs
SECONDS = 8.0  # that all rounds of a graph may take; one round is always taken
AHEAD_US = 60.0  # of work that is queued ahead of a window, so that its launch is not waited for


def step_times(context: CudaContext, state: State, runs: int) -> list[float]:
    """Device microseconds of every step at the state's shapes; 0 for host steps, branches, what is jumped over and what
    launches nothing."""
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
                for k, us in self._segment(first, last, path).items():
                    out[k] = us
                following = self._run([*path, position])
            path.append(position)
            position = following
        self.start.close()
        self.end.close()
        return out

    def _run(self, path: Sequence[int]) -> int:
        """Run these segments; the one that comes next."""
        following = 0
        for position in path:
            following = self.context.advance(position, self.state, self.stream)
        return following

    def _segment(self, first: int, last: int, path: Sequence[int]) -> dict[int, float]:
        """Microseconds of the steps of one graph that launch something."""
        steps = [k for k in range(first, last) if self._launches(k)]
        whole = self._captured(first, last)
        self._timed(whole, [], path)
        whole_us = max(self._timed(whole, [], path), 1.0)
        each = 0.5 * whole_us + AHEAD_US + 20.0  # a window waits for half of the steps on average, and for the host
        count = max(1, min(self.runs, int(SECONDS * 1e6 / (each * max(1, len(steps))))))
        out: dict[int, float] = {}
        for begin in range(0, len(steps), CHUNK):
            chunk = steps[begin : begin + CHUNK]
            lead = steps[max(0, begin - LEAD)]
            before = sum(us for k, us in out.items() if k < lead)
            ahead = [] if path else [whole] * -int((before - AHEAD_US) // whole_us)  # nothing else leads to this graph
            out |= zip(chunk, self._chunk(first, lead, chunk, count, ahead, path))
        if whole is not None:
            whole.close()
        return out

    def _launches(self, k: int) -> bool:
        launch = self.state.launches.get(k)
        return launch is None or all(launch.grid)

    def _chunk(
        self, first: int, lead: int, chunk: Sequence[int], count: int, ahead: Sequence[Capture | None],
        path: Sequence[int],
    ) -> list[float]:  # fmt: skip
        """Microseconds of each step of a chunk, whose windows begin at step `lead`."""
        before = self._captured(first, lead)
        windows = [self._captured(lead, end) for end in (chunk[0], *(k + 1 for k in chunk))]
        rounds = [[self._timed(w, [*ahead, before], path) for w in windows] for _ in range(count)]
        for graph in (before, *windows):
            if graph is not None:
                graph.close()
        return [float(us) for us in np.diff(monotone(np.median(rounds, axis=0)))]

    def _captured(self, first: int, last: int) -> Capture | None:
        """A graph of these steps, as they were launched before; None where there are none."""
        return self.context.captured(self.state, first, last) if last > first else None

    def _timed(self, graph: Capture | None, ahead: Sequence[Capture | None], path: Sequence[int]) -> float:
        """Device microseconds of a graph. What it reads is made first: the steps that lead to it run, `ahead` last."""
        self._run(path)
        for other in ahead:
            if other is not None:
                other.launch(self.stream)
        self.start.record(self.stream)
        if graph is not None:
            graph.launch(self.stream)
        self.end.record(self.stream)
        self.end.synchronize()
        return 1e3 * self.end.milliseconds_since(self.start)


def monotone(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The nearest values, by their squares, that never fall: neighbours that do are replaced by their mean."""
    blocks: list[tuple[float, int]] = []  # mean and number of values
    for value in values:
        mean, size = float(value), 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, size = (mean * size + other * more) / (size + more), size + more
        blocks.append((mean, size))
    return np.array([mean for mean, size in blocks for _ in range(size)])
