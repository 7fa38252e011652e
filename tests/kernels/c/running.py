"""Runs a C tactic as an engine does: linked by the target, through the step table and its thread pool.

Operands, outputs and scratch end at unreadable pages; outputs and scratch are poisoned before the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate
from bessemer.device.cpu import KERNEL, Library, NativeStep, StepTable
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import TRANSFORMS, WORKSPACE, Config, Int, KernelCode, Problem, Ptr, Tactic
from bessemer.targets.cpu import CpuTarget, LinkedObject
from tests.kernels.c.harness import Guarded

Array = np.ndarray


def shape_of(t: TensorType, env: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, env) for d in t.shape)


def _run(
    target: CpuTarget, linked: LinkedObject, problem: Problem, code: KernelCode, arrays: Sequence[Array],
    env: Mapping[str, int],
) -> list[Array]:  # fmt: skip
    """All outputs of `code`; bf16 as float32."""
    packed = list(arrays)
    for pack in code.packs:
        packed[pack.operand] = TRANSFORMS.get(pack.transform).apply(arrays[pack.operand], *pack.params)
        assert packed[pack.operand].shape == shape_of(pack.type, env)
    inputs = [Guarded(a.nbytes) for a in packed]
    for buffer, a in zip(inputs, packed):
        buffer.bytes[:] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    shapes = [shape_of(t, env) for t in problem.outputs]
    outputs = [Guarded(int(np.prod(s)) * t.dtype.itemsize) for s, t in zip(shapes, problem.outputs)]
    work = Guarded(-(-evaluate(code.workspace, env) // 64) * 64)
    symbols = [linked.placement(problem, code, launch).symbol for launch in code.launches]
    pointers: list[int] = []
    integers: list[int] = []
    steps = []
    for k, launch in enumerate(code.launches):
        steps.append(NativeStep(KERNEL, k, len(pointers), len(integers), -1))
        operands = [a.operand for a in launch.args if isinstance(a, Ptr)]
        pointers += [work.address if n == WORKSPACE else [*inputs, *outputs][n].address for n in operands]
        integers += [evaluate(a.value, env) for a in launch.args if isinstance(a, Int)]
    first = len(integers)
    integers += [evaluate(launch.grid[0], env) for launch in code.launches]
    steps = [NativeStep(s.kind, s.kernel, s.pointer, s.integer, first + k) for k, s in enumerate(steps)]
    table = StepTable(Library(linked.blobs[0]), steps, symbols, len(pointers), len(integers), target.threads)
    table.pointers[: len(pointers)] = pointers
    table.integers[: len(integers)] = integers
    assert table.run() == 0
    table.close()
    for buffer in (*inputs, *outputs, work):
        buffer.check()
    found = [b.bytes.view(t.dtype.numpy).reshape(s).copy() for b, t, s in zip(outputs, problem.outputs, shapes)]
    return [dt.from_bf16(a) if t.dtype == dt.bf16 else a for a, t in zip(found, problem.outputs)]


@lru_cache(maxsize=8)
def _linked(arch: str, codes: tuple[tuple[Problem, KernelCode], ...]) -> LinkedObject:
    """For any number of threads."""
    return CpuTarget(arch, 1).link(codes)


def run_all(
    tactic: Tactic, asked: Sequence[tuple[Problem, Sequence[Array]]], arch: str, *, threads: int = 2,
    config: Config | None = None, env: Mapping[str, int] | None = None,
) -> list[list[Array]]:  # fmt: skip
    """All outputs of each problem by `tactic`, which must apply, from one library of all kernels; bf16 as float32."""
    target, codes = CpuTarget(arch, threads), []
    for problem, _ in asked:
        reason = tactic.applicable(problem, target)
        assert reason is None, reason
        chosen = config if config is not None else tactic.configs(problem, target)[0]
        codes.append((problem, tactic.emit(problem, target, chosen)))
    linked = _linked(arch, tuple(codes))
    return [_run(target, linked, *code, arrays, env or {}) for code, (_, arrays) in zip(codes, asked)]


def run(
    tactic: Tactic, problem: Problem, arrays: Sequence[Array], arch: str, *, threads: int = 2,
    config: Config | None = None, env: Mapping[str, int] | None = None,
) -> list[Array]:  # fmt: skip
    """All outputs of one problem."""
    return run_all(tactic, [(problem, arrays)], arch, threads=threads, config=config, env=env)[0]
