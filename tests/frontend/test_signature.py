"""Shapes, profiles and the symbols that dynamic dimensions become."""

from __future__ import annotations

import pytest

from bessemer.core.dim import sym
from bessemer.core.errors import InvalidModel, ShapeError, UnsupportedModel
from bessemer.core.interval import Range
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from tests.frontend.models import model, node, small, value


def _two_inputs(a: list[int | str | None], b: list[int | str | None]):
    return model([node("Relu", ["a"], ["y"]), node("Relu", ["b"], ["z"])], [value("a", a), value("b", b)], "yz")


def test_dynamic_dimensions_are_symbols_named_after_the_model():
    graph = import_model(_two_inputs(["batch", None], ["batch", "seq len"]))
    assert graph.types["a"].shape == (sym("batch"), sym("a_1"))
    assert graph.types["b"].shape == (sym("batch"), sym("seq_len"))


def test_without_shapes_a_dimension_has_a_wide_range_and_a_stated_opt():
    graph = import_model(_two_inputs(["n", None], ["n", "s"]))
    assert graph.ranges == {"n": Range(1, 2**20, 1), "a_1": Range(1, 2**20, 128), "s": Range(1, 2**20, 128)}


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("unk__7", "d_unk__7"), ("1+x", "d_1_x"), ("lambda", "lambda_"), ("длина", "d______"), ("a b", "a_b")],
)
def test_names_of_dimensions_become_identifiers(name: str, symbol: str):
    graph = import_model(model([node("Relu", ["x"], ["y"])], [value("x", [name])], ["y"]))
    assert graph.types["x"].shape == (sym(symbol),)


@pytest.mark.parametrize("unknown", ["?", "-1", "None", "*"])
def test_placeholders_of_exporters_name_no_dimension(unknown: str):
    graph = import_model(_two_inputs([unknown, unknown], [1, 1]))
    assert graph.types["a"].shape == (sym("a_0"), sym("a_1"))


def test_different_names_that_look_alike_stay_apart():
    graph = import_model(_two_inputs(["a b", "a_b"], ["a-b", 1]))
    assert len(graph.ranges) == 3


def test_a_fixed_shape_reaches_every_use_of_its_dimension():
    graph = import_model(_two_inputs(["n", 3], ["n", "s"]), shapes={"a": (5, 3)})
    assert graph.types["a"].shape == (5, 3)
    assert graph.types["b"].shape == (5, sym("s"))


def test_a_profile_gives_the_range():
    graph = import_model(small(), profiles=[Profile({"x": ((1, 4), (2, 4), (8, 4))})])
    assert graph.ranges == {"N": Range(1, 8, 2)}


def test_several_profiles_are_united_and_the_first_is_tuned_for():
    profiles = [Profile({"x": ((2, 4), (2, 4), (4, 4))}), Profile({"x": ((1, 4), (8, 4), (16, 4))})]
    assert import_model(small(), profiles=profiles).ranges == {"N": Range(1, 16, 2)}


def test_a_dimension_with_one_value_is_fixed():
    graph = import_model(small(), profiles=[Profile({"x": ((3, 4), (3, 4), (3, 4))})])
    assert graph.types["x"].shape == (3, 4) and not graph.ranges


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (1, 5)}, "dimension 1 is 4 in the model, and 5 was given"),
        ({"x": (1, 4, 1)}, "has 2 dimensions [N, 4], the shape given for it has 3"),
        ({"xx": (1, 4)}, "no input 'xx'; did you mean 'x'?"),
        ({"x": (-1, 4)}, "the shape of input 'x' is (-1, 4)"),
        ({"x": (1.5, 4)}, "the shape of input 'x'"),
        ({"x": "1x4"}, "the shape of input 'x'"),
        ({"x": (2**40, 4)}, "the shape of input 'x'"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message: str):
    with pytest.raises(ShapeError) as error:
        import_model(small(), shapes=shapes)
    assert message in str(error.value) and error.value.fix


def test_equal_names_with_different_ranges_are_refused_naming_both():
    profile = Profile({"a": ((1, 2), (1, 2), (8, 2)), "b": ((1, 2), (1, 2), (4, 2))})
    with pytest.raises(ShapeError, match="input 'a', dimension 0 and input 'b', dimension 0 are the same dimension"):
        import_model(_two_inputs(["n", 2], ["n", 2]), profiles=[profile])


def test_a_shape_and_a_profile_for_one_input_are_refused():
    with pytest.raises(ShapeError, match="a fixed shape and a profile"):
        import_model(small(), shapes={"x": (1, 4)}, profiles=[Profile({"x": ((1, 4),) * 3})])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 2), (1, 2)), "not \\(min, opt, max\\)"),
        (((1, 2), (1, 2), (1,)), "different ranks"),
        (((1, 2), (3, 2), (2, 2)), "dimension 0: min 1, opt 3, max 2 are not in order"),
        (((1, 2), (1, "2"), (2, 2)), "the shape of input"),
    ],
)
def test_a_profile_is_checked_when_it_is_made(shapes, message: str):
    with pytest.raises(ShapeError, match=message):
        Profile({"x": shapes})


@pytest.mark.parametrize("inputs", [[1], "x", 3])
def test_a_profile_names_inputs(inputs):
    with pytest.raises(ShapeError, match="names no inputs"):
        Profile(inputs)
    with pytest.raises(ShapeError, match="the profile of input 'x' is 3, not"):
        Profile({"x": 3})


def test_a_profile_is_frozen_and_hashable():
    profile = Profile({"x": ([1, 2], [1, 2], [3, 2])})
    assert profile.inputs["x"] == ((1, 2), (1, 2), (3, 2))
    assert profile == Profile({"x": ((1, 2), (1, 2), (3, 2))}) and hash(profile)
    with pytest.raises(TypeError):
        profile.inputs["y"] = ()  # type: ignore[index]


def test_an_input_without_a_declared_shape_takes_it_from_the_user():
    undeclared = model([node("Relu", ["x"], ["y"])], [value("x")], ["y"])
    with pytest.raises(ShapeError, match="has no declared shape"):
        import_model(undeclared)
    assert import_model(undeclared, shapes={"x": (2, 3)}).types["x"].shape == (2, 3)
    profile = Profile({"x": ((1, 3), (2, 3), (4, 3))})
    assert import_model(undeclared, profiles=[profile]).types["x"].shape == (sym("x_0"), 3)


def test_minus_one_is_a_dynamic_size_and_less_is_impossible():
    assert import_model(model([node("Relu", ["x"], ["y"])], [value("x", [-1])], ["y"])).ranges.keys() == {"x_0"}
    with pytest.raises(InvalidModel, match="size -2 is impossible"):
        import_model(model([node("Relu", ["x"], ["y"])], [value("x", [-2])], ["y"]))


def test_inputs_of_unsupported_types_are_listed_together():
    strange = [value("s", [1], 8), value("f", [1], 99)]
    with pytest.raises(UnsupportedModel) as error:
        import_model(model([node("Relu", ["x"], ["y"])], [value("x", [1]), *strange], ["y"]))
    assert "string is not supported [s]" in str(error.value) and "99 is not supported [f]" in str(error.value)
