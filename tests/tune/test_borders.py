"""Along the rows of a product: points that are worth timing, and borders where the turns of tiles end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import bessemer
from bessemer.core.dim import evaluate, sym
from bessemer.core.interval import UNBOUNDED, Range
from bessemer.kernels.base import Limits, Problem
from bessemer.tune.cache import TimingCache
from bessemer.tune.choice import Variant
from bessemer.tune.task import Candidate, Measured, NoCase
from bessemer.tune.tuner import Tuner
from tests.frontend.models import model, node, tensor, value
from tests.tune.fakes import FakeTactic, FakeTarget, problem
from tests.tune.test_variants import AtPoints

WEIGHTS = np.random.default_rng(0).standard_normal((32, 128)).astype("f")
POINTS = FakeTarget(limits={"mflops": 1000, "mbytes_per_s": 1000, "tuned_points": 9})
RANGES = {"b": Range(1, 32, 8), "s": Range(16, 512, 128)}
ROWS = problem(sym("b") * sym("s"), **RANGES)
TILES = tuple((rows, columns) for rows in (64, 128, 192, 256) for columns in (64, 96, 128, 192, 256))
SHAPES = [(b, s) for b in range(1, 33) for s in (16, 50, 77, 100, 128, 200, 229, 300, 384, 450, 512)]


def turns_us(label: str, rows: int) -> float:
    """A product of 768 channels on 132 multiprocessors: a tile at a time on each."""
    tall, wide = divmod(int("".join(c for c in label if c.isdigit())), 1000)
    tiles = math.ceil(rows / tall) * math.ceil(2304 / wide)
    return 1.0 + math.ceil(tiles / 132) * (0.5 + tall * wide / 8192)


@dataclass
class Turns(FakeTactic):
    """Tiles by rows and columns, as 1000 * rows + columns; estimates know the turns and are `off` by a factor."""

    tiles: tuple[int, ...] = tuple(1000 * rows + columns for rows, columns in TILES)
    off: float = 1.0

    def estimate(self, problem: Problem, target: Limits, config: Mapping[str, Any]) -> float:
        return self.off * turns_us(str(config["tile"]), _rows(problem))


def _rows(problem: Problem) -> int:
    return math.prod(r.typical for _, r in problem.ranges)


def clock(off: float = 1.0) -> AtPoints:
    return AtPoints(lambda label, at: off * turns_us(label, at["b"] * at["s"]))


def tuned(measurer: AtPoints, tactics: Sequence[Any], **options: Any) -> tuple[Variant, ...]:
    cache = options.pop("cache", None) or TimingCache()
    return Tuner(POINTS, {}, tactics, cache, measurer=measurer, **options).choose([ROWS], {"b", "s"})[ROWS]


def tile(found: Sequence[Variant], b: int, s: int) -> str:
    """The tile that serves a shape."""
    (one,) = [v for v in found if evaluate(v.when, {"b": b, "s": s})]
    return str(one.choice.config["tile"])


def dearer(found: Sequence[Variant]) -> dict[tuple[int, int], float]:
    """What every shape takes, over what it takes with the best of all kernels."""
    best = {n: min(turns_us(str(1000 * r + c), n) for r, c in TILES) for n in {b * s for b, s in SHAPES}}
    return {(b, s): turns_us(tile(found, b, s), b * s) / best[b * s] for b, s in SHAPES}


@pytest.mark.parametrize("off", [1.0, 2.0])
def test_no_shape_takes_a_turn_more_for_a_few_rows(off: float) -> None:
    """Times are `off` from the estimates: only how those grow matters."""
    shares = dearer(tuned(clock(off), [Turns("t")]))
    assert shares[3, 100] <= 1.02 and shares[8, 128] <= 1.02
    assert max(shares.values()) <= 1.21 and sum(shares.values()) / len(shares) <= 1.05


def test_points_whose_upper_neighbour_does_as_well_are_not_timed() -> None:
    measurer = clock()
    tuned(measurer, [Turns("t")])
    points = {math.prod(at) for at, _ in measurer.asked}
    assert {16, 1024, 16384} <= points and len(points) <= 20
    flat = AtPoints(lambda label, at: 1.0)

    class Flat(Turns):
        def estimate(self, problem: Problem, target: Limits, config: Mapping[str, Any]) -> float:
            return float(_rows(problem) * config["tile"])

    tuned(flat, [Flat("t")])
    assert {math.prod(at) for at, _ in flat.asked} == {16, 1024, 16384}, "one kernel is the best everywhere"


def test_a_point_without_times_leaves_its_shapes_to_the_next_one_up() -> None:
    """As where a cache knows fewer points, or a budget ended; the kernel of the opt shape would do worse."""

    class Few(AtPoints):
        def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Measured]:
            if _rows(problem) not in (16, 128, 512, 1024, 16384):
                raise NoCase("there is no time")
            return super().measure(problem, candidates)

    found = tuned(Few(clock().us), [Turns("t")])
    assert tile(found, 3, 100) == tile(found, 1, 500) != tile(found, 8, 128)
    shares = dearer(found)
    assert shares[3, 100] <= 1.4 and turns_us(tile(found, 8, 128), 300) / turns_us(tile(found, 3, 100), 300) >= 1.4


def test_where_few_are_timed_they_are_of_the_tactics_that_were_fast_at_the_opt_shape() -> None:
    """One tactic's estimates are half its times: at other shapes its kernels would take all places."""

    class Boasting(Turns):
        def estimate(self, problem: Problem, target: Limits, config: Mapping[str, Any]) -> float:
            return 0.5 * super().estimate(problem, target, config)

    measurer = AtPoints(lambda label, at: turns_us(label, at["b"] * at["s"]) * (2.0 if label[0] == "z" else 1.0))
    found = tuned(measurer, [Turns("t"), Boasting("z")], max_candidates=24)
    asked = [labels for at, labels in measurer.asked if at != (8, 128)]
    assert all(any(one.startswith("t") for one in labels) for labels in asked)
    assert {v.choice.tactic for v in found} == {"t"} and max(dearer(found).values()) <= 1.25


