"""Whole builds, in processes of their own: what they need, and what is left when they lack it or are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import bessemer
from bessemer.core.errors import BuildError, CompilerError, DeviceError
from bessemer.engine.reader import read
from bessemer.tune.cache import TimingCache
from tests.runtime.networks import as_model, perceptron

ROOT = Path(__file__).parents[2]
WIDE, LAYERS = 2560, 8  # of the large model: 200 MB


def started(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def output(code: str, *arguments: object, **environment: str) -> str:
    """What the process prints; it must end well."""
    process = started(code, *arguments, **environment)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(perceptron(), path)
    return path


# -- memory and time --------------------------------------------------------------------------------------------------

PEAK = """
import json, sys
import bessemer

def build(model, width, path):
    profile = bessemer.Profile({"x": ((1, width), (4, width), (16, width))})
    bessemer.build(model, target=target, precision=precision, tune="off", threads=2, profiles=[profile]).save(path)
    if not sys.platform.startswith("linux"):
        return 0
    status = open("/proc/self/status").read()  # getrusage begins with the peak of the process that started this one
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

small, large, width, out, target, precision = sys.argv[1:]
print(json.dumps([build(small, 96, out), build(large, int(width), out)]))
"""


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A model of 200 MB; the bytes of its weights."""
    path, model = tmp_path_factory.mktemp("large") / "large.onnx", perceptron(WIDE, LAYERS)
    onnx.save(model, path)
    return path, sum(len(t.raw_data) for t in model.graph.initializer)


@pytest.fixture(scope="module")
def large(large_model: tuple[Path, int], small: Path) -> tuple[Path, list[int]]:
    """Its engine for the CPU; the peak memory of a small build and then of this one."""
    path = large_model[0].with_suffix(".engine")
    return path, json.loads(output(PEAK, small, large_model[0], WIDE, path, "cpu", "fp32"))


def check_peaks(weights: int, before: int, peak: int) -> None:
    """Less than twice the weights beyond what any build needs, which is less than a gigabyte. Pages of the model's file
    count as memory here."""
    assert weights >= 200 << 20
    assert before < 1 << 30
    assert peak - before < 2 * weights, f"{(peak - before) / weights:.2f} times the weights"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_build_needs_less_than_twice_the_weights(
    large_model: tuple[Path, int], large: tuple[Path, list[int]]
) -> None:
    check_peaks(large_model[1], *large[1])


@pytest.mark.triton
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_build_for_a_gpu_needs_less_than_twice_the_weights(
    large_model: tuple[Path, int], small: Path, tmp_path: Path, precision: str
) -> None:
    """For fp16 values are measured in the interpreter, and weights are rounded filter by filter, on the way."""
    engine = tmp_path / "gpu.engine"
    peaks = json.loads(output(PEAK, small, large_model[0], WIDE, engine, "cuda:sm_90", precision))
    check_peaks(large_model[1], *peaks)
    assert engine.stat().st_size < large_model[1] * (0.6 if precision == "fp16" else 1.1)


def test_two_hundred_megabytes_are_loaded_in_a_third_of_a_second(large: tuple[Path, list[int]]) -> None:
    """With the digest of every byte checked."""
    seconds = []
    for _ in range(3):
        began = time.process_time()
        session = bessemer.load(large[0])
        seconds.append(time.process_time() - began)
    assert session.engine.memory["weights"] >= 200 << 20
    assert min(seconds) < 0.3, seconds
    x = np.zeros((1, WIDE), np.float32)
    assert session.run([x])["y"].shape == (1, WIDE)


def test_options_that_make_no_sense_are_named(small: Path) -> None:
    for name, number in (("threads", 0), ("workspace", -5), ("build_budget", -1.0), ("build_budget", float("nan"))):
        with pytest.raises(BuildError, match=f"{name} is {number}"):
            bessemer.build(small, **{name: number})


