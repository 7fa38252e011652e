"""The command line as people and scripts use it: through the real entry point where streams and status matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper
from typer.testing import CliRunner

from bessemer import __version__
from bessemer.cli.main import app
from bessemer.core.errors import BessemerError, EngineFormatError, InputError, ShapeError

VERBS = ("build", "run", "bench", "inspect", "compare", "diff", "cache")


def call(*args: object) -> Result:
    """In this process; errors of Bessemer come out as exceptions."""
    return CliRunner().invoke(app, [str(a) for a in args])


def ok(*args: object) -> str:
    result = call(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def as_json(*args: object, status: int = 0) -> Any:
    result = call(*args, "--json")
    assert result.exit_code == status, (result.output, result.exception)
    return json.loads(result.stdout)


def command(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    environment = {**os.environ, "COLUMNS": "200"}
    line = [sys.executable, "-m", "bessemer.cli.main", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


# -- errors ------------------------------------------------------------------------------------------------------------


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


# -- build -------------------------------------------------------------------------------------------------------------


def test_build_says_what_it_made(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "new" / "m.engine"
    summary = as_json("build", model, "-o", out, "--tune", "off")
    assert summary["engine"] == str(out) and summary["bytes"] == out.stat().st_size
    assert summary["target"].startswith("cpu:") and summary["steps"] >= 1 and summary["slow_paths"] == []
    assert (summary["timed"], summary["notes"]) == (0, []) and summary["by_model"] == summary["steps"]
    done = command("build", model, "-o", out, "--tune", "off", "--tf32")
    assert done.returncode == 0 and str(out) in done.stdout and "built in" in done.stdout
    assert f"0 kernels chosen by time, {summary['steps']} by the roofline model" in done.stdout
    assert "note: TF32 is for GPUs: products run in fp32 here" in done.stdout


def test_build_and_inspect_tell_what_fp16_cannot_hold(tmp_path: Path, model: Path) -> None:
    calibration, out = tmp_path / "sample.npz", tmp_path / "half.engine"
    np.savez(calibration, x=np.full((2, 8), 6e4, np.float32))
    plain = as_json("build", model, "-o", out, "--fp16", "--tune", "off")
    assert plain["notes"] == []
    told = as_json("build", model, "-o", out, "--fp16", "--calibration", calibration, "--tune", "off")
    assert "stays in fp32: softmax Rank" in told["notes"][0] and "measured on 1 calibration" in told["notes"][0]
    assert "stays in fp32: softmax Rank" in ok("inspect", out)
    done = command("build", model, "-o", out, "--calibration", calibration)
    assert done.returncode == 1 and "calibration inputs are for fp16" in done.stderr


def test_build_stops_and_dumps(tmp_path: Path, model: Path) -> None:
    from bessemer.ir.text import parse

    ok("build", model, "--stop-after", "lower", "--dump", tmp_path, "--tune", "off")
    stopped = as_json("build", model, "--stop-after", "fuse", "--tune", "off")
    assert stopped["engine"] is None and stopped["stopped_after"] == "fuse"
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["0-import.txt", "1-fuse.txt", "2-layout.txt", "3-precision.txt", "4-lower.txt"]
    assert [n.op for n in parse((tmp_path / "0-import.txt").read_text()).nodes] == ["matmul", "add", "relu", "softmax"]
    assert "matmul+add+relu" in (tmp_path / "4-lower.txt").read_text()
    with pytest.raises(BessemerError, match="stop_after is 'nowhere'"):
        raise call("build", model, "--stop-after", "nowhere").exception or AssertionError


def test_timing_caches_are_written_shown_and_merged(tmp_path: Path, model: Path) -> None:
    first, second, both = (tmp_path / f"{n}.jsonl" for n in "abc")
    ok("build", model, "-o", tmp_path / "a.engine", "--timing-cache", first, "--shapes", "x:4x8")
    ok("build", model, "-o", tmp_path / "b.engine", "--timing-cache", second, "--shapes", "x:64x8")
    assert first.exists() and second.exists()
    ok("cache", "merge", first, second, "-o", both)
    rows = as_json("cache", "show", both)
    assert sum(r["entries"] for r in rows) == len(both.read_text().splitlines())
    (tmp_path / "empty.jsonl").touch()
    assert ok("cache", "show", tmp_path / "empty.jsonl") == "no entries\n"
    again = tmp_path / "again.engine"
    ok("build", model, "-o", again, "--timing-cache", both, "--cache-mode", "require", "--shapes", "x:4x8")
    once_more = tmp_path / "once-more.engine"
    ok("build", model, "-o", once_more, "--timing-cache", both, "--cache-mode", "require", "--shapes", "x:4x8")
    assert again.read_bytes() == once_more.read_bytes(), "the same model, cache and target give the same bytes"


# -- run, bench, compare -----------------------------------------------------------------------------------------------


def test_run_takes_files_and_writes_files(tmp_path: Path, engine: Path) -> None:
    x = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    ok("run", engine, "-i", f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "a.npz")
    ok("run", engine, "-i", tmp_path / "x.npz", "-o", tmp_path / "b.npz")
    a, b = np.load(tmp_path / "a.npz")["y"], np.load(tmp_path / "b.npz")["y"]
    assert a.shape == (3, 4) and np.array_equal(a, b) and np.allclose(a.sum(1), 1)
    (row,) = as_json("run", engine, "--shapes", "x:5x8")
    assert (row["name"], row["dtype"], row["shape"]) == ("y", "float32", [5, 4])
    assert as_json("run", engine, "--seed", 3) == as_json("run", engine, "--seed", 3)


def test_run_refuses_what_does_not_fit(tmp_path: Path, engine: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8)))
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("text.npy", "text.npz"):
        (tmp_path / name).write_text("not an array")
    cases: list[tuple[tuple[object, ...], type[BessemerError], str]] = [
        (("-i", f"x={tmp_path / 'x.npy'}"), InputError, "has dtype float64, the engine takes f32"),
        (("-i", "x.npy"), InputError, "names no input"),
        (("--shapes", "x:17x8"), ShapeError, "allowed are 1 to 16"),
        (("--shapes", "x:3x9"), ShapeError, "the engine takes 8"),
        (("--shapes", "x=3"), InputError, "is not a shape"),
        (("--shapes", "q:3x8"), InputError, "has no input 'q'"),
        (("--shapes", "x:3x8", "-i", f"x={tmp_path / 'x.npy'}"), InputError, "both as a file and as a shape"),
        (("-i", f"x={tmp_path / 'text.npy'}"), InputError, "is no array file"),
        (("-i", f"x={tmp_path / 'objects.npy'}"), InputError, "is no array file"),
        (("-i", tmp_path / "text.npz"), InputError, "is no array file"),
        (("-i", f"x={tmp_path / 'x.npz'}"), InputError, "holds several arrays"),
    ]
    for args, kind, message in cases:
        result = call("run", engine, *args)
        assert isinstance(result.exception, kind) and message in str(result.exception), (args, result.exception)


def test_bench_gives_percentiles_and_steps(engine: Path) -> None:
    result = as_json("bench", engine, "--runs", 20, "--warmup", 2, "--profile")
    latency = result["latency_ms"]
    assert list(latency) == ["min", "mean", "median", "p90", "p95", "p99", "max"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert result["runs"] == 20 and result["throughput_per_s"] > 0
    assert [s["step"] for s in result["steps"]] == list(range(len(result["steps"])))
    done = command("bench", engine, "--runs", 5)
    assert done.returncode == 0 and "p99" in done.stdout


def test_compare_passes_and_fails(model: Path, engine: Path) -> None:
    pytest.importorskip("onnxruntime")
    good = as_json("compare", model, "--engine", engine, "--shapes", "x:4x8")
    assert good["ok"] and [t["name"] for t in good["tensors"]] == ["y"] and good["tensors"][0]["relative_error"] < 1e-5
    strict = as_json("compare", model, "--engine", engine, "--tolerance", "-1", status=1)
    assert not strict["ok"]
    marked = as_json("compare", model, "--engine", engine, "--mark", "all")
    assert {"y"} <= {t["name"] for t in marked["tensors"]}
    reference = as_json("compare", model, "--engine", engine, "--against", "reference")
    assert reference["ok"]
    built = as_json("compare", model, "--tune", "off", "--shapes", "x:3x8")
    assert built["ok"] and built["tensors"][0]["shape"] == [3, 4]


def test_compare_refuses_another_models_engine(tmp_path: Path, model: Path, engine: Path) -> None:
    other = onnx.load(model)
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    onnx.save(other, tmp_path / "other.onnx")
    result = call("compare", tmp_path / "other.onnx", "--engine", engine)
    assert "another model: it has the outputs y" in str(result.exception)
    assert "--mark all" in str(call("compare", model, "--engine", engine, "--mark", "some").exception)


def test_random_inputs_follow_those_that_are_given(tmp_path: Path) -> None:
    """The batch of one input is that of the other, whichever of them is told."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in "xy")
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "sum", [x, y], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    np.save(tmp_path / "y.npy", np.ones((5, 2), np.float32))
    ok("build", tmp_path / "m.onnx", "-o", tmp_path / "m.engine", "--tune", "off", "--max-shapes", "x:9x2,y:9x2",
       "--min-shapes", "x:1x2,y:1x2")  # fmt: skip
    for args in (("--shapes", "x:5x2"), ("-i", f"y={tmp_path / 'y.npy'}")):
        (row,) = as_json("run", tmp_path / "m.engine", *args)
        assert row["shape"] == [5, 2]


