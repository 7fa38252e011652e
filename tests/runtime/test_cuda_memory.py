"""A process takes no more of the GPU's memory than `inspect` told before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper
from typer.testing import CliRunner

from bessemer.cli.main import app
from bessemer.cli.verbs.inspect import describe
from bessemer.device.cuda_devices import require_device
from bessemer.engine.engine import Engine
from bessemer.frontend.profile import Profile
from bessemer.runtime.memory import CONTEXT_BYTES
from bessemer.targets.cuda import cuda_target
from tests.runtime.networks import as_model, built, perceptron

WIDTH, ROWS = 2048, 4096
PROCESS = """
import os, sys, numpy, bessemer
from bench.machine import gpu_bytes
session = bessemer.load(sys.argv[1])
for rows in [*range(1, 60), 4096]:
    session.run([numpy.ones((rows, 2048), numpy.float32)])
    session.run([numpy.ones((rows, 2048), numpy.float32)])
print(gpu_bytes(os.getpid()))
"""


def engine(arch: str) -> Engine:
    """64 MB of weights, tens of megabytes of everything else."""
    return built(
        perceptron(WIDTH, 4), cuda_target(arch), profiles=[Profile({"x": ((1, WIDTH), (64, WIDTH), (ROWS, WIDTH))})]
    )


@pytest.mark.triton
def test_inspect_adds_up_what_a_process_takes() -> None:
    made = engine("sm_90")
    told = describe(made)["device_memory"]
    assert told["weights"] == made.memory["weights"] > 64 << 20 and told["arena"] == made.memory["arena"]
    assert told["buffers"] == 2 * 4 * ROWS * WIDTH and told["context"] == CONTEXT_BYTES
    assert told["most"] == sum(n for name, n in told.items() if name != "most")


@pytest.mark.triton
def test_inspect_does_not_add_up_what_has_no_bound(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "x"], ["y"])]
    model = as_model(nodes, {"x": ["n", "m", "m"]}, {"y": ["n", "m", "m"]}, [])
    made = built(model, cuda_target("sm_90"))
    told = describe(made)["device_memory"]
    assert (told["buffers"], told["most"], told["weights"]) == (None, None, 0)
    said = CliRunner().invoke(app, ["inspect", str(made.save(tmp_path / "m.engine"))]).stdout
    (line,) = (line for line in said.splitlines() if line.startswith("GPU memory"))
    assert "with one context: not bounded; beside weights and arena, what their sizes ask for inputs and" in line


@pytest.mark.gpu
def test_a_process_takes_no_more_than_inspect_tells(tmp_path: Path) -> None:
    made = engine(require_device().arch)
    told = describe(made)["device_memory"]
    path = made.save(tmp_path / "m.engine")
    found = subprocess.run([sys.executable, "-c", PROCESS, str(path)], check=True, capture_output=True, text=True)
    if found.stdout.strip() == "None":
        pytest.skip("NVML does not tell what this process takes")
    taken = int(found.stdout)
    assert told["weights"] + told["arena"] < taken <= told["most"]
