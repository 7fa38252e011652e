"""The candidates of one problem on the GPU, over shared operands and outputs with poison around them.

A process of its own (`python -m bessemer.tune.guarded_cuda`), which measure_cuda starts and asks: a kernel that faults
ends the context of its process, and one that hangs never gives it back.

A candidate is captured many times over into one CUDA graph, so that launch gaps do not hide what it costs, and gives
the same bits at its end as when it ran alone. Candidates are timed in turns, and the least mean of the rounds counts.
In a network constants come from memory, as all others were read since the last run, while what a kernel ahead wrote is
still in the L2 cache. So every launch of a graph has its own copy of the constants, or one that was not read for long,
and the cache is emptied ahead of the graph.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bessemer.core.dtype import DType
from bessemer.core.errors import DeviceError
from bessemer.device.cuda import Device
from bessemer.device.cuda_graph import Capture
from bessemer.device.cuda_kernel import Arguments, Kernel
from bessemer.device.tensor_map import EncodedMap
from bessemer.kernels.base import COUNTERS, WORKSPACE, Arg, Int, Map
from bessemer.tune.child import parent
from bessemer.tune.shared import Piece, Shared
from bessemer.tune.trial import POISON, Answer, Drop, Race, Setup, Shot, Trial, Turn

GUARD = 4096  # bytes of poison around every output and after the workspace
ALIGN = 256
REPEATS = 20  # launches in one graph
ROUNDS = 5
OUT_OF_RACE = 1.5  # times the fastest: such a candidate is not timed again after two rounds
COLD = 2  # times the L2 cache: what a pass over so many bytes leaves nothing in it of


@dataclass(frozen=True)
class _Stored:
    """An operand on the GPU, `count` times, `stride` bytes apart."""

    piece: Piece
    address: int
    stride: int
    count: int

    def at(self, turn: int) -> int:
        """The copy for one of several launches."""
        return self.address + turn % self.count * self.stride


@dataclass
class _Candidate:
    """Its launches, each with the arguments of every turn."""

    launches: list[tuple[Kernel, tuple[int, ...], list[Arguments]]]
    graph: Capture | None = None
    digests: list[int] = field(default_factory=list)  # of its outputs when it was run first
    best: float = field(default=float("inf"))  # microseconds

    def queue(self, turn: int, stream: Any) -> None:
        for kernel, grid, args in self.launches:
            kernel.launch(grid, args[turn % len(args)], stream)


class Rig:
    """One problem after the other on the first GPU."""

    def __init__(self, device: Device, shared: Shared) -> None:
        self.device, self.shared = device, shared
        self.stream = device.stream()
        self.start, self.end = device.event(timing=True), device.event(timing=True)
        self.sweep_bytes = COLD * device.info.l2_bytes
        self.sweep = device.alloc(self.sweep_bytes)
        self.memory: list[int] = []
        self.opened: list[Any] = []  # modules and graphs

    def works(self) -> bool:
        """Whether the context has survived what went wrong."""
        try:
            self.device.synchronize()
        except DeviceError:
            return False
        return True

    def setup(self, setup: Setup) -> None:
        """Forget the last problem, and take this one."""
        for opened in reversed(self.opened):
            opened.close()
        for address in self.memory:
            self.device.free(address)
        self.opened, self.memory, self.problem = [], [], setup
        self.stored: dict[Piece, _Stored] = {}
        self.ready: dict[int, _Candidate] = {}
        self.operands = [self._store(p, k in setup.constants) for k, p in enumerate(setup.operands)]
        self.blocks = [self._alloc(p.nbytes + 2 * GUARD) for p in setup.outputs]
        self.workspace = self._alloc(setup.workspace + GUARD)
        self.counters = self._alloc(4 * setup.counters)

    def trial(self, trial: Trial) -> str | None:
        """Run a candidate once, on poison, and show its outputs; what it did wrong but for their values."""
        candidate = self._load(trial)
        self._poison_outputs()
        self.device.fill(self.workspace, POISON, self.problem.workspace + GUARD, self.stream)
        self.device.fill(self.counters, 0, 4 * self.problem.counters, self.stream)
        candidate.queue(0, self.stream)
        self.device.synchronize()
        if harm := self._harm(trial):
            self._restore()
            return harm
        candidate.digests = self._shown()
        self.ready[trial.number] = candidate
        return None

    def drop(self, number: int) -> None:
        """Leave out a candidate; it may have written anywhere, so that the operands are stored again."""
        del self.ready[number]
        self._restore()

    def race(self, tell: Callable[[Turn], None]) -> Answer:
        """Time the candidates in turns."""
        failed: dict[int, str] = {}

        def turn(k: int, act: Callable[[_Candidate], None]) -> None:
            tell(Turn(k))
            try:
                act(self.ready[k])
            except DeviceError as error:
                if not self.works():
                    raise
                failed[k] = error.what
                del self.ready[k]

        for k in list(self.ready):
            turn(k, self._capture)
        for number in range(ROUNDS):
            fastest = min((c.best for c in self.ready.values()), default=0.0)
            for k, candidate in list(self.ready.items()):
                if number < 2 or candidate.best <= OUT_OF_RACE * fastest:
                    turn(k, self._time)
        return Answer(us={k: c.best for k, c in self.ready.items()}, failed=failed)

    def _alloc(self, nbytes: int) -> int:
        self.memory.append(self.device.alloc(nbytes))
        return self.memory[-1]

    def _store(self, piece: Piece, constant: bool) -> _Stored:
        """A piece of shared memory on the GPU, once for all candidates."""
        if piece not in self.stored:
            stride = -(-max(1, piece.nbytes) // ALIGN) * ALIGN
            count = min(REPEATS + 1, -(-self.sweep_bytes // stride)) if constant else 1
            self.stored[piece] = _Stored(piece, self._alloc(count * stride), stride, count)
            self._upload(self.stored[piece])
        return self.stored[piece]

    def _upload(self, stored: _Stored) -> None:
        data = self.shared.bytes(stored.piece)
        self.device.upload(stored.address, data.ctypes.data, data.nbytes)
        for turn in range(1, stored.count):
            self.device.copy(stored.at(turn), stored.address, stored.piece.nbytes)

    def _restore(self) -> None:
        for stored in self.stored.values():
            self._upload(stored)

    def _load(self, trial: Trial) -> _Candidate:
        operands = [
            self._store(trial.packs[k], True) if k in trial.packs else own for k, own in enumerate(self.operands)
        ]
        turns = max((s.count for s in operands), default=1)
        places = [
            {
                **dict(enumerate([*(s.at(turn) for s in operands), *(block + GUARD for block in self.blocks)])),
                WORKSPACE: self.workspace, COUNTERS: self.counters,
            }
            for turn in range(turns)
        ]  # fmt: skip
        return _Candidate([self._loaded(shot, places, trial.dtypes) for shot in trial.shots])

    def _loaded(
        self, shot: Shot, places: Sequence[dict[int, int]], dtypes: Sequence[DType]
    ) -> tuple[Kernel, tuple[int, ...], list[Arguments]]:
        module = self.device.load(shot.cubin)
        self.opened.append(module)
        kernel = module.kernel(shot.symbol, shot.abi)
        arguments = [kernel.arguments([self._value(a, at, dtypes) for a in shot.args]) for at in places]
        for number, nbytes in enumerate(kernel.scratch_bytes(shot.grid)):
            address = self._alloc(nbytes) if nbytes else 0
            for args in arguments:
                args.scratch(number, address)
        return kernel, shot.grid, arguments

    def _value(self, arg: Arg, places: dict[int, int], dtypes: Sequence[DType]) -> int | EncodedMap:
        if isinstance(arg, Int):
            assert isinstance(arg.value, int)
            return arg.value
        if isinstance(arg, Map):
            return self.device.tensor_map(dtypes[arg.operand], places[arg.operand], arg.map)
        return places[arg.operand]

    def _poison_outputs(self) -> None:
        for block, piece in zip(self.blocks, self.problem.outputs):
            self.device.fill(block, POISON, piece.nbytes + 2 * GUARD, self.stream)

    def _shown(self) -> list[int]:
        """Show the outputs; their digests."""
        digests = []
        for block, piece in zip(self.blocks, self.problem.outputs):
            shown = self.shared.bytes(piece)
            self.device.download(shown.ctypes.data, block + GUARD, piece.nbytes)
            digests.append(zlib.crc32(shown.data))
        return digests

    def _harm(self, trial: Trial) -> str | None:
        """What a candidate left where it has no business."""
        for k, (block, piece) in enumerate(zip(self.blocks, self.problem.outputs)):
            if not (self._poisoned(block) and self._poisoned(block + GUARD + piece.nbytes)):
                return f"wrote outside output {k}"
        if not self._poisoned(self.workspace + trial.workspace):
            return "wrote outside its workspace"
        left = np.empty(self.problem.counters, np.int32)
        self.device.download(left.ctypes.data, self.counters, left.nbytes)
        return "left counters that are not zero" if left.any() else None

    def _poisoned(self, address: int) -> bool:
        found = np.empty(GUARD, np.uint8)
        self.device.download(found.ctypes.data, address, GUARD)
        return bool((found == POISON).all())

    def _capture(self, candidate: _Candidate) -> None:
        with self.stream.capture() as graph:
            for turn in range(REPEATS):
                candidate.queue(turn, self.stream)
        self.opened.append(graph)
        candidate.graph = graph
        self._poison_outputs()  # another candidate may have left other bytes beside the columns of an output
        graph.launch(self.stream)
        self.stream.synchronize()
        if self._shown() != candidate.digests:  # a race shows where launches follow each other, if anywhere
            raise DeviceError("gave other results when it was run again")

    def _time(self, candidate: _Candidate) -> None:
        """One round; what is queued behind the sweep is waited for by nobody."""
        assert candidate.graph is not None
        self.device.fill(self.sweep, 0, self.sweep_bytes, self.stream)
        candidate.queue(REPEATS, self.stream)
        self.start.record(self.stream)
        candidate.graph.launch(self.stream)
        self.end.record(self.stream)
        self.end.synchronize()
        candidate.best = min(candidate.best, self.end.milliseconds_since(self.start) * 1e3 / REPEATS)


def _answer(rig: Rig, message: Any, tell: Callable[[Turn], None]) -> Answer:
    """Do what is asked. Whatever fails is the failure of that, unless the context is lost with it."""
    try:
        match message:
            case Setup():
                rig.setup(message)
            case Trial():
                return Answer(rig.trial(message))
            case Drop():
                rig.drop(message.number)
            case Race():
                return rig.race(tell)
    except DeviceError as error:
        return Answer(error.what, error.fix, alive=rig.works())
    except Exception as error:
        return Answer(f"{type(error).__name__}: {error}", alive=rig.works())
    return Answer()


def main() -> None:
    """Do what the parent asks, until it ends or the GPU's context is lost."""
    connection, (handle,) = parent()
    with suppress(EOFError, OSError):  # the parent has ended
        try:
            rig, answer = Rig(Device(), Shared(handle)), Answer()
        except DeviceError as error:
            answer = Answer(error.what, error.fix, alive=False)
        connection.send(answer)
        while answer.alive:
            answer = _answer(rig, connection.recv(), connection.send)
            connection.send(answer)


if __name__ == "__main__":
    main()
