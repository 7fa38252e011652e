"""Measuring on the CPU, with kernels that are right and kernels that fail in every way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import WORKSPACE, Config, Int, Into, KernelCode, Launch, Limits, Pack, Problem, Ptr
from bessemer.targets.cpu import cpu_target
from bessemer.tune import measure_cpu
from bessemer.tune.cache import TimingCache
from bessemer.tune.measure_cpu import CpuMeasurer
from bessemer.tune.task import Candidate
from bessemer.tune.tuner import Tuner
from tests.tune.fakes import FakeTactic, FakeTarget, problem

HEAD = "#include <stdint.h>\nvoid f(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {\n"
PRODUCT = """    const float *a = p[0], *b = p[1];
    float *c = p[2], *own = p[3];
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < 8; j++) {
            own[0] = 0;
            for (int64_t k = 0; k < 8; k++) own[0] += a[i * 8 + k] * b[k * 8 + j];
            c[i * 8 + j] = own[0] * SCALE;
        }
"""


@dataclass
class Fixed(FakeTactic):
    """A tactic with one kernel."""

    code: KernelCode | None = None

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        assert self.code is not None
        return self.code


def candidate(body: str, rows: int = 8) -> Candidate:
    args = (Ptr(0), Ptr(1), Ptr(2), Ptr(WORKSPACE), Int(rows))
    code = KernelCode("c", HEAD + body + "}\n", (Launch("f", (1,), args),), workspace=4)
    return Candidate(Fixed("t", code=code), {}, problem(rows), FakeTarget())


def right(note: str = "") -> Candidate:
    return candidate(note + PRODUCT.replace("SCALE", "1").replace("begin; i < end", "0; i < d[0]"))


def wrong(body: str) -> Candidate:
    return candidate(PRODUCT.replace("SCALE", "1").replace("begin; i < end", "0; i < d[0]") + body)


FAILURES = {
    "    *(volatile int *)0 = 1;\n": "crashed (signal 11)",
    "    __builtin__exit(3);\n": "crashed",
    '    for (;;) __asm__ volatile("");\n': "did not end within 1 s",
    "    c[0] += 1;\n": "wrong result: relative error",
    "    c[64] = 1;\n": "wrote outside its buffers",
    "    c[-1] = 1;\n": "wrote outside its buffers",
    "    own[1] = 1;\n": "wrote outside its buffers",
    "    nobody_has_this(p);\n": "nobody_has_this",
    "}\nvoid bsm_run(void) {\n": "multiple definition",
    "    syntax error;\n": "error",
}


@pytest.fixture
def measurer(monkeypatch: pytest.MonkeyPatch) -> CpuMeasurer:
    monkeypatch.setattr(measure_cpu, "SCREEN_SECONDS", 1.0)
    return CpuMeasurer(cpu_target(threads=2))


def test_each_failure_costs_only_itself(measurer: CpuMeasurer) -> None:
    candidates = [right(), *(wrong(body) for body in FAILURES), right("    (void)thread;\n")]
    measurer.prepare([(problem(), candidates)])
    first, *failed, last = measurer.measure(problem(), candidates)
    assert first.us and last.us and first.error is None and last.error is None
    for found, (body, expected) in zip(failed, FAILURES.items(), strict=True):
        assert found.us is None and expected in (found.error or ""), (body, found)


def test_nothing_beside_the_columns_of_a_wider_tensor_is_written(measurer: CpuMeasurer) -> None:
    asked = replace(problem(), into=Into(3, 16))
    product = PRODUCT.replace("SCALE", "1").replace("begin; i < end", "0; i < 8")
    body = product.replace("c[i * 8 + j]", "c[i * 16 + j + 3]")
    bodies = ["", "    c[2] = 1;\n", "    c[16 + 11] = 1;\n", "    c[8 * 16 - 1] = 1;\n", "    c[4] += 1;\n"]
    found = measurer.measure(asked, [replace(candidate(body + more), problem=asked) for more in bodies])
    assert found[0].us and [f.error for f in found[:4]] == [None, *["wrote outside its buffers"] * 3]
    assert "wrong result" in (found[4].error or "")


def test_where_all_fail_all_are_told(measurer: CpuMeasurer) -> None:
    found = measurer.measure(problem(), [wrong("    c[0] += 1;\n"), wrong("    *(volatile int *)0 = 1;\n")])
    assert [f.us for f in found] == [None, None]
    assert "wrong result" in (found[0].error or "") and "crashed" in (found[1].error or "")


def changed(**changes: Any) -> Candidate:
    """The right kernel, announced wrongly."""
    code = replace(right().code, **changes)
    return Candidate(Fixed("t", code=code), {}, problem(), FakeTarget())


LAUNCH = right().code.launches[0]
ODD = TensorType(dt.f32, (8, 8))
ANNOUNCED = {
    "has no function 'g": changed(launches=(LAUNCH, replace(LAUNCH, entry="g"))),
    "IndexError": changed(launches=(replace(LAUNCH, args=(Ptr(17),)),)),
    "unknown weight transform 'fold'": changed(packs=(Pack(1, "fold", (), ODD),)),
    "undecided": changed(workspace=sym("nobody")),
}


def test_what_is_announced_wrongly_costs_only_itself(measurer: CpuMeasurer) -> None:
    first, *failed, last = measurer.measure(problem(), [right(), *ANNOUNCED.values(), right("    (void)end;\n")])
    assert first.us and last.us
    for found, expected in zip(failed, ANNOUNCED, strict=True):
        assert found.us is None and "cannot be laid out" in (found.error or ""), found
        assert expected in (found.error or "") or expected == "undecided", found


@dataclass
class Candidates(FakeTactic):
    """One candidate for each text of C."""

    texts: tuple[str, ...] = ()

    def configs(self, problem: Problem, target: Limits) -> list[Config]:
        return [{"text": k} for k in range(len(self.texts))]

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return candidate(self.texts[int(config["text"])]).code


def test_a_build_drops_logs_and_remembers_what_fails(measurer: CpuMeasurer, tmp_path: Path) -> None:
    """The tuner, the measurer and the timing cache together: the next build does not try again."""
    good = PRODUCT.replace("SCALE", "1").replace("begin; i < end", "0; i < d[0]")
    tactic = Candidates("t", texts=(*(good + body for body in FAILURES), good))
    path, lines, target = tmp_path / "cache.jsonl", list[str](), measurer.target
    tuner = Tuner(target, {"cpu": "this"}, [tactic], TimingCache(path), measurer=measurer, log=lines.append)
    choice = tuner.choose([problem()])[problem()][0].choice
    winner = len(FAILURES)
    assert choice.config == {"text": winner} and choice.chosen_by == "measured"
    assert len(lines) == winner and all(line.startswith('dropped t{"text":') for line in lines)
    for k, expected in enumerate(FAILURES.values()):
        why = dict(choice.rejected)[f't{{"text":{k}}}']
        assert why.startswith("failed: ") and expected in why
    failures = {e.config["text"]: e.error for e in TimingCache(path).entries.values() if e.error}
    assert set(failures) == set(range(winner))
    again = Tuner(target, {"cpu": "this"}, [tactic], TimingCache(path, "require"), log=lines.append)
    assert again.choose([problem()])[problem()][0].choice.config == {"text": winner}
    assert len(lines) == winner, "nothing was tried again"


def test_what_was_not_prepared_is_compiled_when_it_is_measured(measurer: CpuMeasurer) -> None:
    other: Problem = problem(16)
    measurer.prepare([(problem(), [right()])])
    (found,) = measurer.measure(other, [candidate(right("    (void)end;\n").code.text[len(HEAD) : -2], rows=16)])
    assert found.us and found.error is None
