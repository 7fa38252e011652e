"""Checks a program once, before anything of it runs, so that running it needs no checks.

Every number of a tensor, kernel, step or symbol is in range; every tensor lies inside its space at the largest shape;
every step reads only what an earlier step, an input or the weights wrote; no two arena tensors that live at the same
time overlap, unless one is a view (the same bytes, or inside) of the other: see engine.liveness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from bessemer.core.dim import Dim, product, symbols
from bessemer.core.errors import EngineFormatError
from bessemer.core.interval import INF, Range, bounds, divisible
from bessemer.core.tensor_map import BITS, ELEMENTS, defect
from bessemer.engine.format import WEIGHT_ALIGN
from bessemer.engine.liveness import broken_read
from bessemer.engine.program import SPACES, STEP_KINDS, Arg, Equality, Program, Step, Symbol, Tensor

BYTES_LIMIT = 1 << 48  # no machine has more: sizes beyond are nonsense
COUNTERS_LIMIT = 1 << 16  # of one step
CLUSTERS = range(1, 9)  # programs that a GPU schedules together


def verify(program: Program, n_blobs: int, weights_bytes: int) -> None:
    """EngineFormatError naming the first rule that `program` breaks."""
    ranges = program.ranges
    if program.weights_bytes > weights_bytes:
        _fail(program, f"it needs {program.weights_bytes} bytes of weights, the file has {weights_bytes}")
    if not 0 <= program.arena_bytes < BYTES_LIMIT or program.weights_bytes < 0:
        _fail(program, f"it needs an arena of {program.arena_bytes} and weights of {program.weights_bytes} bytes")
    for io, space in ((program.inputs, "input"), (program.outputs, "output")):
        _check_bindings(program, io, space)
    for name, symbol in program.symbols.items():
        _check_symbol(program, name, symbol)
    for equality in program.equalities:
        _check_equality(program, equality)
    for number, tensor in enumerate(program.tensors):
        _check_tensor(program, number, tensor, ranges)
    for kernel in program.kernels:
        if not 0 <= kernel.blob < n_blobs:
            _fail(program, f"kernel {kernel.entry} is in binary {kernel.blob} of {n_blobs}")
    for number, step in enumerate(program.steps):
        _check_step(program, number, step)
    _check_written(program)
    problem = broken_read(program)
    if problem is not None:
        _fail(program, problem)


def _fail(program: Program, what: str) -> NoReturn:
    raise EngineFormatError(f"the engine's program {program.name!r} is unsafe: {what}")


def _check_bindings(program: Program, numbers: tuple[int, ...], space: str) -> None:
    for position, number in enumerate(numbers):
        if not 0 <= number < len(program.tensors):
            _fail(program, f"{space} {position} is tensor {number} of {len(program.tensors)}")
        t = program.tensors[number]
        if (t.space, t.offset) != (space, position):
            _fail(program, f"{space} {position} ({t.name}) lies in space {t.space!r} at number {t.offset}")


def _check_symbol(program: Program, name: str, symbol: Symbol) -> None:
    r = symbol.range
    if not 0 <= r.lo <= r.hi <= INF or r.multiple < 1 or not (r.opt is None or r.lo <= r.opt <= r.hi):
        _fail(program, f"symbol {name} has no valid range: {r}")
    if (symbol.input, symbol.axis) == (-1, -1):
        return
    if not 0 <= symbol.input < len(program.inputs):
        _fail(program, f"symbol {name} is bound to input {symbol.input} of {len(program.inputs)}")
    rank = len(program.tensors[program.inputs[symbol.input]].shape)
    if not 0 <= symbol.axis < rank:
        _fail(program, f"symbol {name} is bound to axis {symbol.axis} of an input of rank {rank}")


def _check_tensor(program: Program, number: int, t: Tensor, ranges: Mapping[str, Range]) -> None:
    where = f"tensor {number} ({t.name})"
    if t.space not in SPACES:
        _fail(program, f"{where} is in unknown space {t.space!r}")
    if t.offset < 0 or t.nbytes < 0:
        _fail(program, f"{where} has a negative offset or size")
    if any(isinstance(d, int) and not 0 <= d < BYTES_LIMIT for d in t.shape):
        _fail(program, f"{where} has an impossible shape {[str(d) for d in t.shape]}")
    _check_symbols(program, where, t.shape)
    _check_size(program, where, t, _largest(program, t, ranges))
    if t.space == "weights" and t.offset % WEIGHT_ALIGN:
        _fail(program, f"{where} is not aligned to {WEIGHT_ALIGN} bytes")
    if t.shift != 0:
        _check_shift(program, where, t, ranges)


def _check_shift(program: Program, where: str, t: Tensor, ranges: Mapping[str, Range]) -> None:
    """Whether a view that starts elsewhere at other shapes ends, at each, inside what it looks into."""
    _check_symbols(program, where, (t.shift,))
    size = product(t.shape) * t.dtype.itemsize
    if t.space == "dynamic":
        holders = [o for o in program.tensors if (o.space, o.offset, o.shift) == ("dynamic", t.offset, 0)]
        sizes = (product(o.shape) * o.dtype.itemsize for o in holders)  # the allocation is as large as the largest
        room = max((bounds(s - t.shift - size, ranges)[0] for s in sizes), default=-1)
    else:
        room = t.nbytes - bounds(t.shift + size, ranges)[1]
    if t.space not in ("arena", "dynamic") or t.dtype.kind == "s" or bounds(t.shift, ranges)[0] < 0 or room < 0:
        _fail(program, f"{where} starts {t.shift} bytes into what it looks into, and may end outside")
    if not divisible(t.shift, WEIGHT_ALIGN, ranges):
        _fail(program, f"{where} starts {t.shift} bytes into what it looks into, not at multiples of {WEIGHT_ALIGN}")


def _largest(program: Program, t: Tensor, ranges: Mapping[str, Range]) -> int:
    """Bytes of the tensor at the largest shape. Where a loose bound leaves it more than it has, sizes count too
    that its own is compared with before it is used: what inputs tell, or what is known once its own symbols are."""
    size = product(t.shape)
    largest = bounds(size * t.dtype.itemsize, ranges)[1]
    if largest <= t.nbytes:
        return largest
    known = symbols(size) | {name for name, symbol in program.symbols.items() if symbol.input >= 0}
    pairs = [(e.left, e.right) for e in program.equalities if not e.or_one]
    compared = [(a, b) for a, b in pairs if symbols(a) | symbols(b) <= known]
    equal = {size}
    while found := {d for pair in compared if not equal.isdisjoint(pair) for d in pair} - equal:
        equal |= found
    return min(bounds(d * t.dtype.itemsize, ranges)[1] for d in equal)


def _check_size(program: Program, where: str, t: Tensor, largest: int) -> None:
    """Whether the tensor lies in its space at the largest shape."""
    bindings = {"input": program.inputs, "output": program.outputs}.get(t.space)
    if bindings is not None:
        if t.offset >= len(bindings):
            _fail(program, f"{where} views {t.space} {t.offset} of {len(bindings)}")
        if t.nbytes > program.tensors[bindings[t.offset]].nbytes:
            _fail(program, f"{where} is larger than {t.space} {t.offset}, which it views")
    limit = {"arena": program.arena_bytes, "weights": program.weights_bytes}.get(t.space)
    if limit is not None and t.offset + t.nbytes > limit:
        _fail(program, f"{where} ends at {t.offset + t.nbytes}, its space at {limit}")
    if t.dtype.kind == "s":
        if t.space not in ("input", "output", "dynamic"):
            _fail(program, f"{where} holds strings, which live on the host")
    elif t.space != "dynamic" and largest > t.nbytes:
        _fail(program, f"{where} can grow to {largest} bytes, it has {t.nbytes}")


def _check_equality(program: Program, equality: Equality) -> None:
    where = f"the equality of {equality.left} and {equality.right}"
    _check_symbols(program, where, (equality.left, equality.right))


def _check_symbols(program: Program, where: str, dims: Iterable[Dim]) -> None:
    unknown = {s for d in dims for s in symbols(d)} - set(program.symbols)
    if unknown:
        _fail(program, f"{where} uses unknown symbols {sorted(unknown)}")


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
    _check_symbols(program, where, (*step.grid, step.flops, step.nbytes))
    if step.kind == "kernel":
        if not 0 <= step.kernel < len(program.kernels):
            _fail(program, f"{where} uses kernel {step.kernel} of {len(program.kernels)}")
        if not 1 <= len(step.grid) <= 3:
            _fail(program, f"{where} has a grid of {len(step.grid)} dims")
        _check_cluster(program, where, step, program.kernels[step.kernel].abi.get("cluster", 1))
    if step.kind in ("branch", "jump") and not number < step.target <= len(program.steps):
        _fail(program, f"{where} goes to step {step.target} of {len(program.steps)}")
    tensors = [program.tensors[n] for n in (*step.reads, *step.writes)]
    if step.kind == "branch" and [t.dtype.kind for t in tensors] != ["b"]:
        _fail(program, f"{where} does not branch on one bool")
    if step.kind == "copy":
        if (len(step.reads), len(step.writes)) != (1, 1):
            _fail(program, f"{where} copies {len(step.reads)} tensors to {len(step.writes)}")
        if (tensors[0].dtype, tensors[0].shape) != (tensors[1].dtype, tensors[1].shape):
            _fail(program, f"{where} copies between tensors of different types")
    offset, size = step.workspace
    if offset < 0 or size < 0 or offset + size > program.arena_bytes:
        _fail(program, f"{where} has a workspace at {offset}+{size}, the arena has {program.arena_bytes} bytes")
    if not 0 <= step.counters <= COUNTERS_LIMIT:
        _fail(program, f"{where} has {step.counters} counters, not up to {COUNTERS_LIMIT}")
    for arg in step.args:
        _check_arg(program, where, step, arg)


def _check_cluster(program: Program, where: str, step: Step, cluster: Any) -> None:
    if cluster not in CLUSTERS:
        _fail(program, f"{where} has clusters of {cluster!r}, not of 1 to 8")
    ranges = program.ranges
    if not divisible(step.grid[0], cluster, ranges):
        _fail(program, f"{where} has a grid of {step.grid[0]} in clusters of {cluster}")


def _check_arg(program: Program, where: str, step: Step, arg: Arg) -> None:
    if arg.map is not None and arg.kind != "map":
        _fail(program, f"{where} has a tensor map for an argument of kind {arg.kind!r}")
    match arg.kind:
        case "tensor":
            if arg.value not in step.reads and arg.value not in step.writes:
                _fail(program, f"{where} passes tensor {arg.value}, which it neither reads nor writes")
        case "int":
            if arg.bits not in (32, 64):
                _fail(program, f"{where} has an integer argument of {arg.bits} bits")
            _check_symbols(program, where, (arg.value,))
        case "map":
            _check_map(program, where, step, arg)
        case "workspace" | "counters":
            if arg.value != 0:
                _fail(program, f"{where} has its {arg.kind} at {arg.value} of itself")
            if arg.kind == "counters" and not step.counters:
                _fail(program, f"{where} is passed counters and has none")
        case _:
            _fail(program, f"{where} has an argument of unknown kind {arg.kind!r}")


def _check_map(program: Program, where: str, step: Step, arg: Arg) -> None:
    if arg.value not in step.reads and arg.value not in step.writes:
        _fail(program, f"{where} maps tensor {arg.value}, which it neither reads nor writes")
    t = program.tensors[int(arg.value)]  # type: ignore[arg-type]
    if arg.map is None or arg.bits != BITS or t.dtype.name not in ELEMENTS:
        _fail(program, f"{where} has no tensor map of {BITS} bits for tensor {arg.value} of {t.dtype}")
    _check_symbols(program, where, arg.map.sizes())
    ranges = program.ranges
    broken = defect(arg.map, t.dtype.itemsize, product(t.shape) * t.dtype.itemsize, ranges)
    if broken is not None:
        _fail(program, f"{where} maps tensor {arg.value} ({t.name}), and the map {broken}")


def _check_written(program: Program) -> None:
    """Outside the arena, every read is of something written before it in step order, or of a view of that."""
    written = {("input", k) for k in range(len(program.inputs))}
    for number, step in enumerate(program.steps):
        for n in step.reads:
            t = program.tensors[n]
            if t.space in ("output", "dynamic") and (t.space, t.offset) not in written:
                _fail(program, f"step {number} ({step.name}) reads tensor {n} ({t.name}) before anything writes it")
        written.update((program.tensors[n].space, program.tensors[n].offset) for n in step.writes)
