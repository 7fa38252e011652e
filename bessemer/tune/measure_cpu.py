"""Times candidates on the CPU: compiled together, each screened in a child process, then timed in turns.

A candidate runs first in a forked child, on guard-banded buffers with poisoned outputs, against the numpy oracle: one
that crashes, hangs, writes outside its outputs or computes wrongly costs only itself.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bessemer.core.dim import evaluate, product
from bessemer.device.cpu import KERNEL, Library, NativeStep, StepTable, aligned_block
from bessemer.kernels.base import TRANSFORMS, WORKSPACE, Int, KernelCode, Problem
from bessemer.targets.base import Target
from bessemer.targets.c_compiler import compile_objects, link_objects
from bessemer.targets.cpu import interpreter, source_of
from bessemer.tune import oracle
from bessemer.tune.tuner import Candidate, Measured

GUARD = 4096  # bytes of poison around every output and workspace
POISON = 0xA5
SCREEN_SECONDS = 20.0
TARGET_SECONDS = 0.02  # of timing per candidate
ROUNDS = 5


@dataclass
class _Prepared:
    """One candidate, loaded: its table, and the guarded buffers it writes to."""

    table: StepTable
    outputs: list[np.ndarray]
    guarded: list[np.ndarray]


class CpuMeasurer:
    """Measures on this machine with the target's number of threads."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.rng = np.random.default_rng()

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        env = oracle.typical_env(problem)
        inputs = oracle.random_inputs(problem, env, self.rng)
        try:
            wanted = oracle.answer(problem, inputs, env)
        except (MemoryError, ValueError, TypeError) as failure:
            return [Measured(None, f"the oracle failed: {failure!r}")] * len(candidates)
        objects = compile_objects([source_of(c.code) for c in candidates], self.target.arch)
        results = [Measured(None, o[:500]) if isinstance(o, str) else None for o in objects]
        ready: dict[int, _Prepared] = {}
        for k, candidate in enumerate(candidates):
            found = objects[k]
            if isinstance(found, str):
                continue
            prepared = self._prepare(problem, candidate.code, found, inputs, env)
            error = _screen(prepared, problem, wanted)
            if error is None:
                ready[k] = prepared
            else:
                results[k] = Measured(None, error)
        for k, us in _time(ready).items():
            results[k] = Measured(us)
        for prepared in ready.values():
            prepared.table.close()
        return [r if r is not None else Measured(None, "not measured") for r in results]

    def _prepare(
        self, problem: Problem, code: KernelCode, obj: Path, inputs: Sequence[np.ndarray], env: dict[str, int]
    ) -> _Prepared:
        library = Library(link_objects([obj, _interpreter_object(self.target.arch)]))
        operands = list(inputs)
        for pack in code.packs:
            packed = TRANSFORMS.get(pack.transform).apply(inputs[pack.operand], *pack.params)
            operands[pack.operand] = np.ascontiguousarray(packed)
        operands = [_aligned_copy(a) for a in operands]
        guarded = [_guarded(evaluate(t.nbytes, env)) for t in problem.outputs]
        scratch = _guarded(evaluate(code.workspace, env))
        outputs = [
            g[GUARD:-GUARD].view(t.dtype.numpy).reshape([evaluate(d, env) for d in t.shape])
            for g, t in zip(guarded, problem.outputs)
        ]
        pointers: list[int] = []
        integers: list[int] = []
        steps, source = [], source_of(code)
        addresses = [a.ctypes.data for a in (*operands, *outputs)]
        symbols: list[str] = []
        for launch in code.launches:
            p, d = len(pointers), len(integers)
            for arg in launch.args:
                if isinstance(arg, Int):
                    integers.append(evaluate(arg.value, env))
                else:
                    inner = scratch.ctypes.data + GUARD
                    pointers.append(inner if arg.operand == WORKSPACE else addresses[arg.operand])
            integers.append(evaluate(product(launch.grid), env))
            symbols.append(source.symbol(launch.entry))
            steps.append(NativeStep(KERNEL, len(symbols) - 1, p, d, len(integers) - 1))
        threads = self.target.limits["threads"]
        table = StepTable(library, steps, symbols, len(pointers), len(integers), threads)
        table.pointers[: len(pointers)] = pointers
        table.integers[: len(integers)] = integers
        table.keep = (operands, guarded, scratch)
        return _Prepared(table, outputs, [*guarded, scratch])


def _interpreter_object(arch: str) -> Path:
    (found,) = compile_objects([interpreter()], arch)
    assert isinstance(found, Path)
    return found


def _aligned_copy(a: np.ndarray) -> np.ndarray:
    out = aligned_block(a.nbytes).view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def _guarded(nbytes: int) -> np.ndarray:
    block = aligned_block(nbytes + 2 * GUARD)
    block[:] = POISON
    return block


def _screen(prepared: _Prepared, problem: Problem, wanted: Sequence[np.ndarray]) -> str | None:
    """Run once in a child; None if it ended in time with the right answer, else what went wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        message = "the screening failed"
        try:
            message = _verdict(prepared, problem, wanted) or "ok"
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, message.encode()[:1000])
            os._exit(0)
    os.close(writer)
    try:
        readable, _, _ = select.select([reader], [], [], SCREEN_SECONDS)
        text = os.read(reader, 2000).decode() if readable else ""
    finally:
        os.close(reader)
        if not text:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if text == "ok":
        return None
    if text:
        return text
    if not readable:
        return f"did not end within {SCREEN_SECONDS:.0f} s"
    return f"crashed (signal {os.WTERMSIG(status)})" if os.WIFSIGNALED(status) else "crashed"


def _verdict(prepared: _Prepared, problem: Problem, wanted: Sequence[np.ndarray]) -> str | None:
    prepared.table.single()
    prepared.table.run()
    for k, (got, want, t) in enumerate(zip(prepared.outputs, wanted, problem.outputs)):
        error = oracle.error_of(got, want, t.dtype)
        limit = oracle.TOLERANCE.get(t.dtype.name, 0.0)
        if not error <= limit:
            return f"wrong result: relative error {error:.2e} of output {k}, allowed {limit:g}"
    for block in prepared.guarded:
        if not ((block[:GUARD] == POISON).all() and (block[-GUARD:] == POISON).all()):
            return "wrote outside its buffers"
    return None


def _time(ready: dict[int, _Prepared]) -> dict[int, float]:
    """The least mean time of each candidate over rounds taken in turn, in microseconds."""
    repeats, best = {}, {}
    for k, prepared in ready.items():
        started = time.perf_counter()
        prepared.table.run()
        once = max(time.perf_counter() - started, 1e-7)
        repeats[k] = max(1, min(2000, int(TARGET_SECONDS / ROUNDS / once)))
        best[k] = once
    for _ in range(ROUNDS):
        fastest = min(best.values())
        for k, prepared in ready.items():
            if best[k] > 3 * fastest:
                continue  # out of the race
            started = time.perf_counter()
            for _ in range(repeats[k]):
                prepared.table.run()
            best[k] = min(best[k], (time.perf_counter() - started) / repeats[k])
    return {k: seconds * 1e6 for k, seconds in best.items()}
