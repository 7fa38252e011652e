"""Kernels that differ by the shape: tuned at points, merged where they agree, and never run at another's shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bessemer
from bessemer import builder
from bessemer.core.dim import evaluate, floordiv, sym
from bessemer.core.interval import Range
from bessemer.kernels.base import KernelCode, Pack, Problem
from bessemer.targets.cpu import cpu_target
from bessemer.tune.cache import TimingCache
from bessemer.tune.choice import Variant
from bessemer.tune.task import Candidate, Measured
from bessemer.tune.tuner import Tuner
from tests.tune.fakes import FakeTactic, FakeTarget, problem

TARGET = FakeTarget(limits={"mflops": 1000, "mbytes_per_s": 1000, "tuned_points": 9})
ROWS = problem(sym("b") * sym("s"), b=Range(1, 32, 8), s=Range(16, 512, 128))
DYNAMIC = replace(ROWS, operands=(ROWS.operands[0], replace(ROWS.operands[1], constant=False)))  # no weights


@dataclass
class AtPoints:
    """Times by label and by the opt values of the problem's symbols."""

    us: Callable[[str, Mapping[str, int]], float]
    asked: list[tuple[tuple[int, ...], tuple[str, ...]]] = field(default_factory=list)

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        pass

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        return True

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Measured]:
        at = {name: r.typical for name, r in problem.ranges}
        self.asked.append((tuple(at.values()), tuple(c.label for c in candidates)))
        return [Measured(self.us(c.label, at)) for c in candidates]


def variants(measurer: AtPoints | None, tactics: Sequence[Any], **options: Any) -> tuple[Variant, ...]:
    run = Tuner(TARGET, {}, tactics, TimingCache(), measurer=measurer, **options)
    return run.choose([DYNAMIC, DYNAMIC], {"b", "s"})[DYNAMIC]


def taken(found: Sequence[Variant], b: int, s: int) -> str:
    """The tactic that runs at a shape."""
    (one,) = [v.choice.tactic for v in found if evaluate(v.when, {"b": b, "s": s})]
    return one


TACTICS = [FakeTactic("a"), FakeTactic("b")]


def test_the_kernel_follows_the_shape() -> None:
    found = variants(AtPoints(lambda label, at: 1.0 if (label == "a") == (at["b"] < 8) else 2.0), TACTICS)
    assert [(v.choice.tactic, v.shapes) for v in found] == [("a", "b 1 to 2"), ("b", "b 3 to 32")]
    assert {taken(found, b, s) for b in (1, 2) for s in (16, 512)} == {"a"}
    assert {taken(found, b, s) for b in (3, 32) for s in (16, 512)} == {"b"}


def test_one_kernel_everywhere_is_one_variant() -> None:
    measurer = AtPoints(lambda label, at: 1.0 + (label == "b"))
    (only,) = variants(measurer, TACTICS)
    assert (only.choice.tactic, only.when, only.shapes) == ("a", 1, "")
    assert [at for at, _ in measurer.asked] == [(8, 128)] + [
        (b, s) for b in (1, 8, 32) for s in (16, 128, 512) if (b, s) != (8, 128)
    ], "its opt shape first"


def test_shapes_with_nothing_to_compute_take_the_kernel_of_the_opt_shape() -> None:
    """A length of 1 leaves no windows: at the low end of their ranges sizes may fall below one."""
    short = problem(floordiv(sym("s"), 20) - 1, s=Range(1, 400, 128))
    measurer = AtPoints(lambda label, at: 1.0 + (label == ("b" if at["s"] < 400 else "a")))
    found = Tuner(TARGET, {}, TACTICS, TimingCache(), measurer=measurer).choose([short], {"s"})[short]
    assert [(v.choice.tactic, v.shapes) for v in found] == [("a", "s 1 to 226"), ("b", "s 227 to 400")]
    assert min(at for at, _ in measurer.asked) > (39,)


def test_another_kernel_must_gain_something() -> None:
    def us(label: str, at: Mapping[str, int]) -> float:
        return 1.0 if label == "a" else {1: 0.95, 8: 1.1, 32: 0.5}[at["b"]]

    assert [(v.choice.tactic, v.shapes) for v in variants(AtPoints(us), TACTICS)] == [
        ("a", "b 1 to 16"), ("b", "b 17 to 32"),
    ]  # fmt: skip


class Estimated(FakeTactic):
    """The best tile at a shape is the one nearest to its batch."""

    def estimate(self, problem: Problem, target: Any, config: Mapping[str, Any]) -> float:
        return float(1000 + abs(config["tile"] - dict(problem.ranges)["b"].typical))


def test_elsewhere_only_the_best_few_are_timed_and_what_the_opt_shape_took() -> None:
    tiles = tuple(range(1, 33))
    measurer = AtPoints(lambda label, at: 1.0)
    variants(measurer, [Estimated("a", tiles=tiles)], max_candidates=32)
    (opt, *others) = measurer.asked
    assert len(opt[1]) == 16 and all(len(labels) in (4, 5) for _, labels in others)
    winner = 'a{"tile":10}'  # level: by name
    assert winner in opt[1] and all(winner in labels for _, labels in others)


class Packed(FakeTactic):
    """Keeps the weights in a layout of its own."""

    def emit(self, problem: Problem, target: Any, config: Any) -> KernelCode:
        pack = Pack(1, f"of {self.name}", (), problem.operands[1].type)
        return replace(super().emit(problem, target, config), packs=(pack,))


