"""Kernels chosen once more in their places: what is fastest alone need not be so among its neighbours.

A kernel that is timed alone follows itself. In the engine it follows another, whose multiprocessors it takes over one
by one while its weights come from memory, so that a smaller kernel may win. So the whole engine is timed with one
kernel exchanged for a rival that was nearly as fast alone, the costliest problems first; what saves time stays. The
timing cache keeps the outcome under the sequence of problems, so that the same engine is built without the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bessemer.core import canon
from bessemer.kernels.base import Problem
from bessemer.tune.cache import problem_key
from bessemer.tune.choice import Choice, Variant
from bessemer.tune.rivals import Rivals
from bessemer.tune.task import label_of
from bessemer.tune.variants import at_opt, exchanged

SECONDS = 30.0  # that the exchanges of one build may take, once all that is exchanged is compiled
Choices = Mapping[Problem, Sequence[Variant]]


class EngineClock(Protocol):
    """Times whole engines against each other on the device; `lost` once the device failed."""

    lost: bool

    def begin(self, choices: Choices) -> None:
        """The first engine to beat."""

    def beats(self, choices: Choices) -> bool:
        """Whether the engine of these choices is faster than the one to beat, and right; if so it takes its place."""

    def end(self) -> float:
        """The microseconds of a run of the engine that nothing beat."""


def settled(
    choices: Choices, rivals: Rivals, problems: Sequence[Problem], clock: EngineClock | None,
    seconds: float | None = None, now: Callable[[], float] = time.monotonic,
) -> Choices:  # fmt: skip
    """`choices` with the kernels that are fastest in their places: those that the timing cache knows, and where it does
    not know all and there is a clock, those that win within SECONDS, and within `seconds` with all compilation."""
    sequence = canon.digest([problem_key(p) for p in problems])[:16]
    alone = {p: at_opt(p, found).choice for p, found in choices.items()}
    order = [p for p in rivals.costliest_first() if p in choices]  # others were tuned for another way to lower it
    recalled = _recalled(rivals, sequence, {p: alone[p] for p in order})
    choices = {p: exchanged(p, found, recalled.get(p, alone[p])) for p, found in choices.items()}
    if clock is None or len(recalled) == len(order) or (seconds is not None and seconds <= 0):
        return choices
    end = float("inf") if seconds is None else now() + seconds
    rivals.prepare(order)
    end = min(end, now() + SECONDS)
    choices, us, tried = _exchanged(choices, rivals, order, clock, lambda: clock.lost or now() > end)
    if tried:  # what was known of the others, which there was no time to try again, still holds
        kept = [p for p in order if p in recalled or p in tried]
        rivals.place(sequence, us, {p: (alone[p], at_opt(p, choices[p]).choice) for p in kept})
    return choices


def _recalled(rivals: Rivals, sequence: str, alone: Mapping[Problem, Choice]) -> dict[Problem, Choice]:
    """What the timing cache knows, where the same kernel is the fastest alone as was then: otherwise there are kernels
    that were not compared."""
    known, out = rivals.placed(sequence), {}
    for problem, choice in alone.items():
        was, here = known.chosen.get(problem_key(problem), ("", "")) if known is not None else ("", "")
        if was and was == rivals.key(problem, choice):
            found = choice if here == was else rivals.by_key(problem, here)
            if found is not None:
                out[problem] = found
    return out


def _exchanged(
    choices: Choices, rivals: Rivals, order: Sequence[Problem], clock: EngineClock, late: Callable[[], bool]
) -> tuple[Choices, float, list[Problem]]:  # fmt: skip
    """The choices after all exchanges that pay, the time of a run, and the problems whose rivals were all tried."""
    clock.begin(choices)
    tried = []
    try:
        for number, problem in enumerate(order):
            rivals.tuner.tell(number, len(order), f"{problem.op} in its place")
            for rival in rivals.of(problem):
                if not late() and not _same(rival, at_opt(problem, choices[problem]).choice):
                    other = {**choices, problem: exchanged(problem, choices[problem], rival)}
                    choices = other if clock.beats(other) else choices
            if late():
                break
            tried.append(problem)
    finally:
        us = clock.end()
    return choices, us, tried


def _same(a: Choice, b: Choice) -> bool:
    return label_of(a.tactic, a.config) == label_of(b.tactic, b.config)
