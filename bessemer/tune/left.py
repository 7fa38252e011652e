"""What a build budget left on the table: which problems were not tuned to the end, and what that may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.kernels.base import Limits
from bessemer.tune.model import estimate_us
from bessemer.tune.task import Task


@dataclass(frozen=True)
class Left:
    """`open` of `problems` were not timed to the end, `elsewhere` of them beside the opt shape; the kernels of the
    others take about `us` of the model's `total_us` a run.

    `saved_us` is what tuning them may save: the share that it saved on this model's tuned problems; None where no
    problem was tuned to the end."""

    open: int
    problems: int
    us: float
    total_us: float
    saved_us: float | None
    elsewhere: int = 0

    def __str__(self) -> str:
        said = f"the build budget ended before {self.open} of {self.problems} kernels were timed to the end"
        if self.elsewhere:
            said += f", {self.elsewhere} of them for shapes beside the opt one"
        if self.elsewhere == self.open:
            return said
        others = "the others" if self.elsewhere else "they"
        said += f"; {others} take about {self.us:.0f} of {self.total_us:.0f} us a run"
        if self.saved_us is None:
            return f"{said}, and what tuning would save is not known: nothing was timed to the end"
        return f"{said}, of which tuning may save {self.saved_us:.0f} us, going by the kernels that were"


def left(tasks: Sequence[Task], most: int, target: Limits) -> Left | None:
    """What is left, or None where every problem was tuned to the end."""
    unfinished = [t for t in tasks if t.missing(most) and not t.decided(most)]
    if not unfinished:
        return None
    done = [t for t in tasks if not t.missing(most) and t.best_us(most) is not None]
    saved = [t.count * _now(t, target) * _share(done, _timed(t)) for t in unfinished] if done else None
    return Left(
        len(unfinished), len(tasks), sum(t.count * _now(t, target) for t in unfinished),
        sum(t.count * _now(t, target) for t in tasks), None if saved is None else sum(saved),
        sum(t.count == 0 for t in unfinished),
    )  # fmt: skip


def _now(task: Task, target: Limits) -> float:
    """Microseconds of what is chosen now: its time, else its estimate."""
    times = [r.us for r in task.known.values() if r.us is not None]
    estimate = task.estimates.get(task.candidates[0].label)
    return min(times) if times else estimate if estimate is not None else estimate_us(task.problem, target)


def _timed(task: Task) -> int:
    return sum(r.us is not None for r in task.known.values())


def _share(done: Sequence[Task], timed: int) -> float:
    """The share of the time that tuned problems saved by more than their first candidates (at least one) timed."""
    first = [(t, t.best_us(max(1, timed))) for t in done]
    before = sum(t.count * us for t, us in first if us is not None)
    after = sum(t.count * (t.best_us(len(t.candidates)) or 0.0) for t, us in first if us is not None)
    return 1 - after / before if before else 0.0
