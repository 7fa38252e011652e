"""Times candidates on the GPU: compiled in a pool, screened against the oracle on poisoned buffers, timed as graphs.

A candidate is captured many times over into one CUDA graph, so that launch gaps do not hide what it costs. Candidates
are timed in turns, and the least mean of the rounds counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.errors import DeviceError
from bessemer.device.cuda import Arguments, Device, Kernel, Module
from bessemer.device.cuda_graph import Capture
from bessemer.device.tensor_map import EncodedMap
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import COUNTERS, TRANSFORMS, WORKSPACE, Arg, Int, Map, Problem
from bessemer.targets.compile_pool import Job
from bessemer.targets.cuda import CompiledKernel, CudaTarget, Request
from bessemer.tune.case import Case, case_of
from bessemer.tune.task import Candidate, Measured

GUARD = 4096
POISON = 0xA5
REPEATS = 20  # launches in one graph
ROUNDS = 5


@dataclass
class _Prepared:
    """One candidate on the device."""

    launches: list[tuple[Kernel, tuple[int, ...], Arguments]]
    modules: list[Module]
    memory: list[int]
    outputs: list[tuple[int, int]]  # guarded block, bytes of the output
    workspace: tuple[int, int]
    graph: Capture | None = None
    best: float = field(default=float("inf"))


class CudaMeasurer:
    """Measures on this machine's first GPU."""

    def __init__(self, target: CudaTarget) -> None:
        self.target, self.device = target, Device()
        self.stream = self.device.stream()
        self.rng = np.random.default_rng()
        self.compiled: dict[Job, CompiledKernel | str] = {}

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
        try:
            case = case_of(problem, self.rng)
        except (MemoryError, ValueError, TypeError) as failure:
            return [Measured(None, f"the oracle failed: {failure!r}")] * len(candidates)
        compiled = self._compile(problem, candidates)
        shared = [self._upload(a) for a in case.inputs]
        results: list[Measured | None] = [None] * len(candidates)
        ready: dict[int, _Prepared] = {}
        for k, candidate in enumerate(candidates):
            kernels = compiled[k]
            if isinstance(kernels, str):
                results[k] = Measured(None, kernels[:500])
                continue
            try:
                prepared = self._prepare(problem, candidate, kernels, shared, case.inputs, case.env)
                error = self._screen(prepared, problem, case)
                if error is None:
                    self._capture(prepared)
                    ready[k] = prepared
                else:
                    results[k] = Measured(None, error)
                    self._free(prepared)
            except DeviceError as failure:
                results[k] = Measured(None, failure.what[:500])
        self._time(list(ready.values()))
        for k, prepared in ready.items():
            results[k] = Measured(prepared.best)
            self._free(prepared)
        for address in shared:
            self.device.free(address)
        return [r if r is not None else Measured(None, "not measured") for r in results]

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

    def _upload(self, array: np.ndarray) -> int:
        data = np.ascontiguousarray(array)
        address = self.device.alloc(data.nbytes)
        self.device.upload(address, data.ctypes.data, data.nbytes)
        return address

    def _prepare(
        self, problem: Problem, candidate: Candidate, kernels: Sequence[CompiledKernel], shared: Sequence[int],
        inputs: Sequence[np.ndarray], env: Mapping[str, int],
    ) -> _Prepared:  # fmt: skip
        code, memory, addresses = candidate.code, [], list(shared)
        for pack in code.packs:
            packed = TRANSFORMS.get(pack.transform).apply(inputs[pack.operand], *pack.params)
            addresses[pack.operand] = self._upload(packed)
            memory.append(addresses[pack.operand])
        outputs, types = [], [*(o.type for o in problem.operands), *problem.outputs]
        for pack in code.packs:
            types[pack.operand] = pack.type
        for t in problem.outputs:
            nbytes = evaluate(t.nbytes, env)
            block = self.device.alloc(nbytes + 2 * GUARD)
            memory.append(block)
            outputs.append((block, nbytes))
            addresses.append(block + GUARD)
        size = evaluate(code.workspace, env)
        scratch = self.device.alloc(size + GUARD)
        memory.append(scratch)
        count = evaluate(code.counters, env)
        memory.append(self.device.alloc(4 * count))
        self.device.fill(memory[-1], 0, 4 * count, self.stream)
        places = {**dict(enumerate(addresses)), WORKSPACE: scratch, COUNTERS: memory[-1]}
        out = _Prepared([], [], memory, outputs, (scratch, size + GUARD))
        for launch, compiled in zip(code.launches, kernels, strict=True):
            module = self.device.load(compiled.cubin)
            out.modules.append(module)
            kernel = module.kernel(compiled.symbol, compiled.abi)
            grid = tuple(evaluate(d, env) for d in launch.grid)
            args = kernel.arguments([self._value(a, env, places, types) for a in launch.args])
            for number, nbytes in enumerate(kernel.scratch_bytes(grid)):
                if nbytes:
                    memory.append(self.device.alloc(nbytes))
                    args.scratch(number, memory[-1])
            out.launches.append((kernel, grid, args))
        return out

    def _value(
        self, arg: Arg, env: Mapping[str, int], places: Mapping[int, int], types: Sequence[TensorType]
    ) -> int | EncodedMap:
        if isinstance(arg, Int):
            return evaluate(arg.value, env)
        if isinstance(arg, Map):
            return self.device.tensor_map(types[arg.operand].dtype, places[arg.operand], arg.map.at(env))
        return places[arg.operand]

    def _queue(self, prepared: _Prepared) -> None:
        for kernel, grid, args in prepared.launches:
            kernel.launch(grid, args, self.stream)

    def _screen(self, prepared: _Prepared, problem: Problem, case: Case) -> str | None:
        for block, nbytes in prepared.outputs:
            self.device.fill(block, POISON, nbytes + 2 * GUARD)
        self.device.fill(prepared.workspace[0], POISON, prepared.workspace[1])
        self._queue(prepared)
        self.device.synchronize()
        for k, ((block, nbytes), t) in enumerate(zip(prepared.outputs, problem.outputs)):
            host = np.empty(nbytes + 2 * GUARD, np.uint8)
            self.device.download(host.ctypes.data, block, host.nbytes)
            if not ((host[:GUARD] == POISON).all() and (host[GUARD + nbytes :] == POISON).all()):
                return f"wrote outside output {k}"
            shape = [evaluate(d, case.env) for d in t.shape]
            if why := case.wrong(k, host[GUARD : GUARD + nbytes].view(t.dtype.numpy).reshape(shape)):
                return why
        return None

    def _capture(self, prepared: _Prepared) -> None:
        with self.stream.capture() as graph:
            for _ in range(REPEATS):
                self._queue(prepared)
        prepared.graph = graph
        graph.launch(self.stream)
        self.stream.synchronize()

    def _time(self, ready: Sequence[_Prepared]) -> None:
        start, end = self.device.event(timing=True), self.device.event(timing=True)
        for number in range(ROUNDS):
            fastest = min((p.best for p in ready), default=0.0)
            for p in ready:
                if number > 1 and p.best > 1.5 * fastest:
                    continue  # out of the race
                assert p.graph is not None
                start.record(self.stream)
                p.graph.launch(self.stream)
                end.record(self.stream)
                end.synchronize()
                p.best = min(p.best, end.milliseconds_since(start) * 1e3 / REPEATS)

    def _free(self, prepared: _Prepared) -> None:
        if prepared.graph is not None:
            prepared.graph.close()
        for module in prepared.modules:
            module.close()
        for address in prepared.memory:
            self.device.free(address)
