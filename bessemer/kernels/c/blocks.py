"""The nested blocks of a C function, and what is valid inside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from bessemer.core.dim import Dim
from bessemer.ir import expr as ex

IVDEP = "#pragma GCC ivdep"  # before a loop whose stores nothing reads again


class Value(NamedTuple):
    """C text without side effects, and the number of the block that it is valid in (and in those inside)."""

    text: str
    level: int


@dataclass(frozen=True)
class Flat:
    """A variable that runs over `axes` (name, extent) flattened, outermost first."""

    var: str
    axes: tuple[tuple[str, Dim], ...]


@dataclass
class Block:
    """Statements; the loop variables bound here (by C text); whether entering it depends on a condition."""

    axes: dict[str, str] = field(default_factory=dict)
    guard: bool = False
    flat: Flat | None = None
    lines: list[str] = field(default_factory=list)
    values: dict[int, tuple[ex.Expr, Value]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
