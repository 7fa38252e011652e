"""What is said between the process that builds and the one that runs candidates on the GPU.

Every message is answered by one Answer, a Race by a Turn ahead of everything that a candidate is run for, and then an
Answer. One that is not `alive` is the last: the GPU's context is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bessemer.core.dtype import DType
from bessemer.kernels.base import Arg
from bessemer.tune.shared import Piece

POISON = 0xA5  # the bytes of what outputs are written to, before a candidate runs


@dataclass(frozen=True)
class Setup:
    """A problem at one shape: its operands, and where what its outputs are written to is to be seen, in shared memory.
    `workspace` bytes and `counters` are enough for every candidate."""

    operands: tuple[Piece, ...]
    constants: frozenset[int]
    outputs: tuple[Piece, ...]
    workspace: int
    counters: int


@dataclass(frozen=True)
class Shot:
    """A launch at that shape: its sizes are integers."""

    cubin: bytes
    symbol: str
    abi: Mapping[str, Any]
    grid: tuple[int, ...]
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Trial:
    """A candidate: it is run once, and its outputs are shown. `packs` are operands in other layouts, `dtypes` those of
    the operands as it reads them and of the outputs."""

    number: int
    shots: tuple[Shot, ...]
    packs: Mapping[int, Piece]
    dtypes: tuple[DType, ...]
    workspace: int


@dataclass(frozen=True)
class Drop:
    """The candidate that was tried last was wrong: it takes no part in the race."""

    number: int


@dataclass(frozen=True)
class Race:
    """Time the others in turns."""


@dataclass(frozen=True)
class Turn:
    """The candidate that is run next in a race."""

    number: int


@dataclass(frozen=True)
class Answer:
    """How what was asked failed, and how to fix it. After a race: microseconds of a run, and how candidates failed."""

    error: str | None = None
    fix: str | None = None
    alive: bool = True
    us: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
