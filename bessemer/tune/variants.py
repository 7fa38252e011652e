"""Choices of cells of the range of shapes to variants, and back where the opt shape gets another kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bessemer.core.dim import evaluate
from bessemer.core.interval import Range
from bessemer.kernels.base import Problem
from bessemer.tune.choice import Choice, Variant
from bessemer.tune.points import Box, inside, merged, words


def joined(cells: Mapping[Box, Choice], ranges: Mapping[str, Range]) -> tuple[Variant, ...]:
    """Neighbours with one kernel are one variant."""
    return tuple(
        Variant(c, inside(box, ranges), words(box, ranges), tuple(cell for cell in cells if _within(cell, box)))
        for box, c in merged(cells)
    )


def at_opt(problem: Problem, variants: Sequence[Variant]) -> Variant:
    """The variant that runs at the opt shape."""
    env = {name: r.typical for name, r in problem.ranges}
    return next(v for v in variants if evaluate(v.when, env))


def exchanged(problem: Problem, variants: Sequence[Variant], choice: Choice) -> tuple[Variant, ...]:
    """The variants with another choice at the opt shape, and in the cell around it, but in no other."""
    changed = at_opt(problem, variants)
    if choice == changed.choice:
        return tuple(variants)
    if len(changed.cells) < 2:
        return tuple(replace(v, choice=choice) if v is changed else v for v in variants)
    env = {name: r.typical for name, r in problem.ranges}
    cells = {cell: v.choice for v in variants for cell in v.cells}
    around = next(cell for cell in changed.cells if evaluate(inside(cell, problem.range_map), env))
    return joined({**cells, around: choice}, problem.range_map)


def _within(cell: Box, box: Box) -> bool:
    return all(low <= a and b <= high for (_, a, b), (_, low, high) in zip(cell, box, strict=True))
