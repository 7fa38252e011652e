"""The command line as people and scripts use it: through the real entry point where streams and status matter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bessemer import __version__
from tests.cli.calls import call, command, ok

VERBS = ("build", "run", "bench", "inspect", "compare", "diff", "cache")


def test_errors_go_to_stderr_with_status_one(tmp_path: Path, model: Path) -> None:
    cases = [
        (("build", model), "no output was named"),
        (("build", model, "-o", tmp_path / "e", "--fp16", "--bf16"), "exclude each other"),
        (("build", tmp_path / "none.onnx", "-o", tmp_path / "e"), "none.onnx"),
        (("inspect", tmp_path / "none.engine"), "cannot be read"),
        (("inspect", model), "not a Bessemer engine"),
        (("run", model), "not a Bessemer engine"),
        (("build", model, "-o", tmp_path), "is a folder"),
        (("run", tmp_path / "none.engine", "-i", f"x={tmp_path / 'none.npy'}"), "none.engine"),
        (("build", model, "-o", tmp_path / "e", "--fp16", "--calibration", tmp_path / "none.npz"), "none.npz"),
    ]
    for args, message in cases:
        done = command(*args)
        assert done.returncode == 1 and done.stdout == "", args
        assert done.stderr.startswith("error: ") and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_an_error_says_where_and_how_to_fix(model: Path) -> None:
    done = command("build", model)
    assert done.stderr.splitlines() == [
        "error: no output was named",
        "  fix: add -o model.engine (or --stop-after STAGE)",
    ]


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("nonsense",),
        ("build",),
        ("run", "--no-such-option"),
        ("bench", "e", "--runs", "x"),
        ("bench", "e", "--runs", "0"),
        ("run", "e", "--seed", "-1"),
        ("bench", "e", "--seed", "-1"),
        ("compare", "m", "--seed", "-1"),
        ("build", "m", "--threads", "0"),
        ("build", "m", "--build-budget", "-1"),
    ],  # fmt: skip
)
def test_usage_errors_have_status_two(args: tuple[str, ...]) -> None:
    assert call(*args).exit_code == 2


def test_help_names_every_verb_and_version_is_printed() -> None:
    text = ok("--help")
    assert all(verb in text for verb in VERBS)
    for verb in VERBS:
        assert ok(verb, "--help")
    assert ok("--version").startswith("bessemer ")


def test_commands_that_only_run_engines_load_no_builder() -> None:
    heavy = "'onnx', 'triton', 'torch', 'bessemer.builder'"
    code = f"import sys, bessemer.cli.main; print([m for m in ({heavy}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_json_is_all_that_stdout_holds(model: Path, engine: Path, tmp_path: Path) -> None:
    for args in (
        ("build", model, "-o", tmp_path / "x.engine"),
        ("inspect", engine),
        ("run", engine),
        ("bench", engine),
    ):
        done = command(*args, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "bessemer", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(__version__)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_wherever_it_is_met(engine: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "bessemer", "run", str(engine), "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
    limited = f"ulimit -f 0; exec {sys.executable} -m bessemer run {engine} -o {tmp_path}/out.npz"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
