"""After warm-up a run on the CPU allocates nothing: counted at Python's allocator and at the C library's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.frontend.profile import Profile
from bessemer.runtime.session import load
from bessemer.targets.c_compiler import find_compiler
from tests.runtime.networks import WIDTH, built, perceptron

ROOT = Path(__file__).parents[2]
SIZES = (3, 64, 17)
SMALL = 64  # bytes: what numpy asks for to hold a shape, and gives back at once

PROBE = """
import ctypes, json, sys
import numpy as np
from bessemer.runtime.session import load

counter, counts, found = ctypes.CDLL(None), (ctypes.c_long * 3)(), {}
session = load(sys.argv[1], threads=2)
sizes, width = json.loads(sys.argv[2]), int(sys.argv[3])
feeds = [{"x": np.ones((n, width), np.float32)} for n in sizes]
outs = [{"y": np.empty((n, width), np.float32)} for n in sizes]

def counted(name, run):
    for _ in range(20):
        run()
    counter.counting_start()
    for _ in range(50):
        run()
    counter.counting_stop(counts)
    found[name] = list(counts)

counted("out", lambda: [session.run(f, out=o) for f, o in zip(feeds, outs)])
counted("new outputs", lambda: [session.run(f) for f in feeds])
with session._ready(feeds[0], outs[0]) as (context, arrays, outputs):
    counted("native", context.table.run)
    counted("counter", lambda: np.empty(12345, np.uint8))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = built(perceptron(), profiles=[Profile({"x": ((1, WIDTH), (16, WIDTH), (64, WIDTH))})])
    return made.save(tmp_path_factory.mktemp("engine") / "net.engine")


@pytest.fixture(scope="module")
def counts(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """[calls, bytes, the largest request] of fifty rounds of each kind of run."""
    if not sys.platform.startswith("linux"):
        pytest.skip("preloading is the dynamic loader's of Linux")
    shim = tmp_path_factory.mktemp("shim") / "counting.so"
    source = Path(__file__).with_name("counting_malloc.c")
    subprocess.run([*find_compiler().command, "-O1", "-shared", "-fPIC", str(source), "-o", str(shim)], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(engine), json.dumps(SIZES), str(WIDTH)], cwd=ROOT, text=True,
        env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)}, capture_output=True,
    )  # fmt: skip
    if "counting_start" in done.stderr:
        pytest.skip("this C library has no allocator that can be counted")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


def test_the_counter_counts(counts: dict[str, list[int]]) -> None:
    calls, nbytes, largest = counts["counter"]
    assert calls >= 50 and nbytes >= 50 * 12345 and largest == 12345


def test_native_steps_allocate_nothing(counts: dict[str, list[int]]) -> None:
    assert counts["native"] == [0, 0, 0]


def test_a_run_into_given_buffers_allocates_nothing(counts: dict[str, list[int]]) -> None:
    calls, _, largest = counts["out"]
    assert largest <= SMALL and calls <= 4 * len(SIZES) * 50


def test_a_run_allocates_its_outputs_and_nothing_else(counts: dict[str, list[int]]) -> None:
    _, nbytes, largest = counts["new outputs"]
    outputs = [4 * n * WIDTH for n in SIZES]
    assert largest == max(outputs)
    assert nbytes <= 50 * (sum(outputs) + len(SIZES) * 4 * SMALL)


def test_python_keeps_nothing_of_a_run(engine: Path) -> None:
    session = load(engine, threads=2)
    feeds: list[dict[str, Any]] = [{"x": np.ones((n, WIDTH), np.float32)} for n in SIZES]
    outs = [{"y": np.empty((n, WIDTH), np.float32)} for n in SIZES]

    def runs(count: int) -> None:
        for _ in range(count):
            for feed, out in zip(feeds, outs):
                session.run(feed, out=out)

    runs(1500)  # until the interpreter's own free lists are full: of tuples it keeps 2,000
    tracemalloc.start()
    try:
        runs(20)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        runs(200)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024, "nothing grows from run to run"
    assert peak - before < 8192, "and a run holds only small objects"
