"""The times of steps as differences of windows, on a fake GPU whose clock adds up what its kernels cost."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bessemer.engine.program import Program, Step
from bessemer.runtime.cuda_context import CudaContext
from bessemer.runtime.cuda_profile import monotone, step_times

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
    """A point in time; whoever reads the clock reads it wrongly by up to half a microsecond."""

    noise = np.random.default_rng(5)

    def record(self, stream: FakeStream) -> None:
        self.at = stream.now

    def synchronize(self) -> None:
        pass

    def milliseconds_since(self, other: FakeEvent) -> float:
        return (self.at - other.at + float(self.noise.uniform(-0.5, 0.5))) / 1e3

    def close(self) -> None:
        pass


class FakeKernel:
    """A kernel that takes its time."""

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


def test_differences_of_windows_are_the_steps() -> None:
    costs = [float(c) for c in np.random.default_rng(0).integers(1, 20, 75)]
    context = _context(costs, _kernels(75))
    state = context.bind((), {})
    assert state is not None
    times = step_times(context, state, 25)
    assert times == pytest.approx([costs[0] + LAUNCH_US, *costs[1:]], abs=0.5)
    assert sum(times) == pytest.approx(sum(costs) + LAUNCH_US, rel=0.02)


def test_many_short_steps_add_up_to_the_whole() -> None:
    context = _context([0.2] * 800, _kernels(800))
    state = context.bind((), {})
    assert state is not None
    times = step_times(context, state, 5)
    assert min(times) >= 0 and sum(times) == pytest.approx(160 + LAUNCH_US, rel=0.1)


def test_a_step_that_launches_nothing_takes_no_time() -> None:
    steps = [Step("kernel", f"k{n}", kernel=n, grid=(n % 3,)) for n in range(60)]
    context = _context([5.0] * 60, steps)
    state = context.bind((), {})
    assert state is not None
    times = step_times(context, state, 9)
    assert all(us == 0 for us in times[::3]) and min(times[1::3]) > 4 and min(times[2::3]) > 4


def test_times_that_fall_share_what_they_took() -> None:
    np.testing.assert_array_equal(monotone([1, 2, 4]), [1, 2, 4])
    np.testing.assert_array_equal(monotone([1, 5, 3, 9]), [1, 4, 4, 9])
    np.testing.assert_array_equal(monotone([6, 5, 1]), [4, 4, 4])


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
    assert times == pytest.approx([3.0 + LAUNCH_US, 0.0, 5.0 + LAUNCH_US, 7.0], abs=1.0)
    assert len(runs) == 1 + 2 + 4 * 3 + 1  # on the way there, the whole twice, three prefixes in four rounds, the end
