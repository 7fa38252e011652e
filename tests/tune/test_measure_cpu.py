"""Measuring on the CPU, with kernels that are right and kernels that fail in every way."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bessemer.kernels.base import WORKSPACE, Config, Int, KernelCode, Launch, Limits, Problem, Ptr
from bessemer.targets.cpu import cpu_target
from bessemer.tune import measure_cpu
from bessemer.tune.measure_cpu import CpuMeasurer
from bessemer.tune.task import Candidate
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
    "    __builtin_exit(3);\n": "crashed",
    '    for (;;) __asm__ volatile("");\n': "did not end within 1 s",
    "    c[0] += 1;\n": "wrong result: relative error",
    "    c[64] = 1;\n": "wrote outside its buffers",
    "    c[-1] = 1;\n": "wrote outside its buffers",
    "    own[1] = 1;\n": "wrote outside its buffers",
    "    nobody_has_this(p);\n": "nobody_has_this",
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


def test_what_was_not_prepared_is_compiled_when_it_is_measured(measurer: CpuMeasurer) -> None:
    other: Problem = problem(16)
    measurer.prepare([(problem(), [right()])])
    (found,) = measurer.measure(other, [candidate(right("    (void)end;\n").code.text[len(HEAD) : -2], rows=16)])
    assert found.us and found.error is None
