"""`compare --mark all`: every stored tensor finds the value of the model that it stands for, however it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from bessemer.cli.main import app
from bessemer.cli.match import as_stored, matches
from bessemer.engine.reader import read


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions with a residual and a pool: stored channels last, fused, under names of the engine's own."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 10, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "First", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "Activation"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "Second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"], "Residual"),
        helper.make_node("MaxPool", ["s"], ["p"], "Pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Sigmoid", ["p"], ["y"], "Last"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 12, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 6, 8])],
        [weight("w1", 16, 8, 3, 3), weight("b1", 16), weight("w2", 16, 16, 3, 3), weight("b2", 16)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("network") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    engine = ["build", str(path), "-o", str(path.with_suffix(".engine")), "--tune", "off"]
    assert CliRunner().invoke(app, engine).exit_code == 0
    return path


def compared(network: Path, *args: str, status: int = 0) -> dict[str, Any]:
    engine = str(network.with_suffix(".engine"))
    result = CliRunner().invoke(app, ["compare", str(network), "--engine", engine, "--mark", "all", "--json", *args])
    assert result.exit_code == status, (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("peer", ["onnxruntime", "reference"])
def test_layers_stored_channels_last_are_compared(network: Path, peer: str) -> None:
    if peer == "onnxruntime":
        pytest.importorskip("onnxruntime")
    found = compared(network, "--against", peer)
    assert found["ok"] and found["precision"] == "fp32"
    by_value = {t["stands_for"]: t for t in found["tensors"]}
    assert {"r1", "s", "y"} <= by_value.keys() and "c1" not in by_value
    assert by_value["y"]["shape"] == [1, 16, 6, 8]
    steps = [t["step"] for t in found["tensors"]]
    assert steps == sorted(steps)


def test_a_wrong_layer_is_the_first_that_differs(network: Path, tmp_path: Path) -> None:
    """Against a model whose second convolution has another bias, everything before it agrees."""
    model = onnx.load(network)
    for t in model.graph.initializer:
        if t.name == "b2":
            t.CopyFrom(numpy_helper.from_array(np.full(16, 3, np.float32), "b2"))
    changed = tmp_path / "net.onnx"
    onnx.save(model, changed)
    (tmp_path / "net.engine").write_bytes(network.with_suffix(".engine").read_bytes())
    found = compared(changed, "--against", "reference", status=1)
    bad = [t["stands_for"] for t in found["tensors"] if not t["ok"]]
    assert bad[0] == "s" and "y" in bad and "r1" not in bad


def test_a_part_of_a_result_stands_for_nothing(network: Path) -> None:
    """A node of several steps belongs to the last of them."""
    program = read(network.with_suffix(".engine")).program
    found = matches(program, onnx.load(network))
    for m in found:
        later = {o for s in program.steps[m.step + 1 :] for o in s.origin}
        nodes = {o: n.name for n in onnx.load(network).graph.node for o in n.output}
        assert all(nodes[v] not in later for v in m.values if v != "y")


def test_values_are_taken_in_every_layout() -> None:
    value = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    (plain,) = as_stored(value, (2, 3, 4, 5), False)
    assert np.array_equal(plain, value)
    last, flat = as_stored(value, (2, 4, 5, 3), True)
    assert np.array_equal(last, value.transpose(0, 2, 3, 1)) and flat.shape == (2, 4, 5, 3)
    square = np.arange(9).reshape(3, 3)
    same, turned = as_stored(square, (3, 3), False)
    assert np.array_equal(same, square) and np.array_equal(turned, square.T)
    (named,) = as_stored(square, (3, 3), True)
    assert np.array_equal(named, square)
    assert list(as_stored(value, (7, 3), False)) == []
