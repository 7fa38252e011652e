"""Commands do not write over what they read, by whatever path."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bessemer.core.errors import InputError
from tests.cli.calls import call, command, ok
from tests.cli.conftest import small_model


def refused(written: Path, message: str, *args: object) -> None:
    before = written.read_bytes()
    result = call(*args)
    assert isinstance(result.exception, InputError) and message in result.exception.what, (args, result.exception)
    assert result.exception.where and result.exception.fix == "name another file"
    assert written.read_bytes() == before, args


def test_build_writes_over_no_file_that_it_reads(tmp_path: Path) -> None:
    model = small_model(tmp_path / "m.onnx")
    (tmp_path / "link.engine").symlink_to(model)
    (tmp_path / "folder").mkdir()
    for other in (model, tmp_path / "link.engine", tmp_path / "folder" / ".." / "m.onnx"):
        refused(model, "-o would write over the model", "build", model, "-o", other, "--tune", "off")
    refused(model, "-o would write over the model", "build", tmp_path / "link.engine", "-o", model, "--tune", "off")
    np.savez(tmp_path / "sample.npz", x=np.ones((2, 8), np.float32))
    sample = tmp_path / "sample.npz"
    refused(
        sample, "-o would write over calibration inputs", "build", model, "-o", sample, "--fp16", "--calibration",
        sample, "--tune", "off",
    )  # fmt: skip
    times = tmp_path / "times.jsonl"
    result = call("build", model, "-o", times, "--timing-cache", times, "--tune", "off")
    assert "-o would write over the timing cache" in str(result.exception) and not times.exists()
    done = command("build", model, "-o", model)
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "error: -o would write over the model", f"  where: {model}", "  fix: name another file",
    ]  # fmt: skip
    for _ in range(2):  # an engine of before is written over
        ok("build", model, "-o", tmp_path / "m.engine", "--tune", "off")


def test_build_writes_over_no_weights(tmp_path: Path) -> None:
    """Of the graph, and of a graph within it."""

    def external(name: str) -> TensorProto:
        (tmp_path / f"{name}.bin").write_bytes(np.ones(4, np.float32).tobytes())
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.DataLocation.EXTERNAL
        )
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    info = helper.make_tensor_value_info
    branches = [
        helper.make_graph([helper.make_node("Add", ["x", w], [f"{w}y"])], w,
                          [], [info(f"{w}y", TensorProto.FLOAT, [4])], [external(w)])
        for w in ("one", "other")
    ]  # fmt: skip
    nodes = [
        helper.make_node("If", ["c"], ["a"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Add", ["a", "w"], ["y"]),
    ]
    x, c, y = info("x", TensorProto.FLOAT, [4]), info("c", TensorProto.BOOL, []), info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph(nodes, "g", [x, c], [y], [external("w")])
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    for name in ("w", "one", "other"):
        weights = tmp_path / f"{name}.bin"
        refused(weights, "-o would write over weights of the model", "build", model, "-o", weights, "--tune", "off")
    ok("build", model, "-o", tmp_path / "m.engine", "--tune", "off")


@pytest.mark.parametrize("verb,option", [(("run",), "-o"), (("bench", "--runs", "1", "--profile"), "--plot")])
def test_running_writes_over_no_file_that_it_reads(
    tmp_path: Path, engine: Path, verb: tuple[str, ...], option: str
) -> None:
    own = Path(shutil.copy(engine, tmp_path / "m.engine"))
    x = np.ones((3, 8), np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    (tmp_path / "link.npz").symlink_to(tmp_path / "x.npz")
    refused(own, f"{option} would write over the engine", *verb, own, option, own)
    array, arrays = tmp_path / "x.npy", tmp_path / "x.npz"
    refused(array, f"{option} would write over an input", *verb, own, "-i", f"x={array}", option, array)
    refused(arrays, f"{option} would write over an input", *verb, own, "-i", arrays, option, tmp_path / "link.npz")
    ok(*verb, own, "-i", arrays, option, tmp_path / "new")


def test_caches_are_merged_into_one_of_them_and_not_pruned_into_themselves(tmp_path: Path, model: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for cache, shape in ((first, "x:4x8"), (second, "x:64x8")):
        ok("build", model, "-o", tmp_path / "m.engine", "--timing-cache", cache, "--shapes", shape)
    ok("cache", "merge", first, second, "-o", tmp_path / "both.jsonl")
    refused(first, "-o would write over the cache to prune", "cache", "prune", first, "-o", first)
    ok("cache", "merge", first, second, "-o", first)
    assert first.read_bytes() == (tmp_path / "both.jsonl").read_bytes()
