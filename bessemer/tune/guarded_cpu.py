"""The candidates of one problem in one step table, over shared operands and outputs with poison around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.dim import evaluate, product
from bessemer.device.cpu import KERNEL, Library, NativeStep, StepTable, aligned_block
from bessemer.kernels.base import TRANSFORMS, WORKSPACE, Int, KernelCode, Pack, Problem
from bessemer.targets.cpu import source_of
from bessemer.tune.oracle import outputs_in

GUARD = 4096  # bytes of poison around every output and workspace
POISON = 0xA5


@dataclass
class Guarded:
    """Candidates that are ready to run, by number; `failed` says of the others why they are not."""

    table: StepTable
    steps: dict[int, tuple[int, int]]  # of each candidate, first and past the last
    workspaces: dict[int, int]  # bytes of each candidate
    outputs: list[np.ndarray]
    beside: list[np.ndarray]  # what lies between the columns that an output takes of a wider tensor
    blocks: list[np.ndarray]  # the outputs with their guards
    scratch: np.ndarray  # the block of the largest workspace
    failed: dict[int, str]

    def run(self, k: int) -> None:
        """Run candidate `k` once."""
        self.table.run(*self.steps[k])

    def poison(self) -> None:
        """Fill outputs, workspace and guards."""
        for block in (*self.blocks, self.scratch):
            block[:] = POISON

    def unharmed(self, k: int) -> bool:
        """Whether candidate `k` left the poison around and between its outputs, and around its workspace."""
        past = self.scratch[GUARD + self.workspaces[k] :]
        around = [self.scratch[:GUARD], past[:GUARD], *self.beside, *(b[:GUARD] for b in self.blocks)]
        return all(bool((a == POISON).all()) for a in (*around, *(b[-GUARD:] for b in self.blocks)))


def guard(
    problem: Problem, codes: Mapping[int, KernelCode], library: Library, inputs: Sequence[np.ndarray],
    env: Mapping[str, int], threads: int,
) -> Guarded:  # fmt: skip
    """Lay out the candidates `codes`, whose functions are in `library`, for these operands."""
    blocks = [aligned_block(evaluate(t.nbytes, env) + 2 * GUARD) for t in problem.written]
    written = [b[GUARD:-GUARD] for b in blocks]
    outputs, beside = outputs_in(problem, written, env)
    workspaces: dict[int, int] = {}
    steps: dict[int, tuple[int, int]] = {}
    failed: dict[int, str] = {}
    layout = _Layout(library, inputs, written, env)
    for k, code in codes.items():
        try:
            workspaces[k] = evaluate(code.workspace, env)
            steps[k] = layout.add(code)
        except Exception as error:  # a defect of this candidate alone: no such function, operand or packing
            failed[k] = f"cannot be laid out: {type(error).__name__}: {error}"
    scratch = aligned_block(max(workspaces.values(), default=0) + 2 * GUARD)
    table = StepTable(library, layout.steps, layout.symbols, len(layout.pointers), len(layout.integers), threads)
    own = scratch.ctypes.data + GUARD
    table.pointers[: len(layout.pointers)] = [own if p is None else p for p in layout.pointers]
    table.integers[: len(layout.integers)] = layout.integers
    table.keep = (layout.plain, layout.packed, blocks, scratch)
    return Guarded(table, steps, workspaces, outputs, beside, blocks, scratch, failed)


@dataclass
class _Layout:
    """The step table as it grows; a pointer that is None is the workspace's."""

    library: Library
    inputs: Sequence[np.ndarray]
    written: Sequence[np.ndarray]  # the bytes of what the outputs are written to
    env: Mapping[str, int]
    pointers: list[int | None] = field(default_factory=list)
    integers: list[int] = field(default_factory=list)
    steps: list[NativeStep] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    packed: dict[Pack, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plain = [_aligned_copy(a) for a in self.inputs]

    def add(self, code: KernelCode) -> tuple[int, int]:
        """Add the launches of a candidate; its first step and the one past its last. Whatever is raised, adds none."""
        addresses = [a.ctypes.data for a in (*self._operands(code), *self.written)]
        first, source = len(self.steps), source_of(code)
        pointers, integers, steps, symbols = [*self.pointers], [*self.integers], [*self.steps], [*self.symbols]
        for launch in code.launches:
            p, d = len(pointers), len(integers)
            for arg in launch.args:
                if isinstance(arg, Int):
                    integers.append(evaluate(arg.value, self.env))
                elif arg.operand == WORKSPACE:
                    pointers.append(None)
                else:
                    pointers.append(addresses[arg.operand])
            integers.append(evaluate(product(launch.grid), self.env))
            symbols.append(source.symbol(launch.entry))
            self.library.address(symbols[-1])
            steps.append(NativeStep(KERNEL, len(symbols) - 1, p, d, len(integers) - 1))
        self.pointers, self.integers, self.steps, self.symbols = pointers, integers, steps, symbols
        return first, len(steps)

    def _operands(self, code: KernelCode) -> list[np.ndarray]:
        """The operands as the candidate reads them, packed where it says so."""
        operands = list(self.plain)
        for pack in code.packs:
            if pack not in self.packed:
                made = TRANSFORMS.get(pack.transform).apply(self.inputs[pack.operand], *pack.params)
                self.packed[pack] = _aligned_copy(np.ascontiguousarray(made))
            operands[pack.operand] = self.packed[pack]
        return operands


def _aligned_copy(a: np.ndarray) -> np.ndarray:
    out = aligned_block(a.nbytes).view(a.dtype).reshape(a.shape)
    out[...] = a
    return out
