"""Which values share bytes, and in which space each lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bessemer.core.dim import Dim, symbols
from bessemer.core.interval import INF, Ranges, bounds, typical
from bessemer.ir.graph import TensorType
from bessemer.lower.items import AliasItem, CopyItem, HostItem, Item, JoinItem, Lowered, read, written
from bessemer.plan.memory import Interval, aligned, peak, place, share

# Bytes: a tensor or workspace that may grow beyond this is allocated when its size is known. Where it grows with a
# dimension to which nobody gave an upper end, few runs come near the largest size: less is held from the start.
DYNAMIC_LIMIT = 1 << 32
UNBOUNDED_LIMIT = 1 << 28


def planned_bytes(nbytes: Dim, ranges: Ranges) -> int | None:
    """Bytes at the largest shape, to hold from the start; None for what is allocated when its size is known."""
    if isinstance(nbytes, int):
        return nbytes
    grows = bounds(nbytes, {s: r if r.bounded else replace(r, hi=INF) for s, r in ranges.items()})[1] >= INF
    largest = bounds(nbytes, ranges)[1]
    return largest if largest < (UNBOUNDED_LIMIT if grows else DYNAMIC_LIMIT) else None


@dataclass
class Storage:
    """Space and offset of every value of a program without its workspaces."""

    lowered: Lowered
    items: tuple[Item, ...]
    types: dict[str, TensorType]  # of the program's values, and of the copies that outputs need
    roots: dict[str, str] = field(default_factory=dict)
    shifts: dict[str, Dim] = field(default_factory=dict)  # bytes into what `roots` names
    space: dict[str, str] = field(default_factory=dict)  # by root
    offset: dict[str, int] = field(default_factory=dict)  # by root
    block: dict[str, int] = field(default_factory=dict)  # bytes by root: enough for every view of it
    dynamic: int = 0  # allocations made while running
    arena_bytes: int = 0
    peak_bytes: int = 0

    def root(self, value: str) -> str:
        """The value that owns `value`'s bytes."""
        while value in self.roots:
            value = self.roots[value]
        return value

    def shift(self, value: str) -> Dim:
        """Bytes from the start of its root to the start of `value`."""
        total: Dim = 0
        while value in self.roots:
            total = total + self.shifts.get(value, 0)
            value = self.roots[value]
        return total

    def nbytes(self, value: str) -> int:
        """Bytes of `value` at the largest shape."""
        t = self.types[value]
        return 0 if t.dtype.kind == "s" else bounds(t.nbytes, self.lowered.ranges)[1]

    def planned(self, value: str) -> int | None:
        """See `planned_bytes`."""
        t = self.types[value]
        return 0 if t.dtype.kind == "s" else planned_bytes(t.nbytes, self.lowered.ranges)


def assign(lowered: Lowered, workspace: Mapping[int, int]) -> tuple[Storage, dict[int, int]]:
    """Place every value, and the workspace (bytes by item number) of every item that needs one.

    Returns the storage and the workspaces' arena offsets. Outputs that are inputs, constants, parts of a value or
    views shared with another output get a copy at the end (`storage.items` holds it).
    """
    storage = Storage(lowered, lowered.items, dict(lowered.types))
    for item in lowered.items:
        if isinstance(item, AliasItem):
            storage.roots[item.value] = item.source
            if item.offset != 0:
                storage.shifts[item.value] = item.offset
        elif isinstance(item, JoinItem):
            storage.roots.update(dict.fromkeys(item.parts, item.value))
            storage.shifts.update((part, offset) for part, offset in zip(item.parts, item.offsets) if offset)
    _bind_io(storage)
    blocks = _intervals(storage)
    scratch = [Interval(f"workspace {n}", size, n, n) for n, size in workspace.items() if size]
    offsets, size = place([*blocks, *scratch])
    for block in blocks:
        storage.space[block.name], storage.offset[block.name] = "arena", offsets[block.name]
    storage.arena_bytes, storage.peak_bytes = size, peak([*blocks, *scratch])
    return storage, {n: offsets[f"workspace {n}"] for n, s in workspace.items() if s}


def _bind_io(storage: Storage) -> None:
    lowered = storage.lowered
    for number, name in enumerate(lowered.inputs):
        storage.space[name], storage.offset[name] = "input", number
    for name in lowered.constants:
        storage.space[name], storage.offset[name] = "weights", -1
    copies: list[Item] = []
    inside = {storage.root(value) for value in storage.shifts}  # looked into: never the caller's own buffer
    for number, name in enumerate(lowered.outputs):
        root = storage.root(name)
        whole = lowered.types[root].numel == lowered.types[name].numel  # else what writes the root needs more room
        if root in storage.space or root in inside or not whole:
            target = f"{name} (output {number})"
            storage.types[target] = lowered.types[name]
            copies.append(CopyItem(target, name))
            root = target
        storage.space[root], storage.offset[root] = "output", number
    storage.items = (*lowered.items, *copies)


def _larger(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else max(a, b)


@dataclass
class _Life:
    """What the values that share a root need: from the first step that writes one to the last that uses one."""

    first: int
    last: int
    nbytes: int | None = 0  # at the largest shape; None where that is allocated while running
    views: list[str] = field(default_factory=list)
    by_host: bool = False  # written by a host step, which brings its own memory


def _lives(storage: Storage) -> dict[str, _Life]:
    """By root, for those without a space so far."""
    lives: dict[str, _Life] = {}
    views: dict[str, list[str]] = {}
    for number, item in enumerate(storage.items):
        if isinstance(item, AliasItem):
            views.setdefault(storage.root(item.value), []).append(item.value)
            continue
        for value in written(item):
            life = lives.setdefault(storage.root(value), _Life(number, number))
            life.last = number
            life.nbytes = _larger(life.nbytes, storage.planned(value))
            life.by_host |= isinstance(item, HostItem)
        for value in read(item):
            if storage.root(value) in lives:
                lives[storage.root(value)].last = number
    for root, life in lives.items():
        life.views = views.get(root, [])
        for view in life.views:
            end = storage.shift(view) + storage.types[view].nbytes
            life.nbytes = _larger(life.nbytes, planned_bytes(end, storage.lowered.ranges))
    return {root: life for root, life in lives.items() if root not in storage.space}


def _intervals(storage: Storage) -> list[Interval]:
    """The blocks of the arena; what cannot be planned for gets the number of an allocation made while running."""
    blocks: list[Interval] = []
    sharing: list[Interval] = []
    own: list[str] = []
    at_start = {str(d) for value in storage.lowered.inputs for d in storage.types[value].shape}
    for root, life in _lives(storage).items():
        t = storage.types[root]
        if life.nbytes is not None and t.dtype.kind != "s":
            storage.block[root] = life.nbytes
            blocks.append(Interval(root, aligned(life.nbytes), life.first, life.last))
        elif t.dtype.kind == "s" or life.by_host or not symbols(t.nbytes) <= at_start:
            own.append(root)  # its size, or its memory, comes up in the middle of a run
        else:
            size = max(typical(storage.types[v].nbytes, storage.lowered.ranges) for v in (root, *life.views))
            sharing.append(Interval(root, size, life.first, life.last))
    shared = share(sharing)
    for root, number in shared.items():
        storage.space[root], storage.offset[root] = "dynamic", number
    storage.dynamic = max(shared.values(), default=-1) + 1
    for root in own:
        storage.space[root], storage.offset[root] = "dynamic", storage.dynamic
        storage.dynamic += 1
    return blocks