# -- inspect and diff --------------------------------------------------------------------------------------------------


def test_inspect_tells_all_steps(engine: Path) -> None:
    d = as_json("inspect", engine)
    assert d["inputs"] == [{"name": "x", "dtype": "f32", "shape": ["batch", "8"]}]
    assert d["manifest"]["model"]["nodes"] == 4
    assert d["symbols"]["batch"] == {"min": 1, "opt": 4, "max": 16, "data_dependent": False}
    assert d["memory"]["arena"] <= 1.1 * d["memory"]["peak"] or d["memory"]["arena"] == 0
    assert {n for s in d["steps"] for n in s["onnx_nodes"]} == {"Product", "Bias", "Activation", "Rank"}
    for s in d["steps"]:
        assert s["kernel"]["source"] and s["kernel"]["tactic"]
    one = as_json("inspect", engine, "--step", 0)
    assert len(one["steps"]) == 1
    assert "no step 99" in str(call("inspect", engine, "--step", 99).exception)
    human = command("inspect", engine).stdout
    assert "Product" in human and "arena" in human
    assert "why not another kernel" in command("inspect", engine, "--step", 0).stdout


def test_diff(tmp_path: Path, model: Path, engine: Path) -> None:
    assert "no difference" in ok("diff", engine, engine)
    other = tmp_path / "other.engine"
    ok("build", model, "-o", other, "--tune", "off", "--shapes", "x:4x8")
    rows = as_json("diff", engine, other, status=1)
    assert any(r["what"].startswith("inputs") for r in rows)


