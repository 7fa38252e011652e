"""The tactic contract: what a kernel is asked for (`Problem`), and what it answers (`KernelCode`).

A Problem is a fused group: an anchor op (matmul, conv, softmax, ...) with an optional epilogue expression, or a pure
compute group (op "group", a ComputeDef). Operands are numbered: the anchor's inputs first, then the epilogue's extra
operands; outputs follow the operands. A tactic is one way to compute it, in one kernel language.

C kernels have one prototype, whatever they do:

    void ENTRY(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread)

`p` holds the pointers of the launch's Ptr arguments in order, `d` its Int arguments in order. The pool splits the
launch's `grid[0]` work items among the threads and calls ENTRY for disjoint ranges [begin, end); `thread` numbers the
caller. Launches of one kernel run one after the other, with a barrier between.

Triton and CUDA C++ kernels take the arguments in the order of the launch's `args`, and a grid of up to three dims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from bessemer.core import canon
from bessemer.core.dim import Dim, substitute
from bessemer.core.interval import Range
from bessemer.core.registry import Registry
from bessemer.core.tensor_map import TensorMap
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import Attr, TensorType

WORKSPACE = -1  # the operand number of the kernel's scratch memory
COUNTERS = -2  # that of its counters, i32: zero when a launch begins, and zero again when it ends
MOST_COUNTERS = 1 << 16
LANGUAGES = frozenset({"c", "cuda", "triton"})


@dataclass(frozen=True, slots=True)
class Operand:
    """An input of a problem. A constant operand (a weight) may be packed at build time."""

    type: TensorType
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Into:
    """Columns `start` and on of a tensor whose rows, along its last axis, are `width` elements long. What lies beside
    them belongs to other kernels."""

    start: int
    width: int


@dataclass(frozen=True)
class Problem:
    """What is to be computed. Frozen and hashable: equal problems are tuned once.

    `result` is the anchor's own output type, at the output's coordinates; with an epilogue, `outputs[0]` may have
    another dtype (never another shape). `epilogue` is over `Acc`, the output's axes and `Load`s of operands;
    None stores the anchor's result. `body` is the whole computation of a "group".

    `into` says that output 0, which is what `outputs` says, is written into columns of a wider tensor. With `sums`, the
    last output are the sums of the rows of output 0 as ops/row_sums.py defines them.
    """

    op: str
    operands: tuple[Operand, ...]
    outputs: tuple[TensorType, ...]
    attrs: tuple[tuple[str, Attr], ...] = ()
    anchors: int = 0
    result: TensorType | None = None
    epilogue: ex.Expr | None = None
    body: ex.ComputeDef | None = None
    ranges: tuple[tuple[str, Range], ...] = ()
    into: Into | None = None
    sums: bool = False

    def attr(self, name: str) -> Any:
        """The anchor's attribute `name`; KeyError where it has none."""
        return dict(self.attrs)[name]

    @cached_property
    def range_map(self) -> Mapping[str, Range]:
        return dict(self.ranges)

    def typical(self, d: Dim) -> int:
        """`d` at the profile's opt shape: what tactics size and the tuner times."""
        value = substitute(d, {name: r.typical for name, r in self.ranges})
        if not isinstance(value, int):
            raise ValueError(f"no typical value for {d}")
        return value

    @property
    def written(self) -> tuple[TensorType, ...]:
        """The types of the tensors that the outputs are written to."""
        if self.into is None:
            return self.outputs
        out = self.outputs[0]
        return (TensorType(out.dtype, (*out.shape[:-1], self.into.width)), *self.outputs[1:])

    @cached_property
    def key(self) -> str:
        """A stable text of all that matters; the timing cache's key hashes it."""
        more: dict[str, object] = {} if self.into is None else {"into": [self.into.start, self.into.width]}
        more |= {"sums": True} if self.sums else {}
        return canon.dumps(
            {
                "op": self.op,
                "operands": [[str(o.type), o.constant] for o in self.operands],
                "outputs": [str(t) for t in self.outputs],
                "attrs": {k: str(v) for k, v in self.attrs},
                "anchors": self.anchors,
                "result": str(self.result),
                "epilogue": exprtree.text(self.epilogue) if self.epilogue is not None else None,
                "body": exprtree.text(self.body.expr) if self.body is not None else None,
                "ranges": {k: [r.lo, r.hi, r.opt, r.multiple] for k, r in self.ranges},
                **more,
            }
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.key == other.key


@dataclass(frozen=True, slots=True)
class Ptr:
    """The address of operand number `operand`, of output `len(operands) + j`, of the WORKSPACE or the COUNTERS."""

    operand: int


@dataclass(frozen=True, slots=True)
class Int:
    """An integer, evaluated once per shape."""

    value: Dim
    bits: int = 64


@dataclass(frozen=True, slots=True)
class Map:
    """A tensor map of an operand or output, numbered as Ptr does, evaluated once per shape (CUDA C++ of sm_90 alone).

    The kernel takes it by value, `const __grid_constant__ TensorMap`."""

    operand: int
    map: TensorMap


Arg = Ptr | Int | Map


@dataclass(frozen=True)
class Launch:
    """One call of `entry`: its grid (C: one dim, the number of work items) and its arguments."""

    entry: str
    grid: tuple[Dim, ...]
    args: tuple[Arg, ...]
    options: tuple[tuple[str, Any], ...] = ()  # Triton: num_warps, num_stages, constexprs by name
    # CUDA: warps, shared (bytes), cluster (programs; it divides the first dim of the grid), pdl


@dataclass(frozen=True, slots=True)
class Pack:
    """Operand `operand` (a constant) is stored as `type`, made by the named weight transform with `params`."""

    operand: int
    transform: str
    params: tuple[Any, ...]
    type: TensorType


@dataclass(frozen=True)
class KernelCode:
    """What a tactic emits. Equal texts are compiled once, so pass sizes as Int arguments and bake in only tiles.

    `text` must define every launch's entry; `{name}`-free, complete but for the target's prelude. `workspace` counts
    bytes, `counters` 32-bit integers, at most MOST_COUNTERS, that all launches of a context share.
    """

    language: str
    text: str
    launches: tuple[Launch, ...]
    packs: tuple[Pack, ...] = ()
    workspace: Dim = 0
    counters: Dim = 0


Config = Mapping[str, int | str]


@dataclass(frozen=True)
class Reason:
    """Why a tactic does not apply; kept for `inspect`, but for `other_op`: that it is for another op."""

    text: str
    other_op: bool = False


def other_op(problem: Problem, ops: Sequence[str], into: int = 0, sums: bool = False) -> Reason | None:
    """The reason of a tactic for `ops` to leave another op alone, one whose rows are to be added up (unless `sums`), or
    what is written into columns of a wider tensor: it takes those that start at a multiple of `into` where the width is
    one too, with 0 none."""
    if problem.op not in ops:
        return Reason(f"computes {', '.join(ops)}, not {problem.op}", other_op=True)
    if problem.sums and not sums:
        return Reason("does not add up the rows that it makes")
    columns = problem.into
    if columns is None:
        return None
    if not into:
        return Reason("writes whole tensors, not columns of wider ones")
    if columns.start % into or columns.width % into:
        return Reason(f"stores runs of {into} elements, not those from column {columns.start} on of {columns.width}")
    return None


class Limits(Protocol):
    """What a tactic may ask of a target."""

    @property
    def name(self) -> str: ...
    @property
    def arch(self) -> str: ...  # "avx512", "avx2", "scalar"; "sm_90"
    @property
    def limits(self) -> Mapping[str, int]: ...  # threads, vector_bytes, l1/l2/l3 bytes; sms, shared_bytes


class Tactic(Protocol):
    """One way to compute a family of problems. `version` is part of the timing cache's key: raise it with changes.

    A tactic may have `estimate(problem, target, config) -> float` too, microseconds at the opt shape: what is chosen by
    where nothing was measured, and what candidates are timed at all.
    """

    name: str
    version: int
    language: str

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        """None where this tactic computes `problem`, else why not."""

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        """Candidate configurations; the first is the default (used without tuning), best guesses early."""

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        """The code for one configuration."""


@dataclass(frozen=True)
class WeightTransform:
    """A named, pure layout or dtype change of a weight, run while the engine is written."""

    name: str
    apply: Any = field(compare=False)  # (array, *params) -> array


TACTICS: Registry[Tactic] = Registry("tactic", "bessemer.kernels")
TRANSFORMS: Registry[WeightTransform] = Registry("weight transform", "bessemer.kernels")


def register(tactic: Tactic) -> Tactic:
    """Add a tactic; its name must be new."""
    return TACTICS.add(tactic.name, tactic)


Transform = TypeVar("Transform", bound=Callable[..., Any])


def transform(name: str) -> Callable[[Transform], Transform]:
    """`@transform("pack_b")` registers a function (array, *params) -> array as a weight transform."""

    def wrap(fn: Transform) -> Transform:
        TRANSFORMS.add(name, WeightTransform(name, fn))
        return fn

    return wrap


def of_language(tactics: Mapping[str, Tactic], languages: Sequence[str]) -> Sequence[Tactic]:
    """The tactics whose kernel language is one of `languages`, sorted by name."""
    return [tactics[name] for name in sorted(tactics) if tactics[name].language in languages]
