"""A tuner of static problems over fakes, and the tactics that its tests give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.kernels.base import Problem
from bessemer.tune.cache import TimingCache
from bessemer.tune.choice import Choice
from bessemer.tune.tuner import Tuner
from tests.tune.fakes import FakeTactic, FakeTarget

TWO = [FakeTactic("a", tiles=(8, 16)), FakeTactic("b")]
A8, A16, B = 'a{"tile":8}', 'a{"tile":16}', "b"


class OneEach(Tuner):
    """A tuner of static problems."""

    def choices(self, problems: Sequence[Problem]) -> dict[Problem, Choice]:
        found = self.choose(problems)
        assert all(len(variants) == 1 and variants[0].when == 1 for variants in found.values())
        return {p: variants[0].choice for p, variants in found.items()}


def tuner(tactics: list[FakeTactic] | None = None, cache: TimingCache | None = None, **options: Any) -> OneEach:
    return OneEach(FakeTarget(), {"cpu": "fake"}, tactics or TWO, TimingCache() if cache is None else cache, **options)


class Estimated(FakeTactic):
    """Says that larger tiles cost less."""

    def estimate(self, problem: Any, target: Any, config: Any) -> float:
        return 100.0 / config["tile"]


def label(tile: int) -> str:
    return f'a{{"tile":{tile}}}'
