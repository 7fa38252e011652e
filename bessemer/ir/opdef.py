"""What an op is: one `OpDef`, declared in one file of `bessemer/ops`.

    infer       node and input types -> output types (dims stay symbolic)
    reference   numpy arrays -> numpy arrays; the oracle of every kernel, and the host step where no kernel exists
    compute     types -> ComputeDef, where the op is one scalar expression per output element
    taken       types -> pairs of sizes that it takes to be equal, where the types do not make them so
    samples     small problems that the conformance suite runs on every target against the reference

bf16 arrays reach a reference as f32 values already rounded to bf16; what it returns is rounded by the caller.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from bessemer.core.dim import Dim
from bessemer.core.interval import Range
from bessemer.core.registry import Registry
from bessemer.ir.expr import ComputeDef
from bessemer.ir.graph import Attr, TensorType


class Fusion(enum.Enum):
    """How an op fuses."""

    POINTWISE = "pointwise"  # compute definition; output element reads the same coordinates (or broadcast)
    INJECTIVE = "injective"  # compute definition; any index map: transpose, slice, pad, concat, gather
    REDUCTION = "reduction"  # compute definition with a Reduce
    VIEW = "view"  # same bytes, other shape: no kernel, an alias
    TEMPLATE = "template"  # tactics of its own; may absorb an epilogue
    HOST = "host"  # no kernel: the numpy reference runs as a host step, and inspect says so
    CONTROL = "control"  # holds subgraphs


@dataclass(frozen=True)
class InferContext:
    """What `infer` and `compute` may ask."""

    types: tuple[TensorType | None, ...]
    attrs: Mapping[str, Attr]
    ranges: Mapping[str, Range]
    values: tuple[np.ndarray | None, ...] = ()  # constant inputs; object arrays of Dim where partly symbolic
    fresh: Callable[[str, Dim | None], Dim] | None = None  # (hint, upper bound) -> a new data-dependent symbol

    def type(self, k: int) -> TensorType:
        """Type of input `k`; it must be present."""
        t = self.types[k] if k < len(self.types) else None
        if t is None:
            raise ValueError(f"input {k} is required")
        return t

    def has(self, k: int) -> bool:
        return k < len(self.types) and self.types[k] is not None

    def value(self, k: int) -> np.ndarray | None:
        return self.values[k] if k < len(self.values) else None

    def attr(self, name: str) -> Any:
        return self.attrs[name]


@dataclass(frozen=True)
class Sample:
    """One small problem: input arrays (None for an absent optional input) and attributes."""

    inputs: tuple[np.ndarray | None, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    tolerance: float = 1e-5  # relative error of the norm, for f32
    note: str = ""


Infer = Callable[[InferContext], tuple[TensorType, ...]]


@dataclass(frozen=True)
class OpDef:
    """One op. `reference(inputs, attrs)` gets the input arrays (None for absent ones) and the attributes."""

    name: str
    infer: Infer
    reference: Callable[[Sequence[np.ndarray | None], Mapping[str, Attr]], tuple[np.ndarray, ...]]
    fusion: Fusion
    compute: Callable[[InferContext], ComputeDef] | None = None
    flops: Callable[[InferContext], Dim] | None = None
    samples: Callable[[np.random.Generator], Sequence[Sample]] | None = None
    symbolic: bool = False  # the reference also works on object arrays of Dim (shape arithmetic)
    random: bool = False  # not a function of its inputs: never folded, never merged
    explicit: bool = False  # over a constant matrix it stays a node while a graph is built, for passes to decide
    taken: Callable[[InferContext], Iterable[tuple[Dim, Dim]]] | None = None  # see ops/equalities.py; ops.bounds: <=


# The ranges of the symbols in object arrays of dims, while a reference works on such arrays.
SYMBOL_RANGES: ContextVar[Mapping[str, Range]] = ContextVar("SYMBOL_RANGES", default=MappingProxyType({}))
OPS: Registry[OpDef] = Registry("op", "bessemer.ops")


def register(op: OpDef) -> OpDef:
    """Add `op` to the registry; a second op of that name is an error."""
    if op.fusion in (Fusion.POINTWISE, Fusion.INJECTIVE, Fusion.REDUCTION) and op.compute is None:
        raise RuntimeError(f"op {op.name}: fusion class {op.fusion.value} needs a compute definition")
    return OPS.add(op.name, op)
