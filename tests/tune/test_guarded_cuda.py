"""What the process that measures kernels asks of them, with a device that keeps its memory here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.kernels.base import Ptr
from bessemer.tune.guarded_cuda import Rig
from bessemer.tune.shared import Shared
from bessemer.tune.trial import Setup, Shot, Trial, Turn

Body = Callable[[int, int], None]  # of the addresses of the operand and of the output
COUNT = 64


class Device:
    """Its kernels are Python functions, and captured ones run when their graph is launched."""

    info = SimpleNamespace(l2_bytes=1 << 10)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.captured: list[Callable[[], None]] | None = None

    def alloc(self, nbytes: int) -> int:
        block = ctypes.create_string_buffer(nbytes + 1)
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.memory[address]

    def fill(self, target: int, byte: int, nbytes: int, stream: object = None) -> None:
        ctypes.memset(target, byte, nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        ctypes.memmove(target, source, nbytes)

    upload = download = copy

    def synchronize(self) -> None:
        pass

    def event(self, timing: bool) -> SimpleNamespace:
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        return SimpleNamespace(record=nothing, synchronize=nothing, milliseconds_since=lambda other: 0.1)

    def stream(self) -> SimpleNamespace:
        @contextmanager
        def capture() -> Iterator[SimpleNamespace]:
            queued = self.captured = list[Callable[[], None]]()
            yield SimpleNamespace(launch=lambda stream: [run() for run in queued], close=lambda: None)
            self.captured = None

        return SimpleNamespace(capture=capture, synchronize=lambda: None)

    def load(self, body: Body) -> SimpleNamespace:
        def launch(grid: object, args: SimpleNamespace, stream: object) -> None:
            if self.captured is None:
                body(*args.values)
            else:
                self.captured.append(lambda: body(*args.values))

        kernel = SimpleNamespace(
            arguments=lambda values: SimpleNamespace(values=values), scratch_bytes=lambda grid: [], launch=launch
        )
        return SimpleNamespace(kernel=lambda symbol, abi: kernel, close=lambda: None)


def test_what_gives_other_results_when_it_runs_again_is_dropped() -> None:
    runs = 0

    def right(x: int, y: int) -> None:
        ctypes.memmove(y, x, 4 * COUNT)

    def right_at_first(x: int, y: int) -> None:
        nonlocal runs
        runs += 1
        right(x, y)
        if runs > 20:
            ctypes.memset(y, 7, 1)

    shared, x = Shared(), np.arange(COUNT, dtype=np.float32)
    operand, output = shared.put(x), shared.room(x.nbytes)
    rig, turns = Rig(Device(), shared), list[Turn]()  # type: ignore[arg-type]
    rig.setup(Setup((operand,), frozenset(), (output,), 0, 0))
    for number, body in enumerate((right, right_at_first, right)):
        shot = Shot(body, "k", {}, (1,), (Ptr(0), Ptr(1)))  # type: ignore[arg-type]
        assert rig.trial(Trial(number, (shot,), {}, (dt.f32, dt.f32), 0)) is None
        assert shared.bytes(output).view(np.float32).tolist() == x.tolist()
    answer = rig.race(turns.append)
    assert answer.failed == {1: "gave other results when it was run again"} and set(answer.us) == {0, 2}
    assert [t.number for t in turns].count(1) == 1 and runs == 21
    shared.close()


def test_what_another_candidate_left_beside_the_columns_that_one_writes_does_not_count() -> None:
    def columns(x: int, y: int) -> None:
        ctypes.memmove(y, x, 2 * COUNT)

    def everything(x: int, y: int) -> None:
        ctypes.memset(y, 7, 4 * COUNT)

    shared, x = Shared(), np.arange(COUNT, dtype=np.float32)
    operand, output = shared.put(x), shared.room(x.nbytes)
    rig = Rig(Device(), shared)  # type: ignore[arg-type]
    rig.setup(Setup((operand,), frozenset(), (output,), 0, 0))
    for number, body in enumerate((columns, everything)):
        shot = Shot(body, "k", {}, (1,), (Ptr(0), Ptr(1)))  # type: ignore[arg-type]
        assert rig.trial(Trial(number, (shot,), {}, (dt.f32, dt.f32), 0)) is None
    answer = rig.race(lambda turn: None)
    assert answer.failed == {} and set(answer.us) == {0, 1}
    shared.close()
