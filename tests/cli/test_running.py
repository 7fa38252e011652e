"""bessemer run, bench and compare: inputs from files or by shape, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bessemer.cli.verbs.compare import relative_error
from bessemer.core.dtype import from_bf16
from bessemer.core.errors import BessemerError, InputError, InvalidModel, ShapeError
from tests.cli.calls import as_json, call, command, ok


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


def test_compare_says_that_an_engine_is_built_already(model: Path, engine: Path) -> None:
    result = call("compare", model, "--engine", engine, "--fp16", "--tune", "device")
    assert "--fp16, --tune would say how to build, and --engine is built" in str(result.exception)


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


def test_compare_takes_numbers_as_what_they_are(tmp_path: Path) -> None:
    """bf16 is stored as bits: one step of it is a small error. Complex numbers have two parts."""
    x = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [4, 1])
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("ReduceSum", ["e", "axis"], ["y"])]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "sum", [x], [y], [axis])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    for args in ((), ("--mark", "all")):
        found = as_json("compare", path, "--against", "reference", "--tune", "off", "--tolerance", "0.01", *args)
        assert found["ok"] and found["tensors"], found
    bits = np.array([0x3F80], np.uint16)  # 1.0, and the next one
    assert relative_error(from_bf16(bits + np.uint16(1)), from_bf16(bits)) == 2.0**-7
    assert relative_error(np.array([1 + 2j]), np.array([1 + 5j])) == pytest.approx(3 / 26**0.5)


def test_what_is_no_finite_number_is_null_in_json(tmp_path: Path) -> None:
    """The largest difference of a NaN to a number, and the error of what differs in NaNs."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    paths = tmp_path / "root.onnx", tmp_path / "same.onnx"
    for op, path in zip(("Sqrt", "Abs"), paths):
        graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, info[:1], info[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    ok("build", paths[0], "-o", tmp_path / "m.engine", "--tune", "off")
    np.save(tmp_path / "x.npy", np.array([-1, 4, 9], np.float32))
    args = (paths[1], "--engine", tmp_path / "m.engine", "--against", "reference", "-i", f"x={tmp_path / 'x.npy'}")
    (row,) = as_json("compare", *args, status=1)["tensors"]
    assert (row["relative_error"], row["largest_difference"], row["ok"]) == (None, None, False)
    assert as_json("compare", *args, "--tolerance", "inf", status=1)["tolerance"] is None


def test_a_scalar_shape_is_a_shape(engine: Path) -> None:
    result = call("run", engine, "--shapes", "x:scalar")
    assert isinstance(result.exception, ShapeError) and "x" in str(result.exception)


def test_inputs_of_any_name_are_given(tmp_path: Path) -> None:
    """Of two that fit, the longer one is meant."""
    names = ("x", "x=y", "a,b")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in (*names, "z")]
    nodes = [helper.make_node("Add", ["x", "x=y"], ["s"]), helper.make_node("Add", ["s", "a,b"], ["z"])]
    graph = helper.make_graph(nodes, "names", infos[:3], infos[3:])
    model, engine = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    given = []
    for k, name in enumerate(names):
        np.save(tmp_path / f"{k}.npy", np.full(3, 10**k, np.float32))
        given += ["-i", f"{name}={tmp_path / f'{k}.npy'}"]
    ok("build", model, "-o", engine, "--tune", "off", "--shapes", "x:3,x=y:3,a,b:3")
    ok("run", engine, *given, "-o", tmp_path / "out.npz")
    assert np.array_equal(np.load(tmp_path / "out.npz")["z"], np.full(3, 111))
    assert as_json("compare", model, *given, "--tune", "off", "--against", "reference")["ok"]


def test_compare_refuses_what_is_no_model(tmp_path: Path, engine: Path) -> None:
    (tmp_path / "m.onnx").write_text("not a model")
    for args in (("--engine", engine), ("-i", f"x={tmp_path / 'x.npy'}")):
        result = call("compare", tmp_path / "m.onnx", *args)
        assert isinstance(result.exception, InvalidModel), result.exception


def test_outputs_of_any_name_are_written(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("file", TensorProto.FLOAT, [3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["file"])], "names", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    ok("build", tmp_path / "m.onnx", "-o", tmp_path / "m.engine", "--tune", "off")
    ok("run", tmp_path / "m.engine", "-o", tmp_path / "out")
    assert np.load(tmp_path / "out")["file"].shape == (3,)
