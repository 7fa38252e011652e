"""Checks a program once, before anything of it runs, so that running it needs no checks.

Every number of a tensor, kernel, step or symbol is in range; every tensor lies inside its space at the largest shape;
every step reads only what an earlier step, an input or the weights wrote; no two arena tensors that live at the same
time overlap, unless one is declared as a view (the same bytes, or inside) of the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from bessemer.core.dim import INF, Dim, bounds, symbols
from bessemer.core.errors import EngineFormatError
from bessemer.engine.format import WEIGHT_ALIGN
from bessemer.engine.program import SPACES, STEP_KINDS, Arg, Program, Step, Tensor


def verify(program: Program, n_blobs: int, weights_bytes: int) -> None:
    """EngineFormatError naming the first rule that `program` breaks."""
    ranges = {name: s.range for name, s in program.symbols.items()}
    if program.weights_bytes > weights_bytes:
        _fail(program, f"it needs {program.weights_bytes} bytes of weights, the file has {weights_bytes}")
    if program.arena_bytes < 0 or program.weights_bytes < 0:
        _fail(program, "a size is negative")
    for number, tensor in enumerate(program.tensors):
        _check_tensor(program, number, tensor, ranges)
    for kernel in program.kernels:
        if not 0 <= kernel.blob < n_blobs:
            _fail(program, f"kernel {kernel.entry} is in binary {kernel.blob} of {n_blobs}")
    for name, symbol in program.symbols.items():
        _check_symbol(program, name, symbol.input, symbol.axis)
    for io, space in ((program.inputs, "input"), (program.outputs, "output")):
        _check_bindings(program, io, space)
    for number, step in enumerate(program.steps):
        _check_step(program, number, step)
        for sub in step.subprograms:
            verify(sub, n_blobs, weights_bytes)
    _check_written(program)


def _fail(program: Program, what: str) -> None:
    raise EngineFormatError(f"the engine's program {program.name!r} is unsafe: {what}")


def _check_tensor(program: Program, number: int, t: Tensor, ranges: Mapping[str, object]) -> None:
    where = f"tensor {number} ({t.name})"
    if t.space not in SPACES:
        _fail(program, f"{where} is in unknown space {t.space!r}")
    if t.offset < 0 or t.nbytes < 0:
        _fail(program, f"{where} has a negative offset or size")
    unknown = {s for d in t.shape for s in symbols(d)} - set(program.symbols)
    if unknown:
        _fail(program, f"{where} has unknown symbols {sorted(unknown)}")
    size: Dim = t.dtype.itemsize
    for d in t.shape:
        size = size * d
    largest = bounds(size, ranges)[1]  # type: ignore[arg-type]
    limit = {"arena": program.arena_bytes, "weights": program.weights_bytes}.get(t.space)
    if limit is not None:
        if t.offset + t.nbytes > limit:
            _fail(program, f"{where} ends at {t.offset + t.nbytes}, its space at {limit}")
        if largest > t.nbytes and t.dtype.kind != "s":
            _fail(program, f"{where} can grow to {largest} bytes, it has {t.nbytes}")
    if t.space == "weights" and t.offset % WEIGHT_ALIGN:
        _fail(program, f"{where} is not aligned to {WEIGHT_ALIGN} bytes")
    if t.space in ("arena", "weights") and largest >= INF:
        _fail(program, f"{where} has no largest size")


def _check_symbol(program: Program, name: str, binding: int, axis: int) -> None:
    if (binding, axis) == (-1, -1):
        return
    if not 0 <= binding < len(program.inputs):
        _fail(program, f"symbol {name} is bound to input {binding} of {len(program.inputs)}")
    rank = len(program.tensors[program.inputs[binding]].shape) if program.inputs[binding] < len(program.tensors) else 0
    if not 0 <= axis < rank:
        _fail(program, f"symbol {name} is bound to axis {axis} of an input of rank {rank}")


def _check_bindings(program: Program, numbers: tuple[int, ...], space: str) -> None:
    for position, number in enumerate(numbers):
        if not 0 <= number < len(program.tensors):
            _fail(program, f"{space} {position} is tensor {number} of {len(program.tensors)}")
        t = program.tensors[number]
        if t.space == space and t.offset != position:
            _fail(program, f"{space} {position} ({t.name}) is bound to number {t.offset}")


def _check_step(program: Program, number: int, step: Step) -> None:
    where = f"step {number} ({step.name})"
    if step.kind not in STEP_KINDS:
        _fail(program, f"{where} has unknown kind {step.kind!r}")
    for n in (*step.reads, *step.writes):
        if not 0 <= n < len(program.tensors):
            _fail(program, f"{where} uses tensor {n} of {len(program.tensors)}")
    for n in step.writes:
        if program.tensors[n].space in ("weights", "input"):
            _fail(program, f"{where} writes to {program.tensors[n].space}")
    if step.kind == "kernel":
        if not 0 <= step.kernel < len(program.kernels):
            _fail(program, f"{where} uses kernel {step.kernel} of {len(program.kernels)}")
        if not 1 <= len(step.grid) <= 3:
            _fail(program, f"{where} has a grid of {len(step.grid)} dims")
    if step.kind in ("branch", "jump") and not number < step.target <= len(program.steps):
        _fail(program, f"{where} goes to step {step.target} of {len(program.steps)}")
    if step.kind == "branch" and len(step.reads) != 1:
        _fail(program, f"{where} branches on {len(step.reads)} tensors")
    if step.kind == "copy" and (len(step.reads), len(step.writes)) != (1, 1):
        _fail(program, f"{where} copies {len(step.reads)} tensors to {len(step.writes)}")
    offset, size = step.workspace
    if offset < 0 or size < 0 or offset + size > program.arena_bytes:
        _fail(program, f"{where} has a workspace at {offset}+{size}, the arena has {program.arena_bytes} bytes")
    for arg in step.args:
        _check_arg(program, where, step, arg)


def _check_arg(program: Program, where: str, step: Step, arg: Arg) -> None:
    if arg.kind == "tensor":
        if arg.value not in step.reads and arg.value not in step.writes:
            _fail(program, f"{where} passes tensor {arg.value}, which it neither reads nor writes")
    elif arg.kind == "int":
        unknown = symbols(arg.value) - set(program.symbols)
        if unknown:
            _fail(program, f"{where} uses unknown symbols {sorted(unknown)}")
    elif arg.kind != "workspace":
        _fail(program, f"{where} has an argument of unknown kind {arg.kind!r}")


def _check_written(program: Program) -> None:
    """Every read is of something written before it in step order."""
    written = {n for n, t in enumerate(program.tensors) if t.space in ("input", "weights")}
    spans = {(program.tensors[n].space, program.tensors[n].offset) for n in written}
    for number, step in enumerate(program.steps):
        for n in step.reads:
            t = program.tensors[n]
            if n not in written and (t.space, t.offset) not in spans and t.space != "dynamic":
                if not any(_inside(t, program.tensors[w]) or _inside(program.tensors[w], t) for w in written):
                    _fail(program, f"step {number} ({step.name}) reads tensor {n} ({t.name}) before anything writes it")
        for n in step.writes:
            written.add(n)
            spans.add((program.tensors[n].space, program.tensors[n].offset))


def _inside(inner: Tensor, outer: Tensor) -> bool:
    return (
        inner.space == outer.space
        and outer.offset <= inner.offset
        and inner.offset + inner.nbytes <= outer.offset + outer.nbytes
    )
