"""What changes with the shape: integers of a program, evaluated once per shape and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.dim import Dim, DimExpr, evaluate, symbols
from bessemer.core.errors import ShapeError
from bessemer.engine.program import Equality, Program, Tensor


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


def check_equalities(equalities: Iterable[Equality], env: Mapping[str, int]) -> None:
    """ShapeError where sizes differ that the model takes to be equal; of those that are known."""
    for e in equalities:
        names = symbols(e.left) | symbols(e.right)
        if not names <= env.keys():
            continue
        left, right = evaluate(e.left, env), evaluate(e.right, env)
        if left != right and not (e.or_one and left == 1):
            at = ", ".join(f"{name} = {env[name]}" for name in sorted(names))
            differ = f"must be 1 or {right}" if e.or_one else f"{e.right} is {right}"
            raise ShapeError(
                f"the model does not run at this shape: at {at}, {e.left} is {left} and {differ}",
                where=f"ONNX nodes {e.nodes}",
                fix="give sizes that can be broadcast" if e.or_one else "give sizes at which these two are equal",
            )


def learn(shape: Sequence[int], tensor: Tensor, env: dict[str, int]) -> bool:
    """Bind the data-dependent symbols that `tensor`'s actual shape tells; whether any was new."""
    new = False
    for size, d in zip(shape, tensor.shape, strict=True):
        name = str(d)
        if isinstance(d, DimExpr) and symbols(d) == {name} and env.get(name) != size:
            env[name] = int(size)
            new = True
    return new
