"""What an imported graph looks like: names, folding, functions, subgraphs, sequences, and what is reported."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper

from bessemer.core.dim import sym
from bessemer.core.errors import GraphError, InputError, InvalidModel, UnsupportedModel
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from bessemer.ir.interp import run
from bessemer.ir.verify import verify
from tests.frontend.models import BOOL, INT64, model, node, small, tensor, value

X = np.array([[-1, 2, 3, 4], [5, -6, 7, 8]], np.float32)


def test_names_order_origins_and_metadata_are_the_models():
    proto = small()
    proto.metadata_props.add(key="labels", value="a\nb")
    graph = import_model(proto)
    verify(graph)
    assert graph.inputs == ("x",) and graph.outputs == ("y",) and graph.output_names == ("y",)
    assert graph.metadata == {"labels": "a\nb"}
    assert [n.origin for n in graph.nodes][-2:] == [("bias",), ("split",)]
    assert graph.types["y"].shape == (sym("N"), 2, 2)
    assert {"r", "s", "y"} <= graph.types.keys()


def test_path_bytes_and_proto_give_the_same_graph(tmp_path):
    proto = small()
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert import_model(proto) == import_model(path) == import_model(str(path)) == import_model(path.read_bytes())


def test_an_output_that_is_an_input_a_constant_or_another_output_keeps_its_name():
    proto = model(
        [node("Neg", ["x"], ["y"]), node("Identity", ["y"], ["z"])],
        [value("x", [2])], ["x", "w", "y", "z"], [tensor("w", np.ones(2, np.float32))],
    )  # fmt: skip
    graph = import_model(proto)
    verify(graph)
    assert graph.output_names == ("x", "w", "y", "z") and len(set(graph.outputs)) == 4
    out = run(graph, {"x": X[0, :2]})
    assert np.array_equal(out["x"], X[0, :2]) and np.array_equal(out["w"], np.ones(2))
    assert np.array_equal(out["y"], -X[0, :2]) and np.array_equal(out["z"], -X[0, :2])


def test_what_no_output_needs_is_left_out():
    graph = import_model(model([node("Neg", ["x"], ["y"]), node("Exp", ["x"], ["unused"])], [value("x", [2])], ["y"]))
    assert [n.op for n in graph.nodes] == ["neg"] and "unused" not in graph.types


def test_shape_arithmetic_leaves_the_graph():
    nodes = [
        node("Shape", ["x"], ["s"]), node("Mul", ["s", "two"], ["t"]), node("Div", ["t", "two"], ["u"]),
        node("Reshape", ["x", "u"], ["y"]),
    ]  # fmt: skip
    graph = import_model(model(nodes, [value("x", ["n", "m"])], ["y"], [tensor("two", np.array([2, 2]))]))
    assert [n.op for n in graph.nodes] == ["reshape"]
    assert graph.types["y"].shape == (sym("n"), sym("m"))


def test_everything_unsupported_is_reported_at_once():
    nodes = [
        node("Frobnicate", ["x"], ["a"], name="one"),
        node("Relu", ["a"], ["b"], name="reads_one"),
        node("Rellu", ["b"], ["c"], name="two", domain="com.microsoft"),
        node("Frobnicate", ["x"], ["d"], name="three"),
        node("Foo", ["x"], ["e"], name="four", domain="nowhere"),
    ]
    with pytest.raises(UnsupportedModel) as error:
        import_model(model(nodes, [value("x", [2])], list("cde")))
    text = str(error.value)
    assert "Frobnicate: ONNX has no such op at opset 17 [one, three]" in text
    assert "com.microsoft.Rellu-1: no importer for this op" in text and "[two]" in text
    assert "nowhere.Foo: the model imports no opset of domain 'nowhere' [four]" in text
    assert "reads_one" not in text


def test_an_op_version_without_importer_is_named():
    message = r"Add-6: this version has no importer \(others have: 7, 13, 14\) \[sum\]"
    with pytest.raises(UnsupportedModel, match=message):
        import_model(model([node("Add", ["x", "x"], ["y"], name="sum")], [value("x", [2])], ["y"], opset=6))


def test_ai_onnx_is_the_default_domain():
    graph = import_model(model([node("Neg", ["x"], ["y"], domain="ai.onnx")], [value("x", [2])], ["y"]))
    assert [n.op for n in graph.nodes] == ["neg"]


def _function(name: str, nodes, inputs, outputs, attributes=(), defaults=()):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs, outputs, nodes, imports, attributes, defaults)


def test_local_functions_are_inlined_with_attributes_and_defaults():
    leaky = node("LeakyRelu", ["a"], ["b"], name="inner")
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT)
    inner = _function("inner", [leaky], ["a"], ["b"], (), [helper.make_attribute("slope", 0.5)])
    pass_on = node("inner", ["a"], ["t"], domain="local", name="call")
    pass_on.attribute.add(name="slope", ref_attr_name="outer_slope", type=AttributeProto.FLOAT)
    outer = _function("outer", [pass_on, node("Neg", ["t"], ["b"])], ["a"], ["b"], ["outer_slope"])
    calls = [
        node("outer", ["x"], ["y"], domain="local", name="first", outer_slope=0.25),
        node("outer", ["x"], ["z"], domain="local", name="second"),
    ]
    proto = model(calls, [value("x", [2, 4])], ["y", "z"], functions=[inner, outer], extra_opsets=[("local", 1)])
    graph = import_model(proto)
    verify(graph)
    out = run(graph, {"x": X})
    assert np.allclose(out["y"], -np.where(X > 0, X, 0.25 * X)) and np.allclose(out["z"], -np.where(X > 0, X, 0.5 * X))
    assert ("first/call/inner",) in [n.origin for n in graph.nodes]


def test_a_local_function_wins_over_an_importer():
    negative = helper.make_function("", "Abs", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    graph = import_model(model([node("Abs", ["x"], ["y"])], [value("x", [2])], ["y"], functions=[negative]))
    assert [n.op for n in graph.nodes] == ["neg"]


def test_absent_optional_inputs_of_a_function_stay_absent():
    clip = _function("limit", [node("Clip", ["a", "low", "high"], ["b"])], ["a", "low", "high"], ["b"])
    call = node("limit", ["x", "", "top"], ["y"], domain="local")
    proto = model([call], [value("x", [2, 4])], ["y"], [tensor("top", np.float32(3))], functions=[clip],
                  extra_opsets=[("local", 1)])  # fmt: skip
    assert np.array_equal(run(import_model(proto), {"x": X})["y"], np.minimum(X, 3))


# -- subgraphs ----------------------------------------------------------------------------------------------------


def _branch(name: str, nodes, output: str):
    return helper.make_graph(nodes, name, [], [value(output)])


def _choice(cond_input: bool):
    then = _branch("then", [node("Add", ["r", "w"], ["t"])], "t")
    other = _branch("else", [node("Mul", ["r", "w"], ["e"])], "e")
    nodes = [node("Neg", ["x"], ["r"]), node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)]
    inputs = [value("x", ["n", 4])] + ([value("c", [], BOOL)] if cond_input else [])
    weights = [tensor("w", np.full(4, 2, np.float32))] + ([] if cond_input else [tensor("c", np.array(False))])
    return model(nodes, inputs, ["y"], weights)


def test_branches_read_outer_values_and_weights():
    graph = import_model(_choice(True))
    verify(graph)
    assert graph.types["y"].shape == (sym("n"), 4)
    for taken, expected in ((True, -X + 2), (False, -X * 2)):
        assert np.array_equal(run(graph, {"x": X, "c": np.array(taken)})["y"], expected)


def test_a_known_condition_leaves_one_branch():
    graph = import_model(_choice(False))
    assert [n.op for n in graph.nodes] == ["neg", "mul"]


def test_branches_of_different_shapes_give_a_data_dependent_size():
    then = _branch("then", [node("Concat", ["x", "x"], ["t"], axis=0)], "t")
    other = _branch("else", [node("Neg", ["x"], ["e"])], "e")
    proto = model([node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
                  [value("x", ["n", 4]), value("c", [], BOOL)], ["y"])  # fmt: skip
    graph = import_model(proto)
    verify(graph)
    (size, four) = graph.types["y"].shape
    assert four == 4 and str(size).startswith("u")
    assert run(graph, {"x": X, "c": np.array(True)})["y"].shape == (4, 4)
    assert run(graph, {"x": X, "c": np.array(False)})["y"].shape == (2, 4)


def test_a_squeeze_that_may_not_apply_is_checked_when_it_runs():
    squeeze = _branch("then", [node("Squeeze", ["x", "axes"], ["t"])], "t")
    keep = _branch("else", [node("Identity", ["x"], ["e"])], "e")
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["d"]), node("Equal", ["d", "one"], ["c"]),
        node("If", ["c"], ["y"], then_branch=squeeze, else_branch=keep),
    ]  # fmt: skip
    weights = [tensor("one", np.array(1)), tensor("axes", np.array([1]))]
    proto = model(nodes, [value("x", ["n", "m"])], ["y"], weights)
    graph = import_model(proto)
    verify(graph)
    assert graph.types["y"].shape == (sym("n"),)
    assert np.array_equal(run(graph, {"x": X[:, :1]})["y"], X[:, 0])
    with pytest.raises(GraphError):
        run(graph, {"x": X})
    assert [n.op for n in import_model(proto, shapes={"x": (2, 1)}).nodes] == ["reshape"]
    assert import_model(proto, shapes={"x": (2, 4)}).types["x"].shape == (2, 4)


@pytest.mark.parametrize("fits", ["then", "else"])
def test_a_branch_for_other_sizes_is_left_out_and_taking_it_is_an_error(fits):
    good = _branch("good", [node("Neg", ["x"], ["g"])], "g")
    bad = _branch("bad", [node("Add", ["x", "five"], ["b"])], "b")
    then, other = (good, bad) if fits == "then" else (bad, good)
    choice = node("If", ["c"], ["y"], name="rate", then_branch=then, else_branch=other)
    inputs = [value("x", ["n", "m"]), value("c", [], BOOL)]
    proto = model([choice], inputs, ["y"], [tensor("five", np.zeros(5, np.float32))])
    graph = import_model(proto, shapes={"x": (2, 4)})
    verify(graph)
    assert np.array_equal(run(graph, {"x": X, "c": np.array(fits == "then")})["y"], -X)
    missing = "else_branch" if fits == "then" else "then_branch"
    with pytest.raises(InputError, match=f"rate takes its {missing}, which does not fit the sizes"):
        run(graph, {"x": X, "c": np.array(fits == "else")})


def test_if_no_branch_fits_the_model_is_refused():
    bad = [_branch(n, [node("Add", ["x", "five"], [n])], n) for n in ("b", "d")]
    choice = node("If", ["c"], ["y"], then_branch=bad[0], else_branch=bad[1])
    inputs = [value("x", ["n", "m"]), value("c", [], BOOL)]
    with pytest.raises(InvalidModel):
        import_model(
            model([choice], inputs, ["y"], [tensor("five", np.zeros(5, np.float32))]), shapes={"x": (2, 4)}
        )


def _loop(*, carried_grows: bool = False, stop_early: bool = False):
    step = node("Concat" if carried_grows else "Add", ["v", "x"], ["v2"], **({"axis": 0} if carried_grows else {}))
    nodes = [step, node("Neg", ["x"], ["o"])]
    nodes.append(node("Less", ["i", "two"], ["go"]) if stop_early else node("Identity", ["c"], ["go"]))
    body = helper.make_graph(
        nodes, "body", [value("i", [], INT64), value("c", [], BOOL), value("v", None)],
        [value("go", [], BOOL), value("v2"), value("o")], [tensor("two", np.array(2))],
    )  # fmt: skip
    return model([node("Loop", ["trip", "", "x"], ["y", "all"], body=body)], [value("x", ["n", 4])], ["y", "all"],
                 [tensor("trip", np.array(5))])  # fmt: skip


def test_a_loop_of_known_length():
    graph = import_model(_loop())
    verify(graph)
    assert graph.types["all"].shape == (5, sym("n"), 4)
    out = run(graph, {"x": X})
    assert np.array_equal(out["y"], 6 * X) and np.array_equal(out["all"], np.stack([-X] * 5))


def test_a_loop_that_stops_early():
    graph = import_model(_loop(stop_early=True))
    verify(graph)
    assert str(graph.types["all"].shape[0]).startswith("u")
    out = run(graph, {"x": X})
    assert np.array_equal(out["y"], 4 * X) and out["all"].shape == (3, 2, 4)


def test_a_carried_value_that_grows():
    graph = import_model(_loop(carried_grows=True))
    verify(graph)
    assert str(graph.types["y"].shape[0]).startswith("u") and graph.types["y"].shape[1] == 4
    assert run(graph, {"x": X})["y"].shape == (12, 4)


def test_scan_directions_and_axes():
    body = helper.make_graph(
        [node("Add", ["s", "e"], ["s2"]), node("Identity", ["s2"], ["o"])], "body", [value("s"), value("e")],
        [value("s2"), value("o")],
    )  # fmt: skip
    scan = node("Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_axes=[1],
                scan_input_directions=[1], scan_output_axes=[-1], scan_output_directions=[1])  # fmt: skip
    proto = model([scan], [value("x", ["n", 4])], ["last", "all"], [tensor("start", np.zeros(2, np.float32))])
    graph = import_model(proto, shapes={"x": (2, 4)})
    verify(graph)
    out = run(graph, {"x": X})
    sums = np.cumsum(X[:, ::-1], axis=1)
    assert np.array_equal(out["last"], X.sum(1)) and np.array_equal(out["all"], sums[:, ::-1])


def test_sequences_are_resolved_while_importing():
    nodes = [
        node("SplitToSequence", ["x"], ["parts"], axis=1, keepdims=0),
        node("SequenceAt", ["parts", "last"], ["a"]),
        node("SequenceConstruct", ["a", "a"], ["pair"]),
        node("SequenceInsert", ["pair", "b", "zero"], ["three"]),
        node("SequenceLength", ["three"], ["n"]),
        node("ConcatFromSequence", ["three"], ["y"], axis=-1, new_axis=1),
    ]
    weights = [tensor("last", np.array(-1)), tensor("zero", np.array(0)), tensor("b", np.zeros(2, np.float32))]
    proto = model(nodes, [value("x", [2, 4])], [value("y"), value("n", [], INT64)], weights)
    graph = import_model(proto)
    verify(graph)
    out = run(graph, {"x": X})
    assert out["n"] == 3 and np.array_equal(out["y"], np.stack([np.zeros(2), X[:, 3], X[:, 3]], 1))


def test_sequences_that_cross_the_boundary_are_refused():
    proto = model([node("SequenceConstruct", ["x"], ["y"])], [value("x", [2])], ["y"])
    with pytest.raises(UnsupportedModel, match="output 'y' is a sequence"):
        import_model(proto)
    nodes = [node("SequenceConstruct", ["x"], ["s"]), node("Neg", ["s"], ["y"])]
    with pytest.raises(UnsupportedModel, match=r"Neg-13: an input is a sequence"):
        import_model(model(nodes, [value("x", [2])], ["y"]))


def test_a_refused_input_that_has_a_shape_is_told_as_such():
    proto = model([node("Identity", ["x"], ["y"])], [value("x", [2], TensorProto.STRING)], ["y"])
    for options in ({"shapes": {"x": (2,)}}, {"profiles": [Profile({"x": ((1,), (2,), (3,))})]}):
        with pytest.raises(UnsupportedModel, match="element type string is not supported"):
            import_model(proto, **options)
