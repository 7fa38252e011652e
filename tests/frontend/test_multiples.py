"""Models whose shapes fit at multiples of a step only: the step is found, and sizes between are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bessemer.core.errors import InputError, ShapeError
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from bessemer.ir.interp import run
from bessemer.ir.verify import verify
from tests.frontend.models import model, node, tensor, value


def _halves(times: int) -> onnx.ModelProto:
    """Takes every second column `times` times, repeats them as often, and adds the input."""
    nodes, name = [], "x"
    for k in range(times):
        nodes.append(node("Slice", [name, "zero", "end", "one", "two"], [f"h{k}"]))
        name = f"h{k}"
    for k in range(times):
        nodes.append(node("Concat", [name, name], [f"c{k}"], axis=1))
        name = f"c{k}"
    nodes.append(node("Add", ["x", name], ["y"]))
    weights = [tensor(n, np.array([v])) for n, v in (("zero", 0), ("one", 1), ("two", 2), ("end", 2**31 - 1))]
    return model(nodes, [value("x", ["n", "w"])], ["y"], weights)


@pytest.mark.parametrize(("times", "step"), [(1, 2), (3, 8), (5, 32)])
def test_the_least_step_is_found_and_kept_in_the_range(times: int, step: int):
    profile = Profile({"x": ((1, 64), (1, 128), (2, 320))})
    graph = import_model(_halves(times), profiles=[profile])
    verify(graph)
    assert graph.ranges["w"].multiple == step and graph.ranges["n"].multiple == 1
    x = np.ones((2, 64 + step), np.float32)
    assert run(graph, {"x": x})["y"].shape == x.shape
    with pytest.raises(InputError, match=f"dimension w is 65, and the graph takes 64 to 320 in steps of {step}"):
        run(graph, {"x": np.ones((2, 65), np.float32)})


@pytest.mark.parametrize("shapes", [((1, 64), (1, 130), (1, 320)), ((1, 63), (1, 128), (1, 320))])
def test_a_profile_that_the_step_does_not_divide_is_an_error(shapes):
    with pytest.raises(ShapeError, match=r"cannot decide whether .* equal \(w is dimension 1 of input .x.\)"):
        import_model(_halves(3), profiles=[Profile({"x": shapes})])
