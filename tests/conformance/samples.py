"""The samples of every op as kernel problems, and every C kernel that takes them, compiled together and run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate, product
from bessemer.device.cpu import KERNEL, Library, NativeStep, StepTable, aligned_block
from bessemer.ir import fold
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, Fusion, InferContext, Sample
from bessemer.kernels.base import (
    TACTICS,
    TRANSFORMS,
    WORKSPACE,
    Config,
    Int,
    Into,
    KernelCode,
    Operand,
    Problem,
    of_language,
)
from bessemer.targets.c_compiler import compile_objects, link_objects
from bessemer.targets.cpu import CpuTarget, interpreter, source_of
from bessemer.tune.oracle import as_values, outputs_in

CONFIGS = 4  # of one tactic for one problem, spread evenly over its list
GUARD = 4096  # bytes around what a kernel may write
POISON = 0xA5


@dataclass(frozen=True)
class Asked:
    """A problem, the arrays of its operands as stored, and the outputs that the op's reference gives, as numbers."""

    label: str
    problem: Problem
    arrays: tuple[np.ndarray, ...]
    wanted: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Candidate:
    """One kernel for one problem."""

    asked: Asked
    tactic: str
    config: Config
    code: KernelCode

    def __str__(self) -> str:
        return f"{self.asked.label}: {self.tactic} {dict(self.config)}"


def asked(name: str, rng: np.random.Generator) -> Iterator[Asked]:
    """Every sample of op `name`: as an anchor with weights and without, and as a compute group, where it is each."""
    op = OPS.get(name)
    for number, sample in enumerate(op.samples(rng) if op.samples is not None else ()):
        types = tuple(None if a is None else TensorType(dt.from_numpy(a.dtype), a.shape) for a in sample.inputs)
        ctx = InferContext(types, sample.attrs, {}, sample.inputs)
        label = f"{name} sample {number} {sample.note}".strip()
        if op.fusion is Fusion.TEMPLATE:
            yield from _anchors(label, name, sample, ctx)
        if op.compute is not None:
            outs = op.infer(ctx)
            operands = tuple(Operand(t or TensorType(dt.f32, (1,))) for t in types)
            arrays = tuple(np.zeros(1, np.float32) if a is None else a for a in sample.inputs)
            problem = Problem("group", operands, outs, body=op.compute(ctx))
            yield Asked(f"{label} (group)", problem, arrays, _wanted(name, sample, ctx, outs))


def _anchors(label: str, name: str, sample: Sample, ctx: InferContext) -> Iterator[Asked]:
    outs = OPS.get(name).infer(ctx)
    arrays = tuple(a for a in sample.inputs if a is not None)
    wanted = _wanted(name, sample, ctx, outs)
    for constant in (False, True) if len(arrays) > 1 else (False,):
        operands = tuple(Operand(t, constant and k > 0) for k, t in enumerate(t for t in ctx.types if t is not None))
        attrs = tuple(sorted(sample.attrs.items()))
        problem = Problem(name, operands, outs, attrs, len(operands), outs[0])
        yield Asked(f"{label}{' with weights' if constant else ''}", problem, arrays, wanted)


def _wanted(name: str, sample: Sample, ctx: InferContext, outs: Sequence[TensorType]) -> tuple[np.ndarray, ...]:
    results = fold.evaluate(OPS.get(name), sample.inputs, ctx.types, sample.attrs, outs)
    return tuple(as_values(a, t.dtype) for a, t in zip(results, outs, strict=True))


def candidates(problems: Sequence[Asked], target: CpuTarget) -> list[Candidate]:
    """Every applicable tactic with some of its configurations, the default always."""
    found = []
    for one in problems:
        for tactic in of_language(TACTICS.discover(), target.languages):
            if tactic.applicable(one.problem, target) is None:
                configs = tactic.configs(one.problem, target)
                spread = dict.fromkeys(k * (len(configs) - 1) // (CONFIGS - 1) for k in range(CONFIGS))
                for config in (configs[k] for k in spread):
                    found.append(Candidate(one, tactic.name, config, tactic.emit(one.problem, target, config)))
    return found


def in_columns(problems: Sequence[Asked], rng: np.random.Generator) -> list[Asked]:
    """The problems with their output in columns of a wider tensor, which start and end anywhere."""
    out = []
    for one in (p for p in problems if p.problem.outputs[0].rank):
        (before, after), cols = rng.integers(0, 20, 2), evaluate(one.problem.outputs[0].shape[-1], {})
        into = Into(int(before), int(before + cols + after))
        out.append(replace(one, label=f"{one.label} in {into}", problem=replace(one.problem, into=into)))
    return out


def compiled(found: Sequence[Candidate], target: CpuTarget) -> Library:
    """One shared object of all candidates."""
    sources = list(dict.fromkeys([interpreter(), *(source_of(c.code) for c in found)]))
    objects = compile_objects(sources, target.arch, optimise=target.optimise)
    broken = [o for o in objects if isinstance(o, str)]
    assert not broken, broken[0]
    return Library(link_objects([o for o in objects if isinstance(o, Path)]))


def run(candidate: Candidate, library: Library, threads: int) -> list[np.ndarray]:
    """The outputs as stored. AssertionError where the kernel wrote around its outputs or its workspace."""
    problem, code, source = candidate.asked.problem, candidate.code, source_of(candidate.code)
    operands = list(candidate.asked.arrays)
    for pack in code.packs:
        operands[pack.operand] = TRANSFORMS.get(pack.transform).apply(operands[pack.operand], *pack.params)
    inputs = [_aligned(np.ascontiguousarray(a)) for a in operands]
    blocks = [_guarded(evaluate(n, {})) for n in (*(t.nbytes for t in problem.written), code.workspace)]
    places = [*(a.ctypes.data for a in inputs), *(b.ctypes.data + GUARD for b in blocks)]
    pointers: list[int] = []
    integers: list[int] = []
    steps: list[NativeStep] = []
    for number, launch in enumerate(code.launches):
        p, d = len(pointers), len(integers)
        for arg in launch.args:
            if isinstance(arg, Int):
                integers.append(evaluate(arg.value, {}))
            else:
                pointers.append(places[-1 if arg.operand == WORKSPACE else arg.operand])
        integers.append(evaluate(product(launch.grid), {}))
        steps.append(NativeStep(KERNEL, number, p, d, len(integers) - 1))
    symbols = [source.symbol(launch.entry) for launch in code.launches]
    table = StepTable(library, steps, symbols, len(pointers), len(integers), threads)
    table.pointers[: len(pointers)], table.integers[: len(integers)] = pointers, integers
    assert table.run() == 0
    table.close()
    for block in blocks:
        assert (block[:GUARD] == POISON).all() and (block[-GUARD:] == POISON).all(), "wrote outside its memory"
    outputs, beside = outputs_in(problem, [b[GUARD:-GUARD] for b in blocks[: len(problem.outputs)]], {})
    assert all((b == POISON).all() for b in beside), f"{candidate} wrote beside its columns"
    return outputs


def _aligned(a: np.ndarray) -> np.ndarray:
    out = aligned_block(a.nbytes).view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def _guarded(nbytes: int) -> np.ndarray:
    block = aligned_block(nbytes + 2 * GUARD)
    block[:] = POISON
    return block