def test_a_second_layout_of_weights_must_gain_more() -> None:
    gains = {1: 0.85, 8: 2.0, 32: 0.7}
    measurer = AtPoints(lambda label, at: 1.0 if label == "a" else gains[at["b"]])
    assert len(variants(measurer, TACTICS)) == 3
    found = variants(AtPoints(measurer.us), [FakeTactic("a"), Packed("b")])
    assert [(v.choice.tactic, v.shapes) for v in found] == [("a", "b 1 to 16"), ("b", "b 17 to 32")]


def test_without_times_estimates_decide_and_small_gains_do_not() -> None:
    near = [Estimated("a", tiles=(1, 8, 32))]
    assert len(variants(None, near, mode="off")) == 1

    found = variants(None, [Steep("a", tiles=(1, 8, 32))], mode="off")
    assert [dict(v.choice.config)["tile"] for v in found] == [1, 8, 32]


class Steep(Estimated):
    """A tile costs 1 at its own batch, and its distance more elsewhere."""

    slope = 1.0

    def estimate(self, problem: Problem, target: Any, config: Mapping[str, Any]) -> float:
        return 1.0 + self.slope * abs(config["tile"] - dict(problem.ranges)["b"].typical)


@pytest.mark.parametrize("slope,tiles", [(0.01, [8]), (0.02, [8, 32]), (0.05, [1, 8, 32])])
def test_where_only_the_opt_shape_was_timed_estimates_have_to_promise_more(slope: float, tiles: list[int]) -> None:
    tactic, cache = Steep("a", tiles=(1, 8, 32)), TimingCache()
    tactic.slope = slope
    measurer = AtPoints(lambda label, at: 1.0 if label == 'a{"tile":8}' else 1.1)
    Tuner(TARGET, {}, [tactic], cache, measurer=measurer).choose([DYNAMIC])
    found = Tuner(TARGET, {}, [tactic], cache, mode="cache").choose([DYNAMIC], {"b", "s"})[DYNAMIC]
    assert [dict(v.choice.config)["tile"] for v in found] == tiles
    assert [v.choice.chosen_by for v in found] == ["measured" if tile == 8 else "model" for tile in tiles]


def test_a_time_at_the_opt_shape_beats_no_estimate_elsewhere() -> None:
    measurer = AtPoints(lambda label, at: 1.0 + (label == "b"))
    cache = TimingCache()
    Tuner(TARGET, {}, TACTICS, cache, measurer=measurer).choose([DYNAMIC])
    (only,) = Tuner(TARGET, {}, TACTICS, cache, mode="cache").choose([DYNAMIC], {"b", "s"})[DYNAMIC]
    assert only.choice.tactic == "a" and only.choice.chosen_by == "measured"


@dataclass(frozen=True)
class ManyPoints:
    """The CPU, with tuning at nine points."""

    base: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    @property
    def limits(self) -> Mapping[str, int]:
        return {**self.base.limits, "tuned_points": 9}


def _model(path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((24, 40), np.float32), "v": rng.standard_normal((40, 24), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "v"], ["r"]), helper.make_node("Add", ["r", "x"], ["t"]),
        helper.make_node("Softmax", ["t"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "s", 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "s", 24])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def test_an_engine_of_many_variants_gives_the_same_at_every_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times at random, so that every point has a kernel of its own; run, saved, loaded, inspected and traced."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr("bessemer.builder.measurer_for", lambda target: AtPoints(lambda label, at: rng.uniform(1, 9)))
    monkeypatch.setattr("bessemer.tune.borders.GAIN", -1.0)  # every point is timed
    path = tmp_path / "m.onnx"
    _model(path)
    profiles = [bessemer.Profile({"x": ((1, 1, 24), (4, 16, 24), (16, 64, 24))})]
    options = builder.BuildOptions(target=ManyPoints(cpu_target()), profiles=profiles)
    engine = builder.run(path, options)
    plain = builder.build(path, profiles=profiles, tune="off")
    assert engine is not None and len(engine.program.steps) > 2 * len(plain.program.steps)
    assert any("(b*s 1 to " in s.name for s in engine.program.steps)
    session, one = bessemer.load(engine.save(tmp_path / "m.engine")), bessemer.load(plain)
    for b, s in [(1, 1), (16, 64), (4, 16), (1, 64), (16, 1), (3, 7), (9, 40), (4, 16), (1, 1)]:
        x = np.random.default_rng(b * s).standard_normal((b, s, 24), np.float32)
        want = one.run({"x": x})["y"]
        np.testing.assert_allclose(session.run({"x": x})["y"], want, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(session.trace({"x": x})["y"], want, rtol=1e-4, atol=1e-6)
        flops = sum(session.evaluate(step.flops, {"x": x}) for step in engine.program.steps)
        assert flops == sum(one.evaluate(step.flops, {"x": x}) for step in plain.program.steps)


def test_variants_are_one_problem_to_the_timing_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    measurer = AtPoints(lambda label, at: 1.0 + at["b"] * (label == "b"))
    first = Tuner(TARGET, {}, TACTICS, TimingCache(path), measurer=measurer).choose([DYNAMIC], {"b", "s"})
    again = Tuner(TARGET, {}, TACTICS, TimingCache(path), mode="cache").choose([DYNAMIC], {"b", "s"})
    assert [(v.when, v.choice.tactic) for v in first[DYNAMIC]] == [(v.when, v.choice.tactic) for v in again[DYNAMIC]]
    fewer = replace(TARGET, limits={**TARGET.limits, "tuned_points": 1})
    assert len(Tuner(fewer, {}, TACTICS, TimingCache()).choose([DYNAMIC], {"b", "s"})[DYNAMIC]) == 1