def test_a_tactic_that_raises_off_its_points_goes_no_further_than_these() -> None:
    class Raising(Turns):
        def estimate(self, problem: Problem, target: Limits, config: Mapping[str, Any]) -> float:
            if _rows(problem) in (1088, 2112):
                raise KeyError("no such size")
            return super().estimate(problem, target, config)

    cells = {cell[0][1:] for v in tuned(clock(), [Raising("t")]) for cell in v.cells}
    beyond = {cell[0][1:] for v in tuned(clock(), [Turns("t")]) for cell in v.cells}
    assert max(high for _, high in cells if high < 2560) == 2048
    assert max(high for _, high in beyond if high < 2560) == 2112, "one more row of tiles has room in the same turn"


def test_shapes_beside_the_opt_one_are_for_what_the_engine_needs() -> None:
    """A graph may be lowered in two ways, of which the times at the opt shape tell the faster."""
    other = replace(ROWS, attrs=(*ROWS.attrs, ("other", 1)))
    measurer = clock()
    tuner = Tuner(POINTS, {}, [Turns("t")], TimingCache(), measurer=measurer)
    found = tuner.choose([ROWS, other], {"b", "s"}, lambda chosen: [p for p in chosen if p == ROWS])
    assert [at for at, _ in measurer.asked].count((8, 128)) == 2 and len(measurer.asked) > 10
    assert len(found[ROWS]) > 5 and [v.when for v in found[other]] == [1]
    assert len({at for at, _ in measurer.asked}) == len(measurer.asked) - 1, "no point twice"


def test_what_a_pruned_cache_tells_of_points_is_enough() -> None:
    cache, small = TimingCache(), TimingCache()
    tuned(clock(), [Turns("t")], cache=cache)
    small.merge(cache.pruned())
    again = clock()
    found = tuned(again, [Turns("t")], cache=small)
    assert again.asked == [] and max(dearer(found).values()) <= 1.3


@pytest.mark.triton
def test_rows_of_two_dims_of_which_nothing_is_said() -> None:
    """Their product may be 2**40: no list of it is made."""
    made = model([node("MatMul", ["x", "w"], ["y"])], [value("x", ["b", "s", 32])], ["y"], [tensor("w", WEIGHTS)])
    engine = bessemer.build(made, target="cuda:sm_90", tune="off")
    assert {s.range.hi for s in engine.program.symbols.values()} == {UNBOUNDED} and len(engine.program.steps) < 8
