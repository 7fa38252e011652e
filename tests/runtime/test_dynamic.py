"""Sizes that are only known while running: unbounded inputs, and results whose size depends on data."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bessemer.builder import run
from bessemer.core.errors import InputError
from bessemer.engine.engine import Engine
from bessemer.engine.reader import read
from bessemer.engine.writer import write_to
from bessemer.frontend.profile import Profile
from bessemer.options import BuildOptions
from bessemer.runtime.host import HostStep
from bessemer.runtime.session import Session, load
from bessemer.targets.cpu import CpuTarget, detect_level


def session(nodes: list[onnx.NodeProto], inputs: dict[str, list[str | int]], outputs: dict[str, int]) -> Session:
    """A session of f32 inputs with these dimensions and outputs of these element types, built without a profile."""
    graph = helper.make_graph(
        nodes, "dynamic",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = run(model, BuildOptions(CpuTarget(detect_level(), 2, optimise=False), tune="off"))
    assert engine is not None
    return load(engine)


def test_tensors_without_a_bound_follow_the_shapes() -> None:
    """[a, b, c] may be of any size, so nothing inside is planned; softmax over axis 0 needs scratch."""
    s = session(
        [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 2, 0]), helper.make_node("Softmax", ["t"], ["p"], axis=0),
         helper.make_node("ReduceSum", ["p"], ["y"], keepdims=0)],
        {"x": ["a", "b", "c"]}, {"y": TensorProto.FLOAT},
    )  # fmt: skip
    assert s.engine.memory["arena"] == 0
    rng = np.random.default_rng()
    for shape in ((2, 3, 5), (40, 30, 20), (2, 3, 5), (1, 1, 1), (7, 300, 11)):
        x = rng.standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(s.run({"x": x})["y"], shape[0] * shape[2], rtol=1e-4)


def test_sizes_that_depend_on_data_change_from_run_to_run() -> None:
    """Results stay as they are when later runs give others, and runs of equal sizes do not share memory."""
    s = session(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("NonZero", ["r"], ["places"]),
         helper.make_node("Cast", ["places"], ["z"], to=TensorProto.FLOAT), helper.make_node("Neg", ["z"], ["y"])],
        {"x": ["a", 4]}, {"y": TensorProto.FLOAT, "places": TensorProto.INT64},
    )  # fmt: skip
    rng = np.random.default_rng()
    given = [rng.standard_normal((rows, 4)).astype(np.float32) for rows in (3, 3, 50, 3, 1, 50)] * 2
    found = [s.run({"x": x}) for x in given]
    for x, got in zip(given, found):
        wanted = np.array(np.nonzero(x > 0))
        np.testing.assert_array_equal(got["places"], wanted)
        np.testing.assert_array_equal(got["y"], -wanted.astype(np.float32))


def test_an_output_that_looks_into_a_result_has_its_own_shape() -> None:
    """The indices of NonZero, transposed and flat: one memory, in which each output has the shape that it says."""
    s = session(
        [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Transpose", ["places"], ["turned"]),
         helper.make_node("Flatten", ["places"], ["flat"], axis=0), helper.make_node("NonZero", ["v"], ["one"]),
         helper.make_node("Transpose", ["one"], ["column"])],
        {"x": ["a", 4], "v": ["b"]}, dict.fromkeys(("turned", "flat", "column"), TensorProto.INT64),
    )  # fmt: skip
    rng = np.random.default_rng()
    for rows in (3, 50, 3):
        x, v = (rng.integers(0, 2, shape).astype(np.float32) for shape in ((rows, 4), (rows,)))
        found = s.run({"x": x, "v": v})
        assert np.array_equal(found["turned"], np.argwhere(x)) and np.array_equal(found["column"], np.argwhere(v))
        assert np.array_equal(found["flat"], np.stack(np.nonzero(x)).reshape(1, -1))


def test_a_host_step_reads_the_beginning_of_an_output() -> None:
    s = session(
        [helper.make_node("Relu", ["x"], ["r"]),
         *(helper.make_node("Constant", [], [f"is_{n}"], value_ints=[n]) for n in (0, 1, 2)),
         helper.make_node("Slice", ["r", "is_0", "is_2"], ["head"]),
         helper.make_node("TopK", ["head", "is_1"], ["y", "at"], axis=0)],
        {"x": [4, 3]}, {"r": TensorProto.FLOAT, "y": TensorProto.FLOAT, "at": TensorProto.INT64},
    )  # fmt: skip
    x = np.random.default_rng().random((4, 3), np.float32)
    found = s.run({"x": x})
    assert np.array_equal(found["r"], x) and np.array_equal(found["y"], x[:2].max(0, keepdims=True))
    assert np.array_equal(found["at"], x[:2].argmax(0)[None])


@pytest.mark.parametrize(("most", "space"), [(64, "arena"), (1 << 28, "dynamic")])
def test_views_start_elsewhere_at_other_shapes(most: int, space: str) -> None:
    """Slices along the outermost axis look into what they slice, in planned memory and in what is allocated later."""
    ends = [helper.make_node("Constant", [], [f"{name}{k}"], value_ints=[k + (name == "to")])
            for k in (1, 2) for name in ("from", "to")]  # fmt: skip
    slices = [helper.make_node("Slice", ["e", f"from{k}", f"to{k}", "axis"], [f"part{k}"]) for k in (1, 2)]
    graph = helper.make_graph(
        [*ends, helper.make_node("Constant", [], ["axis"], value_ints=[0]), helper.make_node("Exp", ["x"], ["e"]),
         *slices, helper.make_node("Transpose", ["part2"], ["t"], perm=[0, 2, 1]),
         helper.make_node("MatMul", ["part1", "t"], ["y"])],
        "views", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, "s", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    profiles = [Profile({"x": ((3, 1, 64), (3, 8, 64), (3, most, 64))})]
    target = CpuTarget(detect_level(), 2, optimise=False)
    engine = run(model, BuildOptions(target, tune="off", profiles=profiles))
    assert engine is not None
    moving = {(str(t.shift), t.space) for t in engine.program.tensors if t.shift != 0}
    assert moving == {("256*s", space), ("512*s", space)}
    s = load(read(file_bytes(engine)))
    rng = np.random.default_rng()
    for size in (5, 64, 1, 5, 33):
        x = rng.standard_normal((3, size, 64)).astype(np.float32)
        wanted = np.exp(x[1:2]) @ np.exp(x[2:3]).transpose(0, 2, 1)
        np.testing.assert_allclose(s.run({"x": x})["y"], wanted, rtol=1e-4)
        traced = [a for a in s.trace({"x": x}).values() if np.shape(a) == wanted.shape]
        assert any(np.allclose(a, wanted, rtol=1e-4) for a in traced)


def file_bytes(engine: Engine) -> bytes:
    file = io.BytesIO()
    write_to(engine, file)
    return file.getvalue()


def test_a_result_is_not_a_view_of_what_the_next_step_overwrites() -> None:
    """A host step may give its input back; later kernels take the input's memory."""
    s = session(
        [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("NonZero", ["e"], ["n"]),
         helper.make_node("Shape", ["n"], ["size"]), helper.make_node("Expand", ["row", "size"], ["y"])],
        {"x": [3, 5], "row": [1, 1]}, {"y": TensorProto.FLOAT},
    )  # fmt: skip
    row = np.array([[2.5]], np.float32)
    first = s.run({"x": np.zeros((3, 5), np.float32), "row": row})["y"]
    second = s.run({"x": np.zeros((3, 5), np.float32), "row": row + 1})["y"]
    assert first.shape == second.shape == (2, 15)
    assert (first == 2.5).all() and (second == 3.5).all()


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 6), (1, 300, 6)], ids=str)
def test_a_branch_on_a_shape_that_fails_is_named(shape: tuple[int, ...]) -> None:
    """Squeeze of a dimension that may be 1: exporters write it as If(dimension is 1, Squeeze, Identity). The last shape
    is of a value that no memory is planned for."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["k"], value=axes), helper.make_node("Squeeze", ["r", "k"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )  # fmt: skip
    keep = helper.make_graph(
        [helper.make_node("Identity", ["r"], ["o"])],
        "else", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )  # fmt: skip
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    s = session(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Shape", ["r"], ["shape"]),
         helper.make_node("Constant", [], ["zero"], value=zero), helper.make_node("Constant", [], ["one"], value=one),
         helper.make_node("Gather", ["shape", "zero"], ["size"]),
         helper.make_node("Equal", ["size", "one"], ["single"]),
         helper.make_node("If", ["single"], ["y"], name="maybe", then_branch=then, else_branch=keep)],
        {"x": ["a", *shape[1:]]}, {"y": TensorProto.FLOAT},
    )  # fmt: skip
    x = np.random.default_rng().standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(s.run({"x": x})["y"], np.maximum(x[0], 0))
    assert s.engine.manifest["slow_paths"] == []
    with pytest.raises(InputError, match="^maybe squeezes a dimension that is not 1 here"):
        s.run({"x": np.concatenate([x, x])})
    np.testing.assert_array_equal(s.run({"x": x})["y"], np.maximum(x[0], 0))


def test_an_interrupt_in_a_host_step_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no error must pass a handler of errors."""

    def interrupted(step: HostStep, *args: object) -> None:
        raise KeyboardInterrupt

    s = session([helper.make_node("NonZero", ["x"], ["y"])], {"x": ["a", 3]}, {"y": TensorProto.INT64})
    x = np.eye(3, dtype=np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(HostStep, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            s.run({"x": x})
    np.testing.assert_array_equal(s.run({"x": x})["y"], np.nonzero(x))


def test_values_that_an_op_does_not_take_are_the_callers() -> None:
    """Not a defect of the engine: an InputError says which nodes refused which values."""
    k = helper.make_tensor_value_info("k", TensorProto.INT64, [1])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
               helper.make_tensor_value_info("i", TensorProto.INT64, None)]  # fmt: skip
    graph = helper.make_graph([helper.make_node("TopK", ["x", "k"], ["y", "i"], name="best")], "top", [x, k], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = run(model, BuildOptions(CpuTarget(detect_level(), 2, optimise=False), tune="off"))
    assert engine is not None
    s, given = load(engine), np.array([1, 3, 2], np.float32)
    with pytest.raises(InputError, match="the model does not run on these values") as caught:
        s.run({"x": given, "k": np.array([4])})
    assert "best" in str(caught.value) and caught.value.fix == "check the inputs that this step depends on"
    np.testing.assert_array_equal(s.run({"x": given, "k": np.array([2])})["y"], [3, 2])


@pytest.mark.parametrize("op", ["Gather", "GatherElements", "GatherND"])
def test_an_index_outside_its_axis_reads_zero(op: str) -> None:
    shape: dict[str, list[str | int]] = {"Gather": ["n"], "GatherElements": ["n", 3], "GatherND": ["n", 1]}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "i"], ["y"])], "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
         helper.make_tensor_value_info("i", TensorProto.INT64, shape[op])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = run(model, BuildOptions(CpuTarget(detect_level(), 2, optimise=False), tune="off"))
    assert engine is not None
    x = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    at = np.array([1, -2, 2, -3, 1 << 40, -1])
    index = {"Gather": at, "GatherElements": np.repeat(at[:, None], 3, 1), "GatherND": at[:, None]}[op]
    want = np.array([x[1], x[0], 0 * x[0], 0 * x[0], 0 * x[0], x[1]])
    np.testing.assert_array_equal(load(engine).run({"x": x, "i": index})["y"], want)
