"""Measuring on the GPU, with kernels that are right and kernels that fail in every way; and without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core.errors import DeviceError
from bessemer.kernels.base import COUNTERS, WORKSPACE, Config, Int, Into, KernelCode, Launch, Limits, Problem, Ptr
from bessemer.targets import nvrtc_compile
from bessemer.targets.cuda import ARCHS, CudaTarget, cuda_target
from bessemer.tune import measure_cuda
from bessemer.tune.cache import TimingCache
from bessemer.tune.case import Case, case_of
from bessemer.tune.measure_cuda import CudaMeasurer
from bessemer.tune.shared import Shared
from bessemer.tune.task import Candidate
from bessemer.tune.trial import POISON, Answer, Drop, Setup, Trial
from bessemer.tune.tuner import Tuner
from tests.tune.fakes import FakeTactic, FakeTarget, problem
from tests.tune.test_measure_cpu import Fixed

needs_nvrtc = pytest.mark.skipif(nvrtc_compile.version() is None, reason="needs NVRTC")
ROWS = 2048
TEXT = """__device__ int runs;
extern "C" __global__ void k(const float *a, const float *b, float *c, float *own, int *counters, int rows) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    bool first = at == 0;
    if (at < rows * 8) {
        float sum = 0;
        for (int k = 0; k < 8; k++) sum += a[at / 8 * 8 + k] * b[k * 8 + at % 8];
        c[at] = own[at % 8] = sum;
    }
    if (first) runs++;
    BODY
}
"""
OPTIONS = (("cluster", 1), ("pdl", False), ("shared", 0), ("warps", 4))


def code(body: str) -> KernelCode:
    args = (Ptr(0), Ptr(1), Ptr(2), Ptr(WORKSPACE), Ptr(COUNTERS), Int(ROWS, 32))
    launch = Launch("k", (ROWS * 8 // 128,), args, OPTIONS)
    return KernelCode("cuda", TEXT.replace("BODY", body), (launch,), workspace=32, counters=1)


def candidate(body: str) -> Candidate:
    return Candidate(Fixed("t", code=code(body)), {}, problem(ROWS), FakeTarget())


HANG = "while (*(volatile float *)a != 1e30f) __nanosleep(100);"
FAILURES = {
    "if (first) *(volatile int *)16 = 1;": "ILLEGAL_ADDRESS",
    "if (first) c[0] += 1;": "wrong result: relative error",
    "if (first) *(volatile double *)((char *)c + 4) = 1;": "MISALIGNED_ADDRESS",
    "__trap();": "failed: CUDA_ERROR",
    f"if (first) {HANG}": "did not end within 20 s",
    "if (first) c[rows * 8] = 1;": "wrote outside output 0",
    "if (first) c[-1] = 1;": "wrote outside output 0",
    "if (first) own[8] = 1;": "wrote outside its workspace",
    "if (first) *counters = 1;": "left counters that are not zero",
    "((float *)a)[at % (rows * 8)] = ((float *)b)[at % 64] = c[at % (rows * 8)] = 7;": "wrong result",
    "if (first && runs > 1) *(volatile int *)16 = 1;": "ILLEGAL_ADDRESS",
    "if (first && runs > 1) c[0] += 1;": "gave other results when it was run again",
    f"if (first && runs > 30) {HANG}": "did not end within 20 s",
    "syntax error": "error",
}


@pytest.fixture
def measurer() -> Iterator[CudaMeasurer]:
    found = CudaMeasurer(cuda_target())
    yield found
    found.close()


@pytest.mark.gpu
def test_each_failure_costs_only_itself(measurer: CudaMeasurer) -> None:
    rights = [candidate(f"// {k}") for k in range(len(FAILURES) + 1)]
    wrongs = [candidate(body) for body in FAILURES]
    mixed = [c for pair in zip(rights, wrongs) for c in pair] + rights[-1:]
    measurer.prepare([(problem(ROWS), mixed)])
    found = measurer.measure(problem(ROWS), mixed)
    assert all(f.us and f.error is None for f in found[::2]), found
    for (body, expected), f in zip(FAILURES.items(), found[1::2], strict=True):
        assert f.us is None and expected in (f.error or ""), (body, f)


@pytest.mark.gpu
def test_nothing_is_left_behind(measurer: CudaMeasurer) -> None:
    (before,) = measurer.measure(problem(ROWS), [candidate("")])
    assert measurer.process is not None
    pid = measurer.process.child.pid
    measurer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    (after,) = measurer.measure(problem(ROWS), [candidate("")])
    assert before.us and after.us and max(before.us, after.us) < 2 * min(before.us, after.us)


INTO = Into(8, 24)
COLUMNS = "c[at] = own[at % 8] = sum;", "c[at / 8 * 24 + 8 + at % 8] = own[at % 8] = sum;"
BESIDE = {"": None, "if (first) c[7] = 1;": "beside", "if (first) c[rows * 24 - 1] = 1;": "beside"}


@pytest.mark.gpu
def test_what_lies_beside_columns_stays(measurer: CudaMeasurer) -> None:
    wider, found = replace(problem(ROWS), into=INTO), [candidate(body) for body in BESIDE]
    texts = [replace(c.code, text=c.code.text.replace(*COLUMNS)) for c in found]
    measured = measurer.measure(wider, [Candidate(Fixed("t", code=t), {}, wider, FakeTarget()) for t in texts])
    for m, why in zip(measured, BESIDE.values(), strict=True):
        assert (m.us is not None) == (why is None) and (why or "") in (m.error or ""), measured


class Process:
    """Answers for one that has a GPU: each candidate writes the columns, and then where its number says."""

    def __init__(self, shared: Shared, problem: Problem, case: Case) -> None:
        self.shared, self.problem, self.case = shared, problem, case
        self.raced = set[int]()

    def ask(self, message: object, turn: object = None) -> Answer:
        match message:
            case Setup():
                (self.piece,), self.raced = message.outputs, set()
            case Trial(number=number):
                whole = np.full((ROWS, INTO.width * 4), POISON, np.uint8).view(np.float32)
                whole[:, INTO.start : INTO.start + 8] = self.case.wanted[0]
                if number:
                    whole[number, (0, 16, 8)[number - 1]] = 1.0
                self.shared.bytes(self.piece)[:] = whole.view(np.uint8).reshape(-1)
                self.raced.add(number)
            case Drop(number=number):
                self.raced.remove(number)
        return Answer(us=dict.fromkeys(self.raced, 1.0))


def test_the_screen_sees_what_is_written_beside_columns() -> None:
    wider, shared = replace(problem(ROWS), into=INTO), Shared()
    case = case_of(wider, np.random.default_rng(0))
    attempts = measure_cuda._Attempts(wider, case, shared)
    for number in range(4):
        attempts.add(number, KernelCode("cuda", "", ()), [])
    process = Process(shared, wider, case)
    assert attempts.run(process) == {0: 1.0}  # type: ignore[arg-type]
    shared.close()
    assert attempts.failed.keys() == {1, 2, 3} and "wrong result" in attempts.failed[3]
    assert attempts.failed[1] == attempts.failed[2] == "wrote beside the columns of output 0"


class Candidates(FakeTactic):
    """One candidate for each body."""

    def configs(self, problem: Problem, target: Limits) -> list[Config]:
        return [{"body": k} for k in range(len(FAILURES) + 1)]

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return code([*FAILURES, ""][int(config["body"])])


@pytest.mark.gpu
def test_a_build_drops_logs_and_remembers_what_fails(measurer: CudaMeasurer, tmp_path: Path) -> None:
    """The tuner, the measurer and the timing cache together: the next build does not try again."""
    path, lines, target, last = tmp_path / "cache.jsonl", list[str](), measurer.target, len(FAILURES)
    tuner = Tuner(target, {"gpu": "this"}, [Candidates("t")], TimingCache(path), measurer=measurer, log=lines.append)
    choice = tuner.choose([problem(ROWS)])[problem(ROWS)][0].choice
    assert choice.config == {"body": last} and choice.chosen_by == "measured" and measurer.process is None
    assert len(lines) == last and all(line.startswith('dropped t{"body":') for line in lines)
    for k, expected in enumerate(FAILURES.values()):
        why = dict(choice.rejected)[f't{{"body":{k}}}']
        assert why.startswith("failed: ") and expected in why
    failures = {e.config["body"]: e.error for e in TimingCache(path).entries.values() if e.error}
    assert set(failures) == set(range(last))
    again = Tuner(target, {"gpu": "this"}, [Candidates("t")], TimingCache(path, "require"), log=lines.append)
    assert again.choose([problem(ROWS)])[problem(ROWS)][0].choice.config == {"body": last}
    assert len(lines) == last, "nothing was tried again"


@needs_nvrtc
def test_without_a_gpu_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the process that would have measured, for its parent to raise."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    measurer = CudaMeasurer(CudaTarget("sm_90", ARCHS["sm_90"], folder=tmp_path))
    with pytest.raises(DeviceError, match="no NVIDIA") as caught:
        measurer.measure(problem(ROWS), [candidate("")])
    assert caught.value.fix
    measurer.close()


def test_the_process_that_measures_starts_light() -> None:
    code = "import json, sys, bessemer.tune.guarded_cuda; print(json.dumps(sorted(sys.modules)))"
    found = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    heavy = {"onnx", "triton", "torch", "bessemer.ops", "bessemer.targets", "bessemer.builder", "bessemer.passes"}
    assert not heavy & set(found)
