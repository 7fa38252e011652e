"""Which points along one size are worth timing, and where the kernel of one gives way to that of the next.

Estimates tell, in which the turns of a kernel's tiles count. A point is left out where the kernel of the next point up
would do as well. A box ends at its point (see points.py), as a kernel that fits there may fall behind at the next size.
How far it still goes its time tells, and its estimate, as it grows: the border is where it no longer gains on the
kernel of the next point, which was timed there and is estimated below.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bessemer.kernels.base import Problem
from bessemer.tune.choice import Choice
from bessemer.tune.choosing import STICKS
from bessemer.tune.points import Box, full_tiles
from bessemer.tune.task import Candidate, Task, estimate, label_of

GAIN = 0.03  # the share of its time that a point must gain to be timed, and a kernel to go beyond its point
At = Callable[[int], Problem | None]  # the problem at a size
Made = Callable[[Task, Candidate], Choice | None]  # the choice of a candidate; None where it has no code


@dataclass(frozen=True)
class Chosen:
    """What was chosen at a point, for the shapes of a box."""

    box: Box
    task: Task
    choice: Choice


def worth_timing(points: Sequence[tuple[Box, Task]], opt: Task) -> list[tuple[Box, Task]]:
    """The points along one size where the best kernel of the next one up would take more than the best there, the ends
    and that of the opt shape; those that have times already stay too, and all where there are no such estimates."""
    if not _along(points):
        return list(points)
    above = points[-1][1]
    kept = [points[-1]]
    for box, there in reversed(points[1:-1]):
        us, best = there.estimate(above.candidates[0]), there.estimate(there.candidates[0])
        gains = us is None or best is None or us > best * (1 + GAIN)
        if gains or there is opt or _timed(there):
            kept.append((box, there))
            above = there
    return _refilled(points, [*points[:1], *reversed(kept)] if len(points) > 1 else kept)


def known(points: Sequence[tuple[Box, Task]], opt: Task) -> list[tuple[Box, Task]]:
    """The points along one size that have times, and that of the opt shape; those of the others go to the next one up,
    or to the last. All of them where none but that of the opt shape has times, or where they are no such points."""
    if not _along(points) or not any(_timed(t) for _, t in points if t is not opt):
        return list(points)
    return _refilled(points, [(box, there) for box, there in points if there is opt or _timed(there)])


def _along(points: Sequence[tuple[Box, Task]]) -> bool:
    return all(len(box) == 1 for box, _ in points)


def _refilled(points: Sequence[tuple[Box, Task]], kept: Sequence[tuple[Box, Task]]) -> list[tuple[Box, Task]]:
    """The points kept, with the shapes of the others: they go to the next one up, or to the last."""
    ((size, least, _),), ((_, _, greatest),) = points[0][0], points[-1][0]
    ends = [*(box[0][2] for box, _ in kept[:-1]), greatest]
    starts = [least, *(end + 1 for end in ends[:-1])]
    return [(((size, low, high),), there) for low, high, (_, there) in zip(starts, ends, kept, strict=True)]


def crossed(chosen: Sequence[Chosen], at: At, made: Made) -> dict[Box, Choice]:
    """What is chosen in each box; along one size that of the next point up has a part with a kernel of this one."""
    cells = {c.box: c.choice for c in chosen}
    if not _along([(c.box, c.task) for c in chosen]):
        return cells
    for below, above in itertools.pairwise(chosen):
        ((size, low, high),) = above.box
        sizes = full_tiles(low, high)
        lower = _best(below, at(sizes[0]), made) if sizes else below
        last = _border(lower, above, sizes, at)
        if last is not None:
            del cells[above.box]
            cells |= {((size, low, last),): lower.choice, ((size, last + 1, high),): above.choice}
    return cells


def _best(below: Chosen, here: Problem | None, made: Made) -> Chosen:
    """The kernel chosen below, or another one that was timed there, if it is faster at the first size above."""
    own = _cost(below, below.choice, here)
    if own is None:
        return below
    costs = [(us, c) for c in below.task.candidates if (us := _cost(below, c, here)) is not None]
    us, best = min(costs, key=lambda cost: (cost[0], cost[1].label))
    found = made(below.task, best) if us * (1 + STICKS) < own else None
    return below if found is None or found.code.packs != below.choice.code.packs else replace(below, choice=found)


def _border(lower: Chosen, above: Chosen, sizes: Sequence[int], at: At) -> int | None:
    """The last of the sizes for the kernel of `lower`; None where it has none."""
    last = None
    if _label(lower.choice) != _label(above.choice):
        for size in sizes:
            here = at(size)
            a, b = _cost(lower, lower.choice, here), _cost(above, above.choice, here)
            if a is None or b is None or a * (1 + GAIN) > b:
                break
            last = size
    return last


def _cost(chosen: Chosen, kernel: Candidate | Choice, here: Problem | None) -> float | None:
    """Microseconds at another size: the time at the point, as much more or less as the estimate; None if not known."""
    task, label = chosen.task, kernel.label if isinstance(kernel, Candidate) else _label(kernel)
    us = task.known[label].us if label in task.known else None
    candidate = next((c for c in task.candidates if c.label == label), None)
    if here is None or us is None or candidate is None:
        return None
    there, then = estimate(task.problem, candidate), estimate(here, candidate)
    return us * then / there if there and then is not None else None


def _label(choice: Choice) -> str:
    return label_of(choice.tactic, choice.config)


def _timed(task: Task) -> bool:
    return any(result.us is not None for result in task.known.values())
