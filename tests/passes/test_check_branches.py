"""A branch that runs at sizes that its nodes do not take is an error; one that does not run is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import NodeProto, helper

from bessemer import InputError, build, load
from bessemer.engine.engine import Engine
from bessemer.frontend.onnx import import_model
from bessemer.ir.graph import Graph
from bessemer.passes.check_branches import check_branches
from tests.frontend.models import INT64, model, node, tensor, value

RNG = np.random.default_rng()
SUM = node("ReduceSum", ["s"], ["t"], keepdims=0)


def chosen(then: Sequence[NodeProto], otherwise: NodeProto, b: Sequence[str | int] = ("m", 3)) -> bytes:
    """y by `then`, which ends with t, where the sum of a [n, 3] is positive, else by `otherwise`, which gives u."""
    branches = {
        "then_branch": helper.make_graph(then, "then", [], [value("t", None)]),
        "else_branch": helper.make_graph([otherwise], "else", [], [value("u", None)]),
    }
    nodes = [
        node("ReduceSum", ["a"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], **branches),
    ]  # fmt: skip
    inputs = [value("a", ["n", 3]), value("b", b)]
    return model(nodes, inputs, ["y"], [tensor("zero", np.float32(0))]).SerializeToString()


def ran(engine: Engine, n: int, b: Sequence[int], sign: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, and what it was computed from."""
    x = sign * np.abs(RNG.standard_normal((n, 3))).astype(np.float32)
    other = RNG.standard_normal(b).astype(np.float32)
    return load(engine).run({"a": x, "b": other})["y"], x, other


@pytest.mark.parametrize("by_kernels", [True, False])
def test_a_branch_that_runs_at_sizes_it_does_not_take_is_an_error(by_kernels: bool) -> None:
    then, otherwise = [node("Add", ["a", "b"], ["s"]), SUM], node("ReduceSum", ["a"], ["u"], keepdims=0)
    if not by_kernels:  # branches of different shapes run as numpy's
        then, otherwise = [node("Add", ["a", "b"], ["t"])], node("Identity", ["a"], ["u"])
    engine = build(chosen(then, otherwise), tune="off")
    assert ("if" in {s.op for s in engine.program.steps}) is not by_kernels
    for n, m in ((4, 4), (1, 5), (5, 1)):
        y, a, b = ran(engine, n, (m, 3))
        np.testing.assert_allclose(y, (a + b).sum() if by_kernels else a + b, 1e-4, 1e-4)
    for n, m in ((2, 4), (4, 2)):
        y, a, b = ran(engine, n, (m, 3), sign=-1)  # the other branch
        np.testing.assert_allclose(y, a.sum() if by_kernels else a, 1e-4, 1e-4)
        said = r"in a branch that runs, n must be 1 or max\(m,n\) and m must be 1 or max\(m,n\) \(ONNX nodes If_2/Add_0"
        with pytest.raises(InputError, match=said):
            ran(engine, n, (m, 3))


def test_a_nested_branch_is_checked_where_it_runs() -> None:
    inner = {
        "then_branch": helper.make_graph([node("Add", ["a", "b"], ["s"]), SUM], "deep", [], [value("t", None)]),
        "else_branch": helper.make_graph([node("ReduceSum", ["b"], ["v"], keepdims=0)], "flat", [], [value("v", None)]),
    }
    first = [node("ReduceMax", ["b"], ["top"], keepdims=0), node("Greater", ["top", "zero"], ["high"])]
    then = [*first, node("If", ["high"], ["t"], **inner)]
    inner["then_branch"].output[0].name = inner["then_branch"].node[-1].output[0] = "deep_sum"
    engine = build(chosen(then, node("ReduceSum", ["a"], ["u"], keepdims=0)), tune="off")
    one = np.ones((2, 3), np.float32)
    session = load(engine)
    np.testing.assert_allclose(session.run({"a": one, "b": -np.ones((4, 3), np.float32)})["y"], -12)
    np.testing.assert_allclose(session.run({"a": -one, "b": np.ones((4, 3), np.float32)})["y"], -6)
    np.testing.assert_allclose(session.run({"a": one, "b": one})["y"], 12)
    with pytest.raises(InputError, match="in a branch that runs, n must be 1 or"):
        session.run({"a": one, "b": np.ones((4, 3), np.float32)})


def test_sizes_that_depend_on_data_are_checked_too() -> None:
    """As many columns as a has elements other than zero: 3 n here."""
    then = [
        node("NonZero", ["a"], ["at"]), node("Cast", ["at"], ["where"], to=1), node("Add", ["where", "b"], ["s"]), SUM,
    ]  # fmt: skip
    engine = build(chosen(then, node("ReduceSum", ["a"], ["u"], keepdims=0), b=[2, "m"]), tune="off")
    y, a, b = ran(engine, 4, (2, 12))
    np.testing.assert_allclose(y, (np.array(np.nonzero(a)) + b).sum(), 1e-4, 1e-4)
    with pytest.raises(InputError, match="in a branch that runs"):
        ran(engine, 4, (2, 11))


def test_a_reshape_in_a_branch_must_have_room() -> None:
    to = node("Constant", [], ["to"], value=helper.make_tensor("to", INT64, [2], [-1, 6]))
    then = [to, node("Reshape", ["a", "to"], ["r"]), node("ReduceMax", ["r"], ["t"], keepdims=0)]
    engine = build(chosen(then, node("ReduceSum", ["a"], ["u"], keepdims=0)), tune="off")
    y, a, _ = ran(engine, 4, (1, 3))
    assert y == a.max()
    with pytest.raises(InputError, match=r"in a branch that runs, 3\*n must be 6\*floordiv\(3\*n,6\)"):
        ran(engine, 3, (1, 3))


def test_sizes_that_always_agree_need_no_check() -> None:
    proto = chosen([node("Add", ["a", "a"], ["s"]), SUM], node("ReduceSum", ["a"], ["u"], keepdims=0))
    branches = check_branches(import_model(proto)).nodes[-1].attrs.values()
    assert [n.op for g in branches if isinstance(g, Graph) for n in g.nodes] == ["add", "reduce", "reduce"]
