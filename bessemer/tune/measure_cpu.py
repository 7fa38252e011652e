"""Times candidates on the CPU: compiled and linked in batches, screened in a child process, then timed in turns.

Candidates run first in a forked child, on guard-banded buffers with poisoned outputs, against the numpy oracle: one
that crashes, hangs, writes outside its outputs or computes wrongly costs only itself.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bessemer.core.dim import evaluate, product
from bessemer.core.errors import CompilerError, DeviceError
from bessemer.device.cpu import KERNEL, Library, NativeStep, StepTable, aligned_block
from bessemer.kernels.base import TRANSFORMS, WORKSPACE, Int, KernelCode, Problem
from bessemer.targets.base import Target
from bessemer.targets.c_compiler import Source, compile_objects, link_objects
from bessemer.targets.cpu import interpreter, source_of
from bessemer.tune import oracle
from bessemer.tune.task import Candidate, Measured

GUARD = 4096  # bytes of poison around every output and workspace
POISON = 0xA5
SCREEN_SECONDS = 20.0
TARGET_SECONDS = 0.02  # of timing per candidate
BURST_SECONDS = 2e-4  # short enough that many bursts are not interrupted on a busy machine
ROUNDS = 5
OUT_OF_RACE = 3.0  # times the fastest: such a candidate is not timed again


class _Batch:
    """Sources compiled in parallel and linked into one library, and what became of those that failed."""

    def __init__(self, sources: Sequence[Source], arch: str, seconds: float | None) -> None:
        compiled = dict(zip(sources, compile_objects(sources, arch, seconds=seconds)))
        self.sources = frozenset(s for s, found in compiled.items() if found is not None)
        self.failed = {s: found for s, found in compiled.items() if isinstance(found, str)}
        good = {s: found for s, found in compiled.items() if isinstance(found, Path)}
        (base,) = compile_objects([interpreter()], arch)
        if not isinstance(base, Path):
            raise CompilerError(f"the step interpreter does not compile:\n{base}")
        try:
            self.library = _load([*good.values(), base])
        except (CompilerError, DeviceError):  # one that does not link or load must not cost the others
            for source, obj in list(good.items()):
                try:
                    _load([obj, base])
                except (CompilerError, DeviceError) as error:
                    self.failed[source] = str(error)
                    del good[source]
            self.library = _load([*good.values(), base])


def _load(objects: Iterable[Path]) -> Library:
    return Library(link_objects(list(objects)))


@dataclass
class _Prepared:
    """The candidates of one problem, loaded: the steps of each in one table, over the same guarded outputs."""

    table: StepTable
    steps: list[tuple[int, int]]  # of each candidate, first and past the last
    workspaces: list[int]  # bytes of each candidate
    outputs: list[np.ndarray]
    guarded: list[np.ndarray]  # the outputs' blocks
    scratch: np.ndarray  # the block of the largest workspace

    def run(self, k: int) -> None:
        """Run candidate `k` once."""
        self.table.run(*self.steps[k])

    def poison(self) -> None:
        for block in (*self.guarded, self.scratch):
            block[:] = POISON

    def unharmed(self, k: int) -> bool:
        """Whether candidate `k` left the poison around its buffers."""
        past = self.scratch[GUARD + self.workspaces[k] :]
        around = [self.scratch[:GUARD], past[:GUARD], *(b[:GUARD] for b in self.guarded)]
        return all(bool((a == POISON).all()) for a in (*around, *(b[-GUARD:] for b in self.guarded)))


class CpuMeasurer:
    """Measures on this machine with the target's number of threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.rng = np.random.default_rng()
        self.batch: _Batch | None = None

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        """Compile what these candidates need, so that measuring them does not wait for the compiler."""
        self._compiled([c for _, candidates in work for c in candidates], seconds)

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        """Whether the batch that was prepared last has the candidate, or its compiler's failure."""
        return self.batch is not None and source_of(candidate.code) in self.batch.sources

    def _compiled(self, candidates: Sequence[Candidate], seconds: float | None = None) -> _Batch:
        sources = dict.fromkeys(source_of(c.code) for c in candidates)
        if self.batch is None or not self.batch.sources.issuperset(sources):
            self.batch = _Batch(list(sources), self.target.arch, seconds)
        return self.batch

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        env = oracle.typical_env(problem)
        inputs = oracle.random_inputs(problem, env, self.rng)
        try:
            wanted = oracle.answer(problem, inputs, env)
        except (MemoryError, ValueError, TypeError) as error:
            return [Measured(None, f"the oracle failed: {error!r}")] * len(candidates)
        batch = self._compiled(candidates)
        broken = [batch.failed.get(source_of(c.code)) for c in candidates]
        results = [Measured(None, error[:500]) if error else None for error in broken]
        ready = [k for k, error in enumerate(broken) if not error]
        prepared = self._prepare(problem, [candidates[k].code for k in ready], batch.library, inputs, env)
        try:
            failed = _screen(prepared, problem, wanted)
            times = _time(prepared, [k for k, error in enumerate(failed) if error is None])
        finally:
            prepared.table.close()
        for k, number in enumerate(ready):
            results[number] = Measured(times.get(k), failed[k])
        return [r for r in results if r is not None]

    def _prepare(
        self, problem: Problem, codes: Sequence[KernelCode], library: Library, inputs: Sequence[np.ndarray],
        env: dict[str, int],
    ) -> _Prepared:  # fmt: skip
        guarded = [aligned_block(evaluate(t.nbytes, env) + 2 * GUARD) for t in problem.outputs]
        outputs = [
            g[GUARD:-GUARD].view(t.dtype.numpy).reshape([evaluate(d, env) for d in t.shape])
            for g, t in zip(guarded, problem.outputs)
        ]
        workspaces = [evaluate(code.workspace, env) for code in codes]
        scratch = aligned_block(max(workspaces, default=0) + 2 * GUARD)
        plain = [_aligned_copy(a) for a in inputs]
        packed: dict[object, np.ndarray] = {}
        pointers: list[int] = []
        integers: list[int] = []
        steps: list[NativeStep] = []
        symbols: list[str] = []
        ranges = []
        for code in codes:
            operands = list(plain)
            for pack in code.packs:
                if pack not in packed:
                    made = TRANSFORMS.get(pack.transform).apply(inputs[pack.operand], *pack.params)
                    packed[pack] = _aligned_copy(np.ascontiguousarray(made))
                operands[pack.operand] = packed[pack]
            addresses = [a.ctypes.data for a in (*operands, *outputs)]
            first, source = len(steps), source_of(code)
            for launch in code.launches:
                p, d = len(pointers), len(integers)
                for arg in launch.args:
                    if isinstance(arg, Int):
                        integers.append(evaluate(arg.value, env))
                    elif arg.operand == WORKSPACE:
                        pointers.append(scratch.ctypes.data + GUARD)
                    else:
                        pointers.append(addresses[arg.operand])
                integers.append(evaluate(product(launch.grid), env))
                symbols.append(source.symbol(launch.entry))
                steps.append(NativeStep(KERNEL, len(symbols) - 1, p, d, len(integers) - 1))
            ranges.append((first, len(steps)))
        table = StepTable(library, steps, symbols, len(pointers), len(integers), self.target.limits["threads"])
        table.pointers[: len(pointers)] = pointers
        table.integers[: len(integers)] = integers
        table.keep = (plain, packed, guarded, scratch)
        return _Prepared(table, ranges, workspaces, outputs, guarded, scratch)


