"""What lowering gives: a flat list of items in execution order, over values of all nested graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bessemer.core.dim import Dim
from bessemer.core.interval import Range
from bessemer.ir.graph import Constant, Node, TensorType
from bessemer.kernels.base import Problem


@dataclass(frozen=True)
class KernelItem:
    """A fused group: `operands` are the problem's operands, `outputs` what it writes."""

    problem: Problem
    operands: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    flops: Dim = 0


@dataclass(frozen=True)
class HostItem:
    """An op run by its numpy reference, and why ("": it runs only to raise an error). `captured` are outer values that
    its subgraphs read."""

    node: Node
    why: str
    captured: tuple[str, ...] = ()


@dataclass(frozen=True)
class AliasItem:
    """`value` is `source`'s bytes from `offset` on, under another shape."""

    value: str
    source: str
    offset: Dim = 0


@dataclass(frozen=True)
class JoinItem:
    """`value` is its parts, which were written where they lie in it, `offsets` bytes from its start."""

    value: str
    parts: tuple[str, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class CopyItem:
    """The bytes of `source` are copied to `value`."""

    value: str
    source: str


@dataclass(frozen=True)
class BranchItem:
    """Go to `label` where the bool `condition` is false."""

    condition: str
    label: int


@dataclass(frozen=True)
class JumpItem:
    """Go to `label`."""

    label: int


@dataclass(frozen=True)
class LabelItem:
    """A place to go to."""

    label: int


Item = KernelItem | HostItem | AliasItem | JoinItem | CopyItem | BranchItem | JumpItem | LabelItem


@dataclass(frozen=True)
class Lowered:
    """Items, and what is known of the values they name."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    items: tuple[Item, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Constant]
    ranges: Mapping[str, Range]
    metadata: Mapping[str, str]
    output_names: tuple[str, ...]

    @property
    def bound_symbols(self) -> frozenset[str]:
        """The symbols whose values the inputs' shapes give."""
        return frozenset(str(d) for v in self.inputs for d in self.types[v].shape if str(d) in self.ranges)


def written(item: Item) -> tuple[str, ...]:
    """Values an item writes."""
    match item:
        case KernelItem():
            return item.outputs
        case HostItem():
            return tuple(o for o in item.node.outputs if o)
        case AliasItem() | JoinItem() | CopyItem():
            return (item.value,)
    return ()


def read(item: Item) -> tuple[str, ...]:
    """Values an item reads."""
    match item:
        case KernelItem():
            return item.operands
        case HostItem():
            return tuple(i for i in (*item.node.inputs, *item.captured) if i)
        case AliasItem() | CopyItem():
            return (item.source,)
        case JoinItem():
            return item.parts
        case BranchItem():
            return (item.condition,)
    return ()
