"""The program: what an engine holds and the runtime runs. Data only, shared by the builder and the runtime.

Tensors live in a space: "input" and "output" (the caller's buffers), "weights" (the file's weight section), "arena"
(one block per context), or "dynamic" (sizes known only while running; allocated then). Offsets are bytes, fixed at
build time for the largest shapes. Sizes that depend on the input are dims (see core.dim), evaluated once per shape.

Steps run in order, but for branches:

    kernel   one launch of a compiled kernel
    host     the numpy reference of an op, a loop with its body too (slow; `inspect` says so). May bind data-dependent
             symbols.
    copy     bytes of one tensor to another
    branch   go to step `target` where the bool tensor reads[0] is false
    jump     go to step `target`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bessemer.core.dim import Dim
from bessemer.core.dimtext import parse
from bessemer.core.dtype import DType
from bessemer.core.dtype import parse as parse_dtype
from bessemer.core.interval import Range
from bessemer.core.tensor_map import TensorMap, Window

SPACES = ("input", "output", "weights", "arena", "dynamic")
STEP_KINDS = ("kernel", "host", "copy", "branch", "jump")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A region of memory. `offset` is in bytes within its space; for "input" and "output" it is the binding's number,
    for "dynamic" the number of the allocation (a view has that of the tensor it looks into; so have tensors that are
    never in use together). A view that starts elsewhere at other shapes has the place and the bytes of what it looks
    into, and starts `shift` bytes after it."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    space: str
    offset: int
    nbytes: int  # at the largest shape; 0 for "dynamic"
    shift: Dim = 0


@dataclass(frozen=True, slots=True)
class Arg:
    """A kernel argument: kind "tensor" (value: tensor number), "int" (a dim), "workspace" (0: the step's own),
    "counters" (0: the context's) or "map" (value: tensor number, with `map` of it)."""

    kind: str
    value: Dim
    bits: int = 64
    map: TensorMap | None = None


@dataclass(frozen=True)
class Step:
    """One step. `reads` and `writes` are tensor numbers; fields that do not belong to the kind are empty."""

    kind: str
    name: str
    op: str = ""
    origin: tuple[str, ...] = ()  # ONNX nodes it stands for
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    kernel: int = -1  # number in Program.kernels
    args: tuple[Arg, ...] = ()
    grid: tuple[Dim, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)  # host: the op's attributes, JSON-encoded (see codec)
    target: int = -1
    flops: Dim = 0
    nbytes: Dim = 0  # compulsory traffic: each operand read once, each output written once
    workspace: tuple[int, int] = (0, 0)  # arena offset and size of the kernel's scratch
    counters: int = 0  # 32-bit integers that are zero when the kernel starts, and that it leaves zero


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: the symbol, where its binary is, how it was chosen, and its source."""

    entry: str
    tactic: str
    config: Mapping[str, int | str]
    blob: int  # number in the engine's kernel section
    source: str
    language: str
    time_us: float | None = None  # measured when it was chosen; None: from the roofline model
    chosen_by: str = "default"
    rejected: tuple[tuple[str, str], ...] = ()  # (tactic, why not)
    abi: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol's range, and the input binding and axis that gives its value ((-1, -1): data-dependent)."""

    range: Range
    input: int = -1
    axis: int = -1


@dataclass(frozen=True, slots=True)
class Equality:
    """Two sizes that are equal wherever the inputs fit the model; `nodes` are the ONNX nodes that take them to be.

    With `or_one` the left one may be 1 too, as of operands that are broadcast."""

    left: Dim
    right: Dim
    nodes: str
    or_one: bool = False


@dataclass(frozen=True)
class Program:
    """All of it. `inputs` and `outputs` are tensor numbers in signature order."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    kernels: tuple[Kernel, ...]
    symbols: Mapping[str, Symbol]
    arena_bytes: int
    weights_bytes: int
    peak_bytes: int  # the largest sum of live arena tensors
    equalities: tuple[Equality, ...] = ()  # a run at other shapes is refused

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """What each symbol may be."""
        return {name: s.range for name, s in self.symbols.items()}

    @cached_property
    def typical(self) -> dict[str, int]:
        """The value of each symbol that kernels were tuned at."""
        return {name: s.range.typical for name, s in self.symbols.items()}

    @property
    def counters(self) -> int:
        """How many a context holds, for all steps: kernels run one after the other."""
        return max((s.counters for s in self.steps), default=0)


def to_json(program: Program) -> dict[str, Any]:
    """JSON-ready data; dims as text."""
    return {
        "name": program.name,
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "tensors": [_tensor_to_json(t) for t in program.tensors],
        "steps": [_step_to_json(s) for s in program.steps],
        "kernels": [_kernel_to_json(k) for k in program.kernels],
        "symbols": {
            name: [s.range.lo, s.range.hi, s.range.opt, s.range.multiple, s.input, s.axis]
            for name, s in program.symbols.items()
        },
        "arena_bytes": program.arena_bytes,
        "weights_bytes": program.weights_bytes,
        "peak_bytes": program.peak_bytes,
        **_equalities_to_json(program.equalities),
    }


def _equalities_to_json(equalities: tuple[Equality, ...]) -> dict[str, Any]:
    """Nothing where there are none: engines had none at first."""
    rows = [[str(e.left), str(e.right), e.nodes, *([True] if e.or_one else [])] for e in equalities]
    return {"equalities": rows} if equalities else {}


def _equality_from_json(row: list[Any]) -> Equality:
    left, right, nodes, *or_one = row
    if or_one not in ([], [True]):
        raise ValueError(f"not an equality: {row!r}")
    return Equality(parse(left), parse(right), str(nodes), bool(or_one))


def _tensor_to_json(t: Tensor) -> list[Any]:
    shift = [] if t.shift == 0 else [str(t.shift)]
    return [t.name, t.dtype.name, [str(d) for d in t.shape], t.space, t.offset, t.nbytes, *shift]


def _step_to_json(s: Step) -> dict[str, Any]:
    out: dict[str, Any] = {"kind": s.kind, "name": s.name}
    plain = {"op": s.op, "origin": list(s.origin), "reads": list(s.reads), "writes": list(s.writes),
             "attrs": dict(s.attrs), "grid": [str(d) for d in s.grid],
             "args": [_arg_to_json(a) for a in s.args]}  # fmt: skip
    out.update({k: v for k, v in plain.items() if v})
    if s.kernel >= 0:
        out["kernel"] = s.kernel
    if s.target >= 0:
        out["target"] = s.target
    if s.workspace[1]:
        out["workspace"] = list(s.workspace)
    if s.counters:
        out["counters"] = s.counters
    out.update({k: str(v) for k, v in (("flops", s.flops), ("nbytes", s.nbytes)) if v != 0})
    return out


def _arg_to_json(a: Arg) -> list[Any]:
    plain: list[Any] = [a.kind, str(a.value), a.bits]
    if a.map is None:
        return plain
    sizes = [[str(d) for d in values] for values in (a.map.dims, a.map.strides)]
    w = a.map.window
    window = None if w is None else [list(w.lower), list(w.upper), list(w.steps)]
    return [*plain, [*sizes, list(a.map.box), a.map.swizzle, window]]


def _kernel_to_json(k: Kernel) -> dict[str, Any]:
    return {
        "entry": k.entry, "tactic": k.tactic, "config": dict(k.config), "blob": k.blob, "source": k.source,
        "language": k.language, "time_us": k.time_us, "chosen_by": k.chosen_by,
        "rejected": [list(r) for r in k.rejected], "abi": dict(k.abi),
    }  # fmt: skip


def from_json(data: Mapping[str, Any]) -> Program:
    """The program that `to_json` wrote; KeyError, TypeError or ValueError where the data are not one."""
    return Program(
        name=str(data["name"]),
        inputs=_ints(data["inputs"]),
        outputs=_ints(data["outputs"]),
        tensors=tuple(_tensor_from_json(*t) for t in data["tensors"]),
        steps=tuple(_step_from_json(s) for s in data["steps"]),
        kernels=tuple(_kernel_from_json(k) for k in data["kernels"]),
        symbols={
            str(name): Symbol(Range(_int(lo), _int(hi), None if opt is None else _int(opt), _int(m)), _int(i), _int(a))
            for name, (lo, hi, opt, m, i, a) in data["symbols"].items()
        },
        arena_bytes=_int(data["arena_bytes"]),
        weights_bytes=_int(data["weights_bytes"]),
        peak_bytes=_int(data["peak_bytes"]),
        equalities=tuple(_equality_from_json(row) for row in data.get("equalities", ())),
    )


def _tensor_from_json(
    name: Any, dtype: Any, shape: Any, space: Any, offset: Any, nbytes: Any, shift: Any = "0"
) -> Tensor:  # fmt: skip
    dims = tuple(parse(d) for d in shape)
    return Tensor(str(name), parse_dtype(dtype), dims, str(space), _int(offset), _int(nbytes), parse(shift))


def _step_from_json(s: Mapping[str, Any]) -> Step:
    workspace = s.get("workspace", [0, 0])
    return Step(
        kind=str(s["kind"]),
        name=str(s["name"]),
        op=str(s.get("op", "")),
        origin=tuple(str(o) for o in s.get("origin", ())),
        reads=_ints(s.get("reads", ())),
        writes=_ints(s.get("writes", ())),
        kernel=_int(s.get("kernel", -1)),
        args=tuple(_arg_from_json(*a) for a in s.get("args", ())),
        grid=tuple(parse(d) for d in s.get("grid", ())),
        attrs=dict(s.get("attrs", {})),
        target=_int(s.get("target", -1)),
        flops=parse(s.get("flops", "0")),
        nbytes=parse(s.get("nbytes", "0")),
        workspace=(_int(workspace[0]), _int(workspace[1])),
        counters=_int(s.get("counters", 0)),
    )


def _arg_from_json(kind: Any, value: Any, bits: Any, tensor_map: Any = None) -> Arg:
    if tensor_map is None:
        return Arg(str(kind), parse(value), _int(bits))
    dims, strides, box, swizzle, window = tensor_map
    sizes, steps = (tuple(parse(d) for d in values) for values in (dims, strides))
    corners = None if window is None else Window(*(_ints(values) for values in window))
    return Arg(str(kind), parse(value), _int(bits), TensorMap(sizes, steps, _ints(box), _int(swizzle), corners))


def _kernel_from_json(k: Mapping[str, Any]) -> Kernel:
    return Kernel(
        entry=str(k["entry"]), tactic=str(k["tactic"]), config=dict(k["config"]), blob=_int(k["blob"]),
        source=str(k["source"]), language=str(k["language"]),
        time_us=None if k["time_us"] is None else float(k["time_us"]), chosen_by=str(k["chosen_by"]),
        rejected=tuple((str(a), str(b)) for a, b in k["rejected"]), abi=dict(k["abi"]),
    )  # fmt: skip


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"an integer was expected, not {value!r}")
    if abs(value) >= 2**63:
        raise ValueError(f"{value} does not fit 64 bits")
    return value


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(_int(v) for v in values)
