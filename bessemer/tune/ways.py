"""Which of several ways to lower a graph is the fastest, by what tuning knows of their kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bessemer.kernels.base import Problem
from bessemer.lower.items import KernelItem, Lowered
from bessemer.tune.in_place import Choices

MARGIN = 0.01  # of the plain way's time that another one must save: what kernels take alone differs from that in place
Estimate = Callable[[Problem], float | None]


def problems_of(*ways: Lowered) -> list[Problem]:
    """The problems of all kernels, in order."""
    return [item.problem for way in ways for item in way.items if isinstance(item, KernelItem)]


def fastest(ways: Sequence[Lowered], choices: Choices, estimate: Estimate) -> Lowered:
    """The way whose kernels take the least time at the opt shape, the first one where none saves `MARGIN`: of those
    that were measured throughout, where the first one was, else by estimates."""
    measured = {p: _measured(p, choices) for p in set(problems_of(*ways))}
    known = [way for way in ways if all(measured[p] is not None for p in problems_of(way))]
    if ways[0] not in known:
        known, measured = list(ways), {p: estimate(p) for p in measured}
    us = [sum(measured[p] or 0.0 for p in problems_of(way)) for way in known]
    return known[us.index(min(us))] if min(us) < us[0] * (1 - MARGIN) else ways[0]


def _measured(problem: Problem, choices: Choices) -> float | None:
    """Microseconds of the kernel that is chosen for the opt shape."""
    found = [v.choice.time_us for v in choices[problem] if problem.typical(v.when)]
    return found[0] if found else None
