"""Times candidates on the GPU: compiled in a pool, run in a process of their own, compared with the oracle, then timed.

The process starts while the first kernels are compiled and serves all problems. A candidate that faults or hangs ends
it, or has it ended; that candidate has failed, and the others go on in a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.errors import DeviceError
from bessemer.kernels.base import TRANSFORMS, Arg, Int, KernelCode, Map, Pack, Problem
from bessemer.targets.compile_pool import Job
from bessemer.targets.cuda import CompiledKernel, CudaTarget, Request
from bessemer.tune.case import Case, case_of
from bessemer.tune.child import Lost, started
from bessemer.tune.oracle import outputs_in
from bessemer.tune.shared import Piece, Shared
from bessemer.tune.task import Candidate, Measured
from bessemer.tune.trial import POISON, Answer, Drop, Race, Setup, Shot, Trial, Turn

START_SECONDS = 120.0  # until a new process has the GPU: some take long to wake up
SECONDS = 20.0  # for all that a process is asked, and for every turn of a race
TEXT = 500  # characters of a failure that are kept


class CudaMeasurer:
    """Measures on this machine's first GPU."""

    def __init__(self, target: CudaTarget) -> None:
        self.target = target
        self.rng = np.random.default_rng()
        self.compiled: dict[Job, CompiledKernel | str] = {}
        self.shared: Shared | None = None
        self.process: _Process | None = None

    def open(self) -> None:
        """See that a process is there, or on its way."""
        if self.shared is None:
            self.shared = Shared()
        if self.process is None:
            self.process = _Process(self.shared)

    def close(self) -> None:
        """End the process, and give back the memory that was shared with it."""
        if self.process is not None:
            self.process.child.close()
        if self.shared is not None:
            self.shared.close()
        self.process = self.shared = None

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        """Compile all launches of these candidates in one go of the compilers' pool, for so many seconds at most."""
        self._add(
            [Request(p, c.code, launch) for p, candidates in work for c in candidates for launch in c.code.launches],
            seconds,
        )

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        """Whether all its launches were compiled, or failed to be."""
        launches = candidate.code.launches
        return all(self.target.job(Request(problem, candidate.code, launch)) in self.compiled for launch in launches)

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        """DeviceError where the GPU itself fails, and not a candidate; NoCase, see case_of."""
        self.open()
        assert self.shared is not None
        case = case_of(problem, self.rng)
        attempts = _Attempts(problem, case, self.shared)
        for k, (candidate, kernels) in enumerate(zip(candidates, self._compile(problem, candidates))):
            attempts.add(k, candidate.code, kernels)
        times = self._times(attempts)
        return [Measured(times.get(k), attempts.failed.get(k)) for k in range(len(candidates))]

    def _add(self, requests: Sequence[Request], seconds: float | None) -> None:
        missing = {job: r for r in requests if (job := self.target.job(r)) not in self.compiled}
        if missing:
            found = self.target.compile(list(missing.values()), seconds=seconds)
            self.compiled.update((job, f) for job, f in zip(missing, found, strict=True) if f is not None)

    def _compile(self, problem: Problem, candidates: Sequence[Candidate]) -> list[list[CompiledKernel] | str]:
        self.prepare([(problem, candidates)])
        out: list[list[CompiledKernel] | str] = []
        for c in candidates:
            kernels = [self.compiled[self.target.job(Request(problem, c.code, launch))] for launch in c.code.launches]
            failed = [k for k in kernels if isinstance(k, str)]
            out.append(failed[0] if failed else [k for k in kernels if isinstance(k, CompiledKernel)])
        return out

    def _times(self, attempts: _Attempts) -> Mapping[int, float]:
        """Microseconds of all candidates that are right, by as many processes as it takes."""
        while attempts.left():
            attempts.at = None
            self.open()
            assert self.process is not None
            try:
                return attempts.run(self.process)
            except Lost as lost:
                self.process = None
                if attempts.at is None:
                    what = f"the process that measures kernels {lost}"
                    raise DeviceError(what, fix="see with nvidia-smi whether the GPU works") from None
                attempts.failed[attempts.at] = str(lost)[:TEXT]
        return {}


