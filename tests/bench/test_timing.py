"""What counts as a run's device time, with a GPU and a host whose clocks are numbers here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from bench import timing  # noqa: E402

RUN_US, CALL_US, SPIN_US = 146.0, 2.0, 200.0


class Machine:
    """The host's time, and when the GPU is done with all that was queued, both in microseconds."""

    host = free = 0.0

    def queue(self, us: float) -> float:
        self.host += CALL_US
        self.free = max(self.free, self.host) + us
        return self.free


def events(machine: Machine) -> type:
    class Event:
        at = 0.0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = machine.queue(0.0)

        def query(self) -> bool:
            return self.at <= machine.host

        def synchronize(self) -> None:
            machine.host = max(machine.host, self.at)

        def elapsed_time(self, other: Event) -> float:
            return (other.at - self.at) / 1e3

    return Event


def queued_by(monkeypatch: pytest.MonkeyPatch, host_us: Iterable[float]) -> Callable[[], None]:
    """A run that takes the host so long to queue, one time after the other."""
    machine, late = Machine(), iter(host_us)
    monkeypatch.setattr(torch.cuda, "Event", events(machine))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: machine.queue(cycles * SPIN_US / timing.SPIN))

    def fn() -> None:
        machine.host += next(late)
        machine.queue(RUN_US)

    return fn


def measured(monkeypatch: pytest.MonkeyPatch, host_us: Iterable[float], runs: int) -> tuple[list[float], int]:
    """Times of runs that take the host so long to queue, and how many there were."""
    times = list(host_us)
    left = iter(times)
    ms = timing.timed(queued_by(monkeypatch, left), runs)
    return ms, len(times) - len(list(left))


def test_a_run_that_was_queued_too_late_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ms, count = measured(monkeypatch, [50, 50, 900, 50, 250, 50, 50], 4)
    assert ms == pytest.approx([RUN_US / 1e3] * 4) and count == 7


def test_what_is_never_queued_in_time_is_timed_with_its_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    ms, count = measured(monkeypatch, [3000] * 8, 3)
    assert min(ms) > 2.9 and count == 8


def test_a_first_run_that_takes_long_to_queue_does_not_count_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ms, count = measured(monkeypatch, [50_000, 50, 900, 900, 900, 900, 50, 50], 2)
    assert ms == pytest.approx([RUN_US / 1e3] * 2) and count == 8


def test_runs_that_follow_each_other_have_no_gaps_and_those_queued_late_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ms, late = timing.chained(queued_by(monkeypatch, [50] * 41), 40)
    assert ms == pytest.approx([RUN_US / 1e3] * 40) and late == 0
    ms, late = timing.chained(queued_by(monkeypatch, [50] * 30 + [9000] + [50] * 10), 40)
    assert ms[:29] == pytest.approx([RUN_US / 1e3] * 29) and late == 1
    assert 6 < ms[29] < 9 and ms[30:] == pytest.approx([RUN_US / 1e3] * 10)


def test_what_the_host_takes_to_queue_a_run_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asleep = [0.0], [0]

    def fn() -> None:
        now[0] += 50e-6

    def sleep(cycles: int) -> None:
        asleep[0] += cycles

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "_sleep", sleep)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(synchronize=lambda: None))
    assert timing.queued(fn, 3) == pytest.approx([0.05] * 3) and asleep == [3 * timing.LONGEST_SPIN]