def _aligned_copy(a: np.ndarray) -> np.ndarray:
    out = aligned_block(a.nbytes).view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def _screen(prepared: _Prepared, problem: Problem, wanted: Sequence[np.ndarray]) -> list[str | None]:
    """Run each candidate once in a child; None if it ended in time with the right answer, else what went wrong."""
    out: list[str | None] = []
    while len(out) < len(prepared.steps):
        out += _screen_from(len(out), prepared, problem, wanted)
    return out


def _screen_from(first: int, prepared: _Prepared, problem: Problem, wanted: Sequence[np.ndarray]) -> list[str | None]:
    """The verdicts on candidate `first` and those after it, up to one that ends the child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            faulthandler.disable()  # a crash here is a verdict
            prepared.table.single()
            for k in range(first, len(prepared.steps)):
                try:
                    message = _verdict(k, prepared, problem, wanted) or "ok"
                except BaseException as error:
                    message = f"{type(error).__name__}: {error}"
                os.write(writer, " ".join(message.split())[:1000].encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writer)
    verdicts: list[str | None] = []
    hung = False
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while first + len(verdicts) < len(prepared.steps):
            waiting = select.poll()  # select() takes no descriptor above 1023
            waiting.register(pipe, select.POLLIN)
            hung = not waiting.poll(SCREEN_SECONDS * 1000)
            text = b"" if hung else pipe.readline()
            if not text:
                break
            verdicts.append(None if text == b"ok\n" else text.decode().rstrip())
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if first + len(verdicts) < len(prepared.steps):
        signalled = f"crashed (signal {os.WTERMSIG(status)})" if os.WIFSIGNALED(status) else "crashed"
        verdicts.append(f"did not end within {SCREEN_SECONDS:.0f} s" if hung else signalled)
    return verdicts


def _verdict(k: int, prepared: _Prepared, problem: Problem, wanted: Sequence[np.ndarray]) -> str | None:
    prepared.poison()
    prepared.run(k)
    for number, (got, want, t) in enumerate(zip(prepared.outputs, wanted, problem.outputs)):
        error = oracle.error_of(got, want, t.dtype)
        limit = oracle.TOLERANCE.get(t.dtype.name, 0.0)
        if not error <= limit:
            return f"wrong result: relative error {error:.2e} of output {number}, allowed {limit:g}"
    return None if prepared.unharmed(k) else "wrote outside its buffers"


def _time(prepared: _Prepared, ready: Sequence[int]) -> dict[int, float]:
    """The least mean time of a burst of each candidate, over rounds taken in turn, in microseconds."""
    repeats, best = {}, {}
    for k in ready:
        prepared.run(k)  # pages and caches
        best[k] = min(_seconds(prepared, k, 1) for _ in range(3))
        repeats[k] = max(1, int(BURST_SECONDS / best[k]))
    for number in range(ROUNDS):
        fastest = min(best.values())
        for k in ready:
            if number == 0 or best[k] <= OUT_OF_RACE * fastest:
                end = time.perf_counter() + TARGET_SECONDS / ROUNDS
                while time.perf_counter() < end:
                    best[k] = min(best[k], _seconds(prepared, k, repeats[k]))
    return {k: seconds * 1e6 for k, seconds in best.items()}


def _seconds(prepared: _Prepared, k: int, repeats: int) -> float:
    """The mean time of `repeats` runs of candidate `k`."""
    started = time.perf_counter()
    for _ in range(repeats):
        prepared.run(k)
    return max((time.perf_counter() - started) / repeats, 1e-7)