class _Process:
    """The one that has the GPU; it says so before it is asked anything."""

    def __init__(self, shared: Shared) -> None:
        self.child = started("bessemer.tune.guarded_cuda", shared.handle)
        self.up = False

    def ask(self, message: Setup | Trial | Drop | Race, turn: Callable[[int], None] | None = None) -> Answer:
        """What it answers; `turn` is told which candidate it is at. Lost, and it has ended, where a candidate takes the
        GPU's context with it, and DeviceError where there is none."""
        if not self.up:
            self._wait_for_gpu()
        self.child.send(message)
        while isinstance(found := self.child.receive(SECONDS), Turn):
            if turn is not None:
                turn(found.number)
        if not found.alive:
            self.child.close()
            raise Lost(found.error)
        assert isinstance(found, Answer)
        return found

    def _wait_for_gpu(self) -> None:
        answer = self.child.receive(START_SECONDS)
        if answer.error is not None:
            self.child.close()
            raise DeviceError(answer.error, fix=answer.fix)
        self.up = True


class _Attempts:
    """The candidates of one problem, and what is known of them. `at` is the one that the process was at last."""

    def __init__(self, problem: Problem, case: Case, shared: Shared) -> None:
        self.problem, self.case, self.shared = problem, case, shared
        self.trials: dict[int, Trial] = {}
        self.failed: dict[int, str] = {}
        self.right: set[int] = set()
        self.at: int | None = None
        shared.clear()
        self.counters = 0
        self.operands = tuple(shared.put(a) for a in case.inputs)
        self.outputs = tuple(shared.room(evaluate(t.nbytes, case.env)) for t in problem.written)
        self.packed: dict[Pack, Piece] = {}

    def add(self, number: int, code: KernelCode, kernels: Sequence[CompiledKernel] | str) -> None:
        """Describe a candidate; one that cannot be described, or was not compiled, has failed."""
        if isinstance(kernels, str):
            self.failed[number] = kernels[:TEXT]
            return
        try:
            self.trials[number] = self._described(number, code, kernels)
            self.counters = max(self.counters, evaluate(code.counters, self.case.env))
        except Exception as error:  # a defect of this candidate alone: no such operand or packing
            self.failed[number] = f"cannot be laid out: {type(error).__name__}: {error}"[:TEXT]

    def left(self) -> list[Trial]:
        return [trial for k, trial in self.trials.items() if k not in self.failed]

    def run(self, process: _Process) -> Mapping[int, float]:
        """Try all that have not failed, and time those that are right; Lost where one of them ends the process."""
        left = self.left()
        constants = frozenset(k for k, o in enumerate(self.problem.operands) if o.constant)
        workspace = max(trial.workspace for trial in left)
        answer = process.ask(Setup(self.operands, constants, self.outputs, workspace, self.counters))
        if answer.error is not None:
            raise DeviceError(answer.error, fix=answer.fix)
        for trial in left:
            self.at = trial.number
            why = process.ask(trial).error
            if why is None and trial.number not in self.right and (why := self._wrong()) is not None:
                process.ask(Drop(trial.number))
            if why is None:
                self.right.add(trial.number)
            else:
                self.failed[trial.number] = why[:TEXT]
        self.at = None
        answer = process.ask(Race(), self._turn)
        self.failed.update((k, why[:TEXT]) for k, why in answer.failed.items())
        return answer.us

    def _turn(self, number: int) -> None:
        self.at = number

    def _wrong(self) -> str | None:
        """What is wrong with the outputs that are shown."""
        outputs, beside = outputs_in(self.problem, [self.shared.bytes(p) for p in self.outputs], self.case.env)
        for k, output in enumerate(outputs):
            if why := self.case.wrong(k, output):
                return why
        return None if all(bool((b == POISON).all()) for b in beside) else "wrote beside the columns of output 0"

    def _described(self, number: int, code: KernelCode, kernels: Sequence[CompiledKernel]) -> Trial:
        env = self.case.env
        types = [*(o.type for o in self.problem.operands), *self.problem.outputs]
        for pack in code.packs:
            types[pack.operand] = pack.type
        shots = tuple(
            Shot(
                k.cubin, k.symbol, k.abi, tuple(evaluate(d, env) for d in launch.grid),
                tuple(_at(arg, env) for arg in launch.args),
            )
            for launch, k in zip(code.launches, kernels, strict=True)
        )  # fmt: skip
        packs = {pack.operand: self._pack(pack) for pack in code.packs}
        return Trial(number, shots, packs, tuple(t.dtype for t in types), evaluate(code.workspace, env))

    def _pack(self, pack: Pack) -> Piece:
        if pack not in self.packed:
            packed = TRANSFORMS.get(pack.transform).apply(self.case.inputs[pack.operand], *pack.params)
            self.packed[pack] = self.shared.put(packed)
        return self.packed[pack]


def _at(arg: Arg, env: Mapping[str, int]) -> Arg:
    """An argument at one shape."""
    if isinstance(arg, Int):
        return Int(evaluate(arg.value, env), arg.bits)
    return Map(arg.operand, arg.map.at(env)) if isinstance(arg, Map) else arg
