"""Which of several ways to lower a graph is the fastest, by what tuning knows of their kernels.

An engine has one way for all of its shapes, so a way is judged by where it is worst. Norms taken apart are 4 percent
faster for 1,024 rows of BERT-base, but take 1.46 times as long for 16: their products have no kernels for few tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from bessemer.kernels.base import Problem
from bessemer.lower.items import KernelItem, Lowered
from bessemer.tune.in_place import Choices
from bessemer.tune.points import corners, moved

MARGIN = 0.01  # of the plain way's time that another one must save: what kernels take alone differs from that in place
Estimate = Callable[[Problem], float | None]


def problems_of(*ways: Lowered) -> list[Problem]:
    """The problems of all kernels, in order."""
    return [item.problem for way in ways for item in way.items if isinstance(item, KernelItem)]


def fastest(ways: Sequence[Lowered], choices: Choices, estimate: Estimate, symbols: Collection[str] = ()) -> Lowered:
    """The way that is the least behind the fastest one at the shape where it is furthest behind; the first one where
    none saves `MARGIN` of that.

    At the opt shape that is by the times of the ways that were measured throughout, where the first one was, else by
    estimates; at the ends of the ranges of `symbols`, which inputs bind, by estimates."""
    measured = {p: _measured(p, choices) for p in set(problems_of(*ways))}
    known = [way for way in ways if all(measured[p] is not None for p in problems_of(way))]
    if ways[0] not in known:
        known, measured = list(ways), {p: estimate(p) for p in measured}
    behind = [_behind([sum(measured[p] or 0.0 for p in problems_of(way)) for way in known])]
    if len(known) > 1:
        for shape in corners(measured, symbols):
            behind.append(_behind([sum(estimate(moved(p, shape)) or 0.0 for p in problems_of(way)) for way in known]))
    worst = [max(ratios) for ratios in zip(*behind)]
    return known[worst.index(min(worst))] if min(worst) < worst[0] * (1 - MARGIN) else ways[0]


def _behind(us: Sequence[float]) -> list[float]:
    """Each time over the least one."""
    return [t / min(us) if min(us) else 1.0 for t in us]


def _measured(problem: Problem, choices: Choices) -> float | None:
    """Microseconds of the kernel that is chosen for the opt shape."""
    found = [v.choice.time_us for v in choices[problem] if problem.typical(v.when)]
    return found[0] if found else None
