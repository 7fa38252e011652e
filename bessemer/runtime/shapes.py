"""What changes with the shape: integers of a program, evaluated once per shape and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.dim import Dim, DimExpr, evaluate, symbols
from bessemer.engine.program import Program, Tensor


@dataclass
class Integers:
    """Integer slots of a program, constant or symbolic."""

    values: list[int] = field(default_factory=list)
    dynamic: list[tuple[int, DimExpr]] = field(default_factory=list)

    def add(self, d: Dim) -> int:
        """A new slot holding `d`; its number."""
        number = len(self.values)
        if isinstance(d, int):
            self.values.append(d)
        else:
            self.values.append(0)
            self.dynamic.append((number, d))
        return number


@dataclass(frozen=True)
class Bound:
    """A program at one set of input shapes: symbol values, the dynamic integers, and the outputs' shapes.

    Slots whose dims depend on data are not here; `later` lists them.
    """

    env: dict[str, int]
    slots: np.ndarray
    values: np.ndarray
    outputs: tuple[tuple[int, ...] | None, ...]
    later: tuple[tuple[int, DimExpr], ...]


def bind(program: Program, integers: Integers, env: Mapping[str, int]) -> Bound:
    """Evaluate everything that `env` decides."""
    known = [(k, d) for k, d in integers.dynamic if symbols(d) <= env.keys()]
    later = tuple((k, d) for k, d in integers.dynamic if not symbols(d) <= env.keys())
    return Bound(
        dict(env),
        np.array([k for k, _ in known], np.int64),
        np.array([evaluate(d, env) for _, d in known], np.int64),
        tuple(shape_of(program.tensors[n], env) for n in program.outputs),
        later,
    )


def shape_of(tensor: Tensor, env: Mapping[str, int]) -> tuple[int, ...] | None:
    """The shape under these symbols; None where it depends on data."""
    if not all(symbols(d) <= env.keys() for d in tensor.shape):
        return None
    return tuple(evaluate(d, env) for d in tensor.shape)


def learn(shape: Sequence[int], tensor: Tensor, env: dict[str, int]) -> bool:
    """Bind the data-dependent symbols that `tensor`'s actual shape tells; whether any was new."""
    new = False
    for size, d in zip(shape, tensor.shape, strict=True):
        name = str(d)
        if isinstance(d, DimExpr) and symbols(d) == {name} and env.get(name) != size:
            env[name] = int(size)
            new = True
    return new
