"""Malformed models: what is wrong and where, and never a crash, a hang or a huge allocation."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from bessemer.core.errors import InvalidModel, ModelError, ShapeError, UnsupportedModel
from bessemer.frontend.onnx import import_model
from tests.frontend.models import BOOL, INT64, model, node, small, tensor, value


def _invalid(proto: onnx.ModelProto | bytes, message: str) -> None:
    with pytest.raises(InvalidModel) as error:
        import_model(proto)
    assert message in str(error.value), str(error.value)


def test_a_missing_file_and_a_folder_are_model_errors(tmp_path):
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(ModelError, match="cannot read the model"):
            import_model(path)


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x08", bytes(100), b"<!DOCTYPE html>"])
def test_what_is_no_model_is_said_to_be_none(data: bytes):
    with pytest.raises(InvalidModel):
        import_model(data)


def test_a_model_without_a_graph_or_an_opset():
    _invalid(onnx.ModelProto(ir_version=8), "holds no graph")
    proto = small()
    del proto.opset_import[:]
    _invalid(proto, "imports no opset")


def test_an_opset_newer_than_onnx_names_both():
    with pytest.raises(UnsupportedModel, match="opset 9999; the installed onnx"):
        import_model(model([], [], [], opset=9999))


def test_a_cycle_is_shown():
    cyclic = model(
        [node("Add", ["x", "c"], ["a"], name="first"), node("Relu", ["a"], ["b"], name="second"),
         node("Neg", ["b"], ["c"], name="third")],
        [value("x", [1])], ["b"],
    )  # fmt: skip
    _invalid(cyclic, "the graph has a cycle: first -> second -> third -> first")
    _invalid(model([node("Add", ["x", "a"], ["a"], name="self")], [value("x", [1])], ["a"]), "cycle: self -> self")


def test_nodes_out_of_order():
    proto = model([node("Relu", ["a"], ["b"]), node("Neg", ["x"], ["a"])], [value("x", [1])], ["b"])
    _invalid(proto, "the value 'a' is used before it is produced")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Relu", ["nothing"], ["y"], name="n")], "the value 'nothing' is used and nothing produces it"),
        ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], "the value 'y' is produced twice"),
        ([node("Relu", ["x"], ["x"])], "the value 'x' is produced twice"),
        ([node("Relu", ["x"], ["z"])], "nothing produces the output 'y'"),
        ([node("", ["x"], ["y"])], "a node has no op type"),
        ([node("Relu", ["x", "x"], ["y"])], "Relu has 2 inputs; it takes 1 to 1"),
        ([node("Relu", [], ["y"])], "Relu has 0 inputs"),
        ([node("Relu", ["x"], ["y", "z"])], "Relu has 2 outputs"),
        ([node("Relu", ["x"], ["y"], alpha=1.0)], "Relu-14 has no attribute alpha"),
        ([node("LeakyRelu", ["x"], ["y"], alpha=1)], "attribute alpha is of kind INT, not FLOAT"),
        ([node("Cast", ["x"], ["y"])], "Cast lacks the attribute to"),
        ([node("Constant", [], ["y"])], "a Constant has one attribute, not 0"),
        ([node("Reshape", ["x", "x"], ["y"])], "takes no f32 as input 1 (shape)"),
        ([node("Shape", ["x"], ["s"]), node("Add", ["x", "s"], ["y"])], "input 0 of f32 and input 1 of i64"),
    ],
)
def test_faults_of_nodes(nodes, message: str):
    _invalid(model(nodes, [value("x", [1])], ["y"]), message)


def test_duplicate_names_of_inputs_and_initializers():
    _invalid(model([], [value("x", [1]), value("x", [1])], ["x"]), "two inputs are called 'x'")
    twice = [tensor("w", np.ones(1, np.float32))] * 2
    _invalid(model([], [value("x", [1])], ["x"], twice), "two initializers are called 'w'")


def test_names_that_are_not_utf8():
    data = small().SerializeToString().replace(b"bias", b"b\xff\xfes")
    _invalid(data, "the name b'b\\xff\\xfes' is not UTF-8")


def test_a_declared_element_type_that_contradicts_the_nodes():
    proto = model([node("Relu", ["x"], ["y"])], [value("x", [1])], [value("y", [1], INT64)])
    _invalid(proto, "output 'y' is declared i64, and its node gives f32")


def test_a_declared_shape_that_contradicts_the_nodes_is_logged_and_not_believed(caplog):
    graph = import_model(model([node("Relu", ["x"], ["y"])], [value("x", [2, 3])], [value("y", [6])]))
    assert graph.types["y"].shape == (2, 3)
    assert "output 'y' is declared with shape [6]" in caplog.text


# -- functions and subgraphs ---------------------------------------------------------------------------------------


def _function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], list(nodes), imports)


def _calling(name: str, *functions: onnx.FunctionProto) -> onnx.ModelProto:
    call = node(name, ["x"], ["y"], domain="local")
    return model([call], [value("x", [2])], ["y"], functions=functions, extra_opsets=[("local", 1)])


def test_recursive_functions_are_shown():
    f, g = (_function(a, node(b, ["a"], ["b"], domain="local")) for a, b in ("fg", "gf"))
    _invalid(_calling("f", f, g), "local functions call each other in a circle: local.f -> local.g -> local.f")


def test_functions_defined_twice():
    f = _function("f", node("Relu", ["a"], ["b"]))
    _invalid(_calling("f", f, f), "local function local.f is defined twice")


def test_functions_that_expand_without_bound_are_refused_at_once():
    def calls(k: int) -> list[onnx.NodeProto]:
        return [node(f"f{k + 1}", [i], [o], domain="local") for i, o in zip("acdef", "cdefb")]

    levels = [_function(f"f{k}", *calls(k)) for k in range(15)]
    start = time.perf_counter()
    _invalid(_calling("f0", *levels, _function("f15", node("Relu", ["a"], ["b"]))), "once its functions are inlined")
    assert time.perf_counter() - start < 2


def test_deep_nesting_is_refused():
    functions = [_function(f"f{k}", node(f"f{k + 1}", ["a"], ["b"], domain="local")) for k in range(100)]
    _invalid(_calling("f0", *functions, _function("f100", node("Relu", ["a"], ["b"]))), "deep")
    inner = helper.make_graph([node("Relu", ["x"], ["r0"])], "leaf", [], [value("r0", [1])])
    for k in range(1, 30):
        branch = node("If", ["c"], [f"r{k}"], then_branch=inner, else_branch=inner if k < 3 else _leaf(k))
        inner = helper.make_graph([branch], f"g{k}", [], [value(f"r{k}", [1])])
    top = [node("If", ["c"], ["y"], then_branch=inner, else_branch=_leaf(99))]
    _invalid(model(top, [value("x", [1]), value("c", [], BOOL)], ["y"]), "nested more than")


def _leaf(k: int) -> onnx.GraphProto:
    return helper.make_graph([node("Relu", ["x"], [f"leaf{k}"])], f"leaf{k}", [], [value(f"leaf{k}", [1])])


@pytest.mark.parametrize("ops", [("Add", "Mul"), ("Div", "Add"), ("Mul", "Div"), ("Max", "Mul")])
def test_sizes_that_grow_without_bound_are_left_to_the_run(ops: tuple[str, str]):
    nodes = [node("Shape", ["x"], ["s0"])]
    for k in range(60):
        nodes += [node(ops[0], [f"s{k}", "three"], [f"t{k}"]), node(ops[1], [f"t{k}", f"s{k}"], [f"s{k + 1}"])]
    nodes.append(node("Expand", ["x", "s60"], ["y"]))
    start = time.perf_counter()
    import_model(model(nodes, [value("x", ["a", "b"])], ["y"], [tensor("three", np.array([3, 5]))]))
    assert time.perf_counter() - start < 10


def test_huge_shapes_of_constants_allocate_nothing():
    shape = tensor("shape", np.array([2**31, 2**31]))
    huge = [node("ConstantOfShape", ["shape"], ["c"]), node("Shape", ["c"], ["s"]), node("Relu", ["c"], ["r"])]
    proto = model([*huge, node("Identity", ["s"], ["y"])], [], [value("y", [2], INT64)], [shape])
    try:
        import_model(proto)
    except ModelError:
        pass


# -- fuzz ---------------------------------------------------------------------------------------------------------

VALID = small().SerializeToString()


@given(st.integers(0, len(VALID) - 1))
@settings(max_examples=len(VALID))
def test_a_truncated_model_is_a_model_error(length: int):
    try:
        import_model(VALID[:length])
    except ModelError as error:
        assert str(error)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=600)
def test_a_flipped_model_imports_or_is_a_model_error(flips: list[tuple[int, int]]):
    data = bytearray(VALID)
    for at, byte in flips:
        data[at] = byte
    try:
        import_model(bytes(data))
    except (ModelError, ShapeError) as error:
        assert str(error)
