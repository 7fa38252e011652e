"""bessemer inspect and diff: what an engine holds, and in what two differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from bessemer.core.errors import EngineFormatError
from tests.cli.calls import as_json, call, command, ok


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
    for both in ((engine, damaged), (damaged, engine)):
        found = call("diff", *both).exception
        assert isinstance(found, EngineFormatError) and found.where == str(damaged) and found.fix