def test_diff_holds_steps_of_the_same_nodes_against_each_other(tmp_path: Path) -> None:
    """One convolution becomes several steps; an engine does not differ from itself, and does where weights do."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, c, 16, 16]) for n, c in (("x", 16), ("y", 32)))
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    engines = [tmp_path / f"{seed}.engine" for seed in range(2)]
    for seed, engine in enumerate(engines):
        w = np.random.default_rng(seed).standard_normal((32, 16, 3, 3)).astype(np.float32)
        graph = helper.make_graph([node], "conv", [x], [y], [onnx.numpy_helper.from_array(w, "w")])
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
        ok("build", tmp_path / "m.onnx", "-o", engine, "--tune", "off")
    nodes = [tuple(s["onnx_nodes"]) for s in as_json("inspect", engines[0])["steps"]]
    assert len(set(nodes)) < len(nodes)
    assert as_json("diff", engines[0], engines[0]) == []
    assert [r["what"] for r in as_json("diff", *engines, status=1)] == ["weights"]


def test_damaged_engines_are_refused_before_they_run(tmp_path: Path, engine: Path) -> None:
    damaged = tmp_path / "damaged.engine"
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for verb in ("run", "bench", "inspect"):
        assert isinstance(call(verb, damaged).exception, EngineFormatError)
    assert isinstance(call("diff", engine, damaged).exception, EngineFormatError)


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


def test_a_build_with_a_timing_cache_measures_ranges_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bessemer import build
    from bessemer.passes import ranges

    counts: list[int] = []
    measure = ranges.measure

    def counted(graph: Any, calibration: Any = ()) -> ranges.Measured:
        counts.append(1)
        return measure(graph, calibration)

    monkeypatch.setattr(ranges, "measure", counted)
    cache = tmp_path / "times.jsonl"
    for _ in range(2):
        first = build(model, precision="fp16", tune="off", timing_cache=cache)
    assert len(counts) == 1
    other = build(model, precision="fp16", tune="off", timing_cache=cache, shapes={"x": (3, 8)})
    assert len(counts) == 2 and other.program != first.program
    sample = {"x": np.ones((2, 8), np.float32)}
    build(model, precision="fp16", tune="off", timing_cache=cache, calibration=[sample])
    assert len(counts) == 3, "calibration inputs are looked at every time"
