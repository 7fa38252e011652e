"""Attributes that are sizes, or one of a few words: wrong ones are named, with what is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bessemer import BuildError, build
from bessemer.core.errors import InvalidModel
from bessemer.frontend.onnx import import_model
from tests.frontend.models import model, node, value

WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")


def window(op: str, **attrs: Any) -> Any:
    """A window of 1x1, where `attrs` do not say otherwise, over an image of 3x3."""
    pool = op.endswith("Pool")
    given = {**({"kernel_shape": [1, 1]} if pool else {}), **attrs}
    inputs = [value("x", [1, 2, 3, 3]), *([] if pool else [value("w", [2, 2, 1, 1])])]
    return model([node(op, [i.name for i in inputs], ["y"], **given)], inputs, [value("y", None)])


@pytest.mark.parametrize("op", WINDOWS)
@pytest.mark.parametrize(("name", "given", "message"), [
    ("strides", [0, 1], "strides holds 0; it is 1 to"), ("strides", [1, -1], "strides holds -1"),
    ("strides", [1], "strides holds 1 numbers; data of 2 spatial axes take 2"),
    ("strides", [2**40, 1], "strides holds 1099511627776"), ("kernel_shape", [0, 1], "kernel_shape holds 0"),
    ("kernel_shape", [1], "kernel_shape holds 1 numbers"), ("pads", [2**62] * 4, "pads holds 4611686018427387904"),
    ("pads", [1, 1], "pads holds 2 numbers; data of 2 spatial axes take 4"), ("auto_pad", "SAME", "auto_pad is 'SAME'"),
])  # fmt: skip
def test_windows(op: str, name: str, given: Any, message: str) -> None:
    with pytest.raises(InvalidModel, match=message) as caught:
        import_model(window(op, **{name: given}))
    assert op in str(caught.value.where)


@pytest.mark.parametrize(("op", "attrs", "message"), [
    ("Conv", {"dilations": [-2, 1]}, "dilations holds -2"), ("Conv", {"group": 0}, "group holds 0"),
    ("ConvTranspose", {"group": 0}, "group holds 0"), ("ConvTranspose", {"group": -1}, "group holds -1"),
    ("ConvTranspose", {"output_padding": [-3, 0]}, "output_padding holds -3; it is 0 to"),
    ("ConvTranspose", {"pads": [9, 9, 9, 9]}, r"its result would be f32\[1,2,-15,-15\]"),
    ("Conv", {"kernel_shape": [3, 3]}, r"kernel_shape is \[3, 3\], and the weights are f32\[2,2,1,1\]"),
    ("MaxPool", {"dilations": [0, 1]}, "dilations holds 0"),
])  # fmt: skip
def test_what_some_windows_take(op: str, attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        import_model(window(op, **attrs))


@pytest.mark.parametrize(("op", "inputs", "attrs", "message"), [
    ("DepthToSpace", 1, {"blocksize": 2, "mode": "ABC"}, "mode is 'ABC', and not one of DCR, CRD"),
    ("DepthToSpace", 1, {"blocksize": 0}, "blocksize holds 0"),
    ("Resize", 3, {"mode": "area"}, "mode is 'area', and not one of nearest, linear"),
    ("LSTM", 3, {"hidden_size": 4, "direction": "backward"}, "direction is 'backward', and not one of forward, rev"),
    ("ScatterND", 3, {"reduction": "sub"}, "reduction is 'sub', and not one of none, add"),
])  # fmt: skip
def test_words_that_an_attribute_cannot_be(op: str, inputs: int, attrs: dict[str, Any], message: str) -> None:
    names = ["x", "y", "z"][:inputs]
    kinds = {"ScatterND": {"y": TensorProto.INT64}}.get(op, {})
    values = [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), [4, 4, 4, 4]) for n in names]
    with pytest.raises(InvalidModel, match=message):
        import_model(model([node(op, names, ["o"], **attrs)], values, [value("o", None)], opset=20))


def test_windows_that_fit_are_taken() -> None:
    graph = import_model(window("ConvTranspose", strides=[2, 2], output_padding=[1, 0], group=1, kernel_shape=[1, 1]))
    assert str(graph.types[graph.outputs[0]]) == "f32[1,2,6,5]"


def test_a_value_that_no_machine_holds() -> None:
    numbers = [numpy_helper.from_array(np.array(n), name) for name, n in (("first", 0), ("end", 2**50), ("by", 1))]
    nodes = [node("Range", ["first", "end", "by"], ["r"]), node("Add", ["x", "r"], ["y"])]
    integers = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in "xy"]
    with pytest.raises(BuildError, match=r"the value y would be \[1125899906842624\]"):
        build(model(nodes, integers[:1], integers[1:], numbers), tune="off")
    wide = [value("x", [2**25, 1]), value("w", [1, 2**25])]
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Softmax", ["m"], ["s"]), node("ReduceSum", ["s"], ["y"])]
    with pytest.raises(BuildError, match="values in use at once take [0-9]+ bytes: no machine has them"):
        build(model(nodes, wide, [value("y", None)]), tune="off")
