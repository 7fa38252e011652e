"""The times of steps as differences of prefixes, on a fake GPU whose clock adds up what its kernels cost."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bessemer.engine.program import Program, Step
from bessemer.runtime.cuda_context import CudaContext
from bessemer.runtime.cuda_profile import step_times

LAUNCH_US = 4.0  # of a graph


class FakeStream:
    """A stream with a clock; while it records, kernels go into the graph."""

    def __init__(self) -> None:
        self.now = 0.0
        self.recording: FakeGraph | None = None

    def capture(self) -> FakeGraph:
        return FakeGraph(self)

    def synchronize(self) -> None:
        pass


class FakeGraph:
    def __init__(self, stream: FakeStream) -> None:
        self.stream, self.closed = stream, False
        self.costs: list[float] = []

    def __enter__(self) -> FakeGraph:
        self.stream.recording = self
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.recording = None

    def launch(self, stream: FakeStream) -> None:
        assert not self.closed
        stream.now += LAUNCH_US + sum(self.costs)

    def upload(self, stream: FakeStream) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class FakeEvent:
    def record(self, stream: FakeStream) -> None:
        self.at = stream.now

    def synchronize(self) -> None:
        pass

    def milliseconds_since(self, other: FakeEvent) -> float:
        return (self.at - other.at) / 1e3


class FakeKernel:
    """A kernel that takes its time, and more in some runs: what noise is."""

    def __init__(self, us: float) -> None:
        self.us = us

    def arguments(self, values: Sequence[int]) -> list[int]:
        return list(values)

    def scratch_bytes(self, grid: Sequence[int]) -> list[int]:
        return []

    def launch(self, grid: Sequence[int], args: Any, stream: FakeStream) -> None:
        if stream.recording is not None:
            stream.recording.costs.append(self.us)
        else:
            stream.now += self.us


def _context(costs: Sequence[float], steps: Sequence[Step], host: Any = None) -> CudaContext:
    program = Program("p", (), (), (), tuple(steps), (), {}, 0, 0, 0)
    stream = FakeStream()
    device = SimpleNamespace(
        activate=lambda: None, stream=lambda: stream, alloc=lambda n: 4096, event=lambda timing: FakeEvent(),
        synchronize=lambda: None,
    )  # fmt: skip
    shared = SimpleNamespace(program=program, device=device, kernels=[FakeKernel(us) for us in costs], hosts=host or {})
    return CudaContext(shared)  # type: ignore[arg-type]


def _kernels(count: int) -> list[Step]:
    return [Step("kernel", f"k{n}", kernel=n, grid=(1,)) for n in range(count)]


def test_differences_of_prefixes_are_the_steps() -> None:
    costs = [float(c) for c in np.random.default_rng(0).integers(1, 20, 75)]
    context = _context(costs, _kernels(75))
    state = context.bind((), {})
    assert state is not None
    times = step_times(context, state, 5)
    assert times == pytest.approx([costs[0] + LAUNCH_US, *costs[1:]])
    assert sum(times) == pytest.approx(sum(costs) + LAUNCH_US)


def test_what_leads_to_a_later_graph_is_run_before_each_time() -> None:
    runs: list[int] = []

    def count(values: object, env: object) -> list[np.ndarray]:
        runs.append(1)
        return []

    host = {1: SimpleNamespace(run=count)}
    steps = [Step("kernel", "a", kernel=0, grid=(1,)), Step("host", "h"), Step("kernel", "b", kernel=1, grid=(1,)),
             Step("kernel", "c", kernel=2, grid=(1,))]  # fmt: skip
    context = _context([3.0, 5.0, 7.0], steps, host)
    state = context.bind((), {})
    assert state is not None
    times = step_times(context, state, 4)
    assert times == pytest.approx([3.0 + LAUNCH_US, 0.0, 5.0 + LAUNCH_US, 7.0])
    assert len(runs) == 1 + 2 + 4 * 3 + 1  # on the way there, the whole twice, three prefixes in four rounds, the end
