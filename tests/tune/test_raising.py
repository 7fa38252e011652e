"""Tactics that raise, and kernels that do not compile: they cost their own candidates, never the build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from bessemer import builder
from bessemer.core.errors import NoTacticError
from bessemer.kernels.base import Config, KernelCode, Limits, Problem
from bessemer.kernels.c.group import Group
from bessemer.runtime.session import load
from bessemer.tune.cache import TimingCache
from tests.runtime.networks import as_model
from tests.tune.fakes import FakeClock, FakeMeasurer, FakeTactic, problem
from tests.tune.tuning import A8, A16, TWO, B, tuner


@dataclass
class Defective(FakeTactic):
    """Raises in one of its methods; in emit() and estimate() for some tiles."""

    where: str = ""
    bad: tuple[int, ...] = ()

    def _raise(self, where: str, config: Any = None) -> None:
        if where == self.where and (config is None or config.get("tile", 0) in self.bad):
            raise KeyError(where)

    def applicable(self, problem: Any, target: Any) -> Any:
        self._raise("applicable")
        return super().applicable(problem, target)

    def configs(self, problem: Any, target: Any) -> Any:
        self._raise("configs")
        return super().configs(problem, target)

    def estimate(self, problem: Any, target: Any, config: Any) -> float:
        self._raise("estimate", config)
        return 100.0 / max(1, config.get("tile", 0))

    def emit(self, problem: Any, target: Any, config: Any) -> Any:
        self._raise("emit", config)
        return super().emit(problem, target, config)


RAISING = {"applicable": ("a", []), "configs": ("a", []), "estimate": (A8, [A16]), "emit": (A8, [A16])}


@pytest.mark.parametrize("where", RAISING)
def test_a_tactic_that_raises_costs_its_candidates_is_logged_and_kept_for_inspect(where: str) -> None:
    dropped, left_over = RAISING[where]
    lines: list[str] = []
    cache, measurer = TimingCache(), FakeMeasurer({A16: 2.0, B: 9.0, "c": 10.0})
    tactics = [Defective("a", tiles=(8, 16), where=where, bad=(8,)), TWO[1], FakeTactic("c")]
    run = tuner(tactics, cache, measurer=measurer)
    run.log = lines.append
    choice = run.choices([problem()])[problem()]
    assert measurer.asked == [(*left_over, B, "c")]
    assert choice.tactic == ("a" if left_over else "b")
    said = f"{where}() raised KeyError: '{where}'"
    assert dict(choice.rejected)[dropped] in (said, f"failed: {said}")
    assert lines.count(f"dropped {dropped} for matmul: {said}") == 1
    assert not any(e.error for e in cache.entries.values()), "a tactic that is mended is tried again at once"


@pytest.mark.parametrize("options", [{"mode": "off"}, {"mode": "cache"}, {"workspace": 0}, {"budget": 100.0}], ids=str)
def test_a_candidate_without_code_is_never_chosen(options: dict[str, Any]) -> None:
    tactics = [Defective("a", tiles=(8, 16), where="emit", bad=(16,)), TWO[1]]  # 16 has the best estimate
    run = tuner(tactics, measurer=FakeMeasurer({A8: 1.0, B: 2.0}, FakeClock()), **options)
    choice = run.choices([problem()])[problem()]
    assert choice.config == {"tile": 8}
    assert "emit() raised" in dict(choice.rejected)[A16]


def test_a_winner_of_the_cache_that_has_no_code_any_more_gives_way() -> None:
    cache = TimingCache()
    tuner(cache=cache, measurer=FakeMeasurer({A8: 1.0, A16: 1.01, B: 9.0})).choices([problem()])
    tactics = [Defective("a", tiles=(8, 16), where="emit", bad=(8, 16)), TWO[1]]
    choice = tuner(tactics, cache, mode="cache").choices([problem()])[problem()]
    assert choice.tactic == "b" and choice.time_us == 9.0
    assert {label for label, why in choice.rejected if "emit() raised" in why} == {A8, A16}


def test_if_every_tactic_raises_the_error_has_all_reasons() -> None:
    tactics = [Defective("a", tiles=(8,), where="emit", bad=(8,)), Defective("b", where="configs")]
    with pytest.raises(NoTacticError, match="every kernel for matmul failed") as caught:
        tuner(tactics, measurer=FakeMeasurer({})).choices([problem()])
    assert "emit() raised KeyError" in str(caught.value)
    with pytest.raises(NoTacticError, match=r"b: configs\(\) raised KeyError: 'configs'"):
        tuner([Defective("b", where="configs")]).choices([problem()])
    assert tuner([Defective("c", where="applicable")]).supports(problem()) == (
        "c: applicable() raised KeyError: 'applicable'"
    )


class DoesNotCompile(Group):
    """The best kernel by its estimate, which no compiler takes."""

    name = "c_broken"

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        return 0.0

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        code = super().emit(problem, target, config)
        return replace(code, text=code.text + "\n#error takes 278552 bytes\n")


def test_what_does_not_compile_is_dropped_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    given = builder.of_language
    monkeypatch.setattr(builder, "of_language", lambda *args: [DoesNotCompile(), *given(*args)])
    nodes, lines = [helper.make_node("Tanh", ["x"], ["y"])], list[str]()
    engine = builder.build(as_model(nodes, {"x": [2, 3]}, {"y": [2, 3]}), tune="off", log=lines.append)
    (kernel,) = engine.program.kernels
    assert kernel.tactic == "c_group" and [line for line in lines if "dropped c_broken for group: " in line]
    x = np.random.default_rng(0).standard_normal((2, 3), np.float32)
    np.testing.assert_allclose(load(engine).run([x])["y"], np.tanh(x), rtol=1e-5)
