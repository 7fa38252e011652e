"""From what is known of a problem's candidates to a choice: at its opt shape, and at other shapes beside that one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from bessemer.core.errors import NoTacticError
from bessemer.tune.choice import Choice
from bessemer.tune.task import Candidate, Task, label_of

NOISE = 0.02  # candidates within this share of the fastest are equal: the least workspace wins, then the name
STICKS = 0.08  # what another kernel than that of the opt shape must gain at other shapes, as a share of its time
REPACKS = 0.25  # the same where it keeps weights in a layout of its own, which is kept beside the other one
GUESSED = 1.0  # the same where the gain is only estimated
DOUBTED = 0.25  # as STICKS, where the gain is only estimated, but the kernel of the opt shape was timed there
FEW = 4  # candidates of each tactic that are looked at where estimates decide between shapes
Written = Callable[[Task, Candidate], bool]  # whether a candidate has code; where not, the task knows it from then on


def choose(task: Task, written: Written) -> Choice:
    """The fastest candidate, or the best by its estimate where none was timed."""
    while (found := _chosen(task, written)) is None:
        pass
    return found


def choose_near(task: Task, opt: Choice, written: Written) -> Choice:
    """The choice at a point beside the opt shape: that of the opt shape, unless another is faster by more than what a
    kernel, or a layout of weights, of its own is worth. Where nothing was timed at the point estimates tell; if the
    kernel of the opt shape was timed there, they have to promise more."""
    kept = label_of(opt.tactic, opt.config)
    costs, alike, repacked = _timed(task), STICKS, REPACKS
    if not costs:
        costs = [(c, task.estimates[c.label]) for c in _first_of_each(task, kept)]
        alike, repacked = STICKS if opt.time_us is None else DOUBTED, GUESSED
    best, least = None, next(((us, kept) for c, us in costs if c.label == kept), (math.inf, kept))
    for c, us in sorted(costs, key=lambda cost: (cost[1], cost[0].label)):
        if us * (1 + alike) > least[0]:
            break  # nor is any other: their code need not be written
        if c.label != kept and written(task, c):
            weighted = us * (1 + (alike if c.code.packs == opt.code.packs else repacked)), c.label
            best, least = min((best, least), (c, weighted), key=lambda found: found[1])
    if best is None:
        return opt
    result = task.known.get(best.label)
    return _choice(task, best, None if result is None else result.us)


def rivals(task: Task, written: Written, within: float, most: int) -> list[Choice]:
    """The fastest candidates by their times, first the fastest: those within that share of it, so many at most."""
    timed = sorted(_timed(task), key=lambda t: (t[1], t[0].label))
    near = [(c, us) for c, us in timed if us <= timed[0][1] * (1 + within)]
    return [_choice(task, c, us) for c, us in near[:most] if written(task, c)]


def _first_of_each(task: Task, kept: str) -> list[Candidate]:
    """The best few of each tactic by their estimates (those of another may share the layout of weights), and `kept`."""
    seen: Counter[str] = Counter()
    out = []
    for c in task.candidates:
        if c.label in task.estimates and (seen[c.tactic.name] < FEW or c.label == kept):
            seen[c.tactic.name] += 1
            out.append(c)
    return out


def of(task: Task, candidate: Candidate, written: Written) -> Choice | None:
    """The choice of one candidate; None where it has no time, or no code."""
    known = task.known.get(candidate.label)
    if known is None or known.us is None or not written(task, candidate):
        return None
    return _choice(task, candidate, known.us)


def _timed(task: Task) -> list[tuple[Candidate, float]]:
    found = [(c, task.known[c.label].us) for c in task.candidates if c.label in task.known]
    return [(c, us) for c, us in found if us is not None]


def _chosen(task: Task, written: Written) -> Choice | None:
    """The choice by what is known now; None where it has no code, which is known then."""
    timed = _timed(task)
    if not timed:
        unknown = [c for c in task.candidates if c.label not in task.known]
        untimed = [c for c in unknown if c.label not in task.slower] or unknown
        if not untimed:
            raise NoTacticError(f"every kernel for {task.problem.op} failed", where=str(_rejected(task, None, None)))
        return _choice(task, untimed[0], None) if written(task, untimed[0]) else None
    fastest = min(us for _, us in timed)
    close = [(c, us) for c, us in timed if us <= fastest * (1 + NOISE)]
    if not all([written(task, c) for c, _ in close]):
        return None
    return _choice(task, *min(close, key=lambda t: (task.problem.typical(t[0].code.workspace), t[0].label)))


def _choice(task: Task, best: Candidate, us: float | None) -> Choice:
    chosen_by = "model" if us is None else "measured"
    return Choice(best.tactic.name, best.config, best.code, us, chosen_by, tuple(_rejected(task, best, us)))


def _rejected(task: Task, best: Candidate | None, us: float | None) -> list[tuple[str, str]]:
    """Why not the others."""
    others = [c for c in task.candidates if c is not best]
    known = [(c.label, task.known[c.label]) for c in others if c.label in task.known]
    out = [*task.rejected, *((label, f"failed: {result.error}") for label, result in known if result.error)]
    out += [(label, f"{r.us:.1f} us against {us:.1f} us") for label, r in known if r.us is not None and us is not None]
    out += [(c.label, "slower, by the timing cache") for c in others if c.label in task.slower]
    out += [(c.label, task.untimed) for c in others if task.untimed]
    untimed = [c.label for c in others if c.label not in task.known and c.label not in task.slower and not task.untimed]
    return out + [(n, f"not timed: estimated {task.estimates[n]:.1f} us") for n in untimed if n in task.estimates]