@pytest.mark.parametrize("options,what,fix", [
    ({"threads": 1.5}, "threads is 1.5", "give a whole number, 1 or more, or leave it out"),
    ({"threads": "2"}, "threads is '2'", "give a whole number, 1 or more, or leave it out"),
    ({"build_budget": "2"}, "build_budget is '2'", "give 0 or more, or leave it out"),
    ({"target": 5}, "target is 5", "use cpu, cpu:avx2, cuda or cuda:sm_90"),
    ({"shapes": "x:4x8"}, "shapes is 'x:4x8', which names no inputs", "give {input: shape}, as {'x': (4, 8)}"),
    ({"shapes": [(4, 8)]}, "shapes is [(4, 8)], which names no inputs", "give {input: shape}, as {'x': (4, 8)}"),
    ({"calibration": {"x": np.ones(3)}}, "calibration is of type dict, no list", "[{input: array}, ...]"),
    ({"calibration": np.ones(3)}, "calibration is of type ndarray, no list", "[{input: array}, ...]"),
    ({"calibration": [np.ones(3)]}, "calibration holds ndarray, which names no inputs", "[{input: array}, ...]"),
])  # fmt: skip
def test_options_of_another_type_are_named(small: Path, options: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(BuildError) as caught:
        bessemer.build(small, precision="fp16", **options)
    assert caught.value.what == what and fix in str(caught.value.fix)


# -- a killed build ---------------------------------------------------------------------------------------------------

BUILDING = """
import sys
import bessemer
from bessemer.engine import writer
from bessemer.tune import tuner
from bessemer.tune.measure_cpu import CpuMeasurer

def told(name, function):
    def call(*args, **options):
        print(name, flush=True)
        return function(*args, **options)
    return call

tuner.SAVE_SECONDS = 0.0  # a build that takes longer saves as often as the clock tells it to
CpuMeasurer.measure = told("measure", CpuMeasurer.measure)
writer.write_to = told("write", writer.write_to)
model, cache, path = sys.argv[1:]
bessemer.build(model, timing_cache=cache, threads=2).save(path)
"""


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of four different sizes."""
    widths = (96, 80, 64, 48, 32)
    nodes = [helper.make_node("MatMul", [f"v{k}", f"w{k}"], [f"v{k + 1}"]) for k in range(4)]
    weights = [
        numpy_helper.from_array(np.ones((a, b), np.float32), f"w{k}")
        for k, (a, b) in enumerate(zip(widths, widths[1:]))
    ]
    path = tmp_path_factory.mktemp("model") / "funnel.onnx"
    onnx.save(as_model(nodes, {"v0": [8, 96]}, {"v4": [8, 32]}, weights), path)
    return path


def test_killed_builds_leave_no_half_engine_and_a_valid_timing_cache(funnel: Path, tmp_path: Path) -> None:
    cache, path, whole = tmp_path / "cache.jsonl", tmp_path / "net.engine", tmp_path / "whole.jsonl"
    count = output(BUILDING, funnel, whole, tmp_path / "whole.engine").split().count("measure")
    assert count >= 2
    kept = 0
    for line in ["measure"] * count + ["write"]:  # each build goes on where the one before was killed
        with started(BUILDING, funnel, cache, path) as build:
            assert build.stdout is not None
            for _ in range(2 if line == "measure" else 1):
                while build.stdout.readline().strip() not in (line, "write", ""):
                    pass
            build.send_signal(signal.SIGKILL)
        assert not path.exists() or read(path).program
        entries = len(TimingCache(cache).entries) if cache.exists() else 0
        assert entries >= kept, "what was measured before a kill is there"
        kept = entries
    assert kept == len(TimingCache(whole).entries) > 0
    engine = bessemer.build(funnel, timing_cache=TimingCache(cache, "require"), threads=2)
    assert read(engine.save(path)).program == engine.program


def test_a_build_that_ends_in_an_error_keeps_its_timings(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int, what: str) -> None:
        if stage == "tune" and done == total > 0:
            raise Stop

    with pytest.raises(Stop):
        bessemer.build(small, timing_cache=cache, threads=2, progress=stop)
    assert TimingCache(cache).entries


# -- a machine that lacks something -----------------------------------------------------------------------------------

FAILING = """
import json, resource, sys
import bessemer
model, options, limits = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
for name, value in limits.items():
    resource.setrlimit(getattr(resource, name), (value, -1))
save = options.pop("save", None)
try:
    engine = bessemer.build(model, **options)
    if save:
        engine.save(save)
except bessemer.BessemerError as error:
    print(json.dumps([type(error).__name__, error.what, error.where, error.fix]))
"""


def failure(
    model: Path, options: dict[str, Any], limits: dict[str, int] | None = None, **environment: str
) -> list[str]:
    """The type, what, where and fix of the error that ends the build."""
    out = output(FAILING, model, json.dumps(options), json.dumps(limits or {}), **environment)
    assert out, "the build did not fail"
    found: list[str] = json.loads(out)
    return found


@pytest.mark.parametrize("tune", ["off", "device"])
def test_a_disk_without_room_for_kernels_is_said(small: Path, tmp_path: Path, tune: str) -> None:
    options = {"tune": tune, "timing_cache": str(tmp_path / "cache.jsonl")}
    name, what, where, fix = failure(small, options, {"RLIMIT_FSIZE": 3000}, BESSEMER_CACHE=str(tmp_path / "kernels"))
    assert (name, where) == (BuildError.__name__, str(tmp_path / "kernels" / "objects"))
    assert what.startswith("compiled kernels cannot be written: File") and "BESSEMER_CACHE" in fix
    assert not (tmp_path / "cache.jsonl").exists(), "the disk's fault is not remembered as the kernels'"
    name, what, where, fix = failure(small, options, BESSEMER_CACHE="/proc/nothing")
    assert what == "compiled kernels cannot be written: No such file or directory" and "BESSEMER_CACHE" in fix


@pytest.mark.triton
def test_a_disk_without_room_for_gpu_kernels_is_said(small: Path, tmp_path: Path) -> None:
    options = {"tune": "off", "target": "cuda:sm_90"}
    name, what, where, fix = failure(small, options, {"RLIMIT_FSIZE": 3000}, BESSEMER_CACHE=str(tmp_path))
    assert (name, where) == (BuildError.__name__, str(tmp_path / "cubins"))
    assert what.startswith("compiled kernels cannot be written: File") and "BESSEMER_CACHE" in fix


def test_a_disk_without_room_for_the_engine_is_said(small: Path, tmp_path: Path) -> None:
    bessemer.build(small, tune="off")  # the kernels are kept from now on
    path = tmp_path / "net.engine"
    name, what, where, fix = failure(small, {"tune": "off", "save": str(path)}, {"RLIMIT_FSIZE": 100_000})
    if what.startswith("compiled kernels"):  # the linker's output is larger than the engine's weights
        pytest.skip("the native code of this compiler is larger than 100 kB")
    assert name == BuildError.__name__ and what.startswith("the engine could not be written: File too large")
    assert where == str(path) and "free space" in fix
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space")
def test_too_little_memory_to_build_is_said(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    onnx.save(perceptron(4096, 3), path)
    options = {"tune": "off", "threads": 1, "save": str(tmp_path / "net.engine")}
    said = []
    for mb in (250, 500, 600):
        out = output(FAILING, path, json.dumps(options), json.dumps({"RLIMIT_AS": mb << 20}), OPENBLAS_NUM_THREADS="1")
        if out:
            name, what, where, fix = json.loads(out)
            assert "emory" in what and "memory" in fix, (what, fix)
            said.append(what)
    assert said, "a model of 200 MB was built in 250 MB of address space"
    assert not (tmp_path / "net.engine").exists() or read(tmp_path / "net.engine")


def test_no_compiler_is_said_with_the_way_to_get_one(small: Path, tmp_path: Path) -> None:
    name, what, _, fix = failure(small, {"tune": "off"}, PATH=str(tmp_path / "nothing"), CC="")
    assert name == CompilerError.__name__ and what.startswith("no C compiler was found (tried $CC, cc, gcc, clang")
    assert "apt-get install gcc" in fix and "pip install 'bessemer[cpu]'" in fix


@pytest.mark.triton
def test_no_gpu_is_said_with_what_works_without_one(small: Path, tmp_path: Path) -> None:
    """An empty CUDA_VISIBLE_DEVICES hides the GPUs of a machine that has some."""
    name, what, _, fix = failure(small, {"target": "cuda"}, CUDA_VISIBLE_DEVICES="")
    assert name == DeviceError.__name__
    assert any(text in what for text in ("no NVIDIA driver", "no NVIDIA GPU", "the CUDA binding is not installed"))
    assert any(text in fix for text in ("cuda:sm_", "pip install"))
    path = bessemer.build(small, target="cuda:sm_90", tune="off").save(tmp_path / "gpu.engine")
    loading = "import sys, bessemer\ntry: bessemer.load(sys.argv[1])\nexcept bessemer.DeviceError as e: print(e)"
    said = output(loading, path, CUDA_VISIBLE_DEVICES="")
    assert "NVIDIA" in said or "CUDA" in said
    assert "fix: " in said
