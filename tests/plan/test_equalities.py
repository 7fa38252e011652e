"""Sizes that a model takes to be equal: runs at which they are not are refused, with what, where and the fix."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bessemer import InputError, ModelError, ShapeError, build, load
from bessemer.core.dim import sym
from bessemer.engine.engine import Engine
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from bessemer.ir.interp import run
from bessemer.plan.equalities import equalities
from tests.frontend.models import INT64, model, node, tensor, value

RNG = np.random.default_rng()
N, B, S = sym("n"), sym("b"), sym("s")


def folded(*target: int) -> bytes:
    """Softmax of x [n, 64] as `target`."""
    nodes = [node("Reshape", ["x", "to"], ["r"]), node("Softmax", ["r"], ["y"], axis=-1)]
    return model(nodes, [value("x", ["n", 64])], ["y"], [tensor("to", np.array(target))]).SerializeToString()


def lstm(branch: bool = False) -> bytes:
    """An LSTM whose states have a batch of their own, in a branch that depends on data or outside."""
    weights = [tensor(k, 0.3 * RNG.standard_normal(s).astype(np.float32)) for k, s in (
        ("w", (1, 32, 4)), ("r", (1, 32, 8)), ("bias", (1, 64)))]  # fmt: skip
    cell = node("LSTM", ["x", "w", "r", "bias", "", "h", "h"], ["", "y"], hidden_size=8)
    inputs = [value("x", [5, "b", 4]), value("h", [1, "s", 8])]
    if not branch:
        return model([cell], inputs, ["y"], weights).SerializeToString()
    cell.output[1] = "inside"
    then = helper.make_graph([cell], "then", [], [value("inside", None)])
    other = helper.make_graph([node("Identity", ["h"], ["same"])], "else", [], [value("same", None)])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]  # fmt: skip
    return model(nodes, inputs, ["y"], [*weights, tensor("zero", np.float32(0))]).SerializeToString()


def check(engine: Engine, proto: bytes, feeds: dict[str, np.ndarray]) -> None:
    want = run(import_model(proto), feeds)["y"]
    np.testing.assert_allclose(load(engine).run(feeds)["y"], want, 1e-4, 1e-5)


@pytest.mark.parametrize("tune", ["off", "device"])
def test_a_reshape_that_has_no_room_for_all_is_refused(tune: str) -> None:
    proto = folded(11, -1, 64)
    engine = build(proto, tune=tune)
    assert [(e.left, e.nodes) for e in engine.program.equalities] == [(64 * N, "Reshape_0")]
    for rows in (11, 33):
        check(engine, proto, {"x": RNG.standard_normal((rows, 64)).astype(np.float32)})
    with pytest.raises(ShapeError, match=r"at n = 12, 64\*n is 768 and 704\*floordiv\(64\*n,704\) is 704") as refused:
        load(engine).run({"x": np.zeros((12, 64), np.float32)})
    assert "Reshape_0" in str(refused.value) and "sizes at which these two are equal" in str(refused.value)


def test_what_is_equal_at_all_sizes_is_not_checked() -> None:
    for target in ((-1, 8, 8), (0, 2, -1), (-1,)):
        assert equalities(import_model(folded(*target))) == ()


@pytest.mark.parametrize("branch", [False, True])
def test_states_of_another_batch_are_refused(branch: bool) -> None:
    """The kernel reads as many as there are in the data, in branches too: there when they run, and only then."""
    proto = lstm(branch)
    engine = build(proto, tune="off")
    assert [{e.left, e.right} for e in engine.program.equalities] == ([] if branch else [{B, S}])
    x = np.abs(RNG.standard_normal((5, 3, 4))).astype(np.float32)
    check(engine, proto, {"x": x, "h": RNG.standard_normal((1, 3, 8)).astype(np.float32)})
    other = {"x": x, "h": RNG.standard_normal((1, 2, 8)).astype(np.float32)}
    error, said = (InputError, "in a branch that runs, s must be b") if branch else (
        ShapeError, "at b = 3, s = 2, s is 2 and b is 3")  # fmt: skip
    with pytest.raises(error, match=said):
        load(engine).run(other)
    if branch:
        np.testing.assert_array_equal(load(engine).run({**other, "x": -x})["y"], other["h"])


def test_weights_of_other_sizes_than_the_data_are_refused() -> None:
    """Weights that are inputs, of sizes that the model leaves open."""
    cell = node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=8)
    inputs = [value("x", [5, "b", "i"]), value("w", [1, 32, "k"]), value("r", [1, 32, 8])]
    proto = model([cell], inputs, ["y"]).SerializeToString()
    engine = build(proto, tune="off")
    assert [{e.left, e.right} for e in engine.program.equalities] == [{sym("i"), sym("k")}]
    feeds = {"x": (5, 2, 4), "w": (1, 32, 4), "r": (1, 32, 8)}
    given = {k: 0.3 * RNG.standard_normal(s).astype(np.float32) for k, s in feeds.items()}
    check(engine, proto, given)
    with pytest.raises(ShapeError, match="at i = 4, k = 3"):
        load(engine).run({**given, "w": given["w"][:, :, :3]})


def test_kernels_that_do_not_run_at_the_opt_shape_are_reported() -> None:
    """No case can be made of them: they are built untimed, and the build says so."""
    nodes = [node("Reshape", ["x", "to"], ["parts"]), node("LSTM", ["parts", "w", "r", "", "", "h"], ["", "y"],
             hidden_size=8)]  # fmt: skip
    weights = [tensor("w", np.ones((1, 32, 4), np.float32)), tensor("r", np.ones((1, 32, 8), np.float32) / 8)]
    inputs = [value("x", ["n", 4]), value("h", [1, "s", 8])]
    proto = model(nodes, inputs, ["y"], [*weights, tensor("to", np.array([3, -1, 4]))]).SerializeToString()
    engine = build(proto, tune="device")
    (note,) = [n for n in engine.manifest["notes"] if n.startswith("neither checked nor timed")]
    assert "lstm: no case can be made of it at its opt shape: initial_h of f32[" in note
    feeds = {"x": RNG.standard_normal((12, 4)).astype(np.float32), "h": np.zeros((1, 4, 8), np.float32)}
    check(engine, proto, feeds)


def test_sizes_that_data_tell_are_compared_once_they_are_known() -> None:
    nodes = [node("NonZero", ["x"], ["at"]), node("Reshape", ["at", "to"], ["y"])]
    proto = model(nodes, [value("x", ["n", 3])], [value("y", None, INT64)], [tensor("to", np.array([-1, 3]))])
    session = load(build(proto.SerializeToString(), tune="off"))
    x = np.zeros((4, 3), np.float32)
    x[:3, 1] = 1
    np.testing.assert_array_equal(session.run([x])["y"], [[0, 1, 2], [1, 1, 1]])
    x[3, 1] = 1
    with pytest.raises(ShapeError, match=r"u0_nonzero = 4, 2\*u0_nonzero is 8 and 3\*floordiv\(2\*u0_nonzero,3\) is 6"):
        session.run([x])
    x[3, 1] = 0
    np.testing.assert_array_equal(session.run([x])["y"], [[0, 1, 2], [1, 1, 1]])


@pytest.mark.parametrize("op", ["Add", "Concat"])
def test_sizes_of_two_results_that_depend_on_data(op: str) -> None:
    attributes = {"axis": 0} if op == "Concat" else {}
    nodes = [node("NonZero", ["a"], ["i"]), node("NonZero", ["b"], ["j"]), node(op, ["i", "j"], ["y"], **attributes)]
    proto = model(nodes, [value("a", ["n"]), value("b", ["m"])], [value("y", None, INT64)])
    session = load(build(proto.SerializeToString(), tune="off"))
    a, b = np.array([1, 0, 1, 1], np.float32), np.array([0, 1, 1, 0, 1], np.float32)
    want = np.array([[0, 2, 3], [1, 2, 4]])
    np.testing.assert_array_equal(session.run([a, b])["y"], want if op == "Concat" else want.sum(0, keepdims=True))
    with pytest.raises(ShapeError, match="at u0_nonzero = 3, u1_nonzero = 5, u0_nonzero is 3 and"):
        session.run([a, np.ones(5, np.float32)])


@pytest.mark.parametrize(
    "op,a,b,legal,refused",
    [
        ("Add", ["n", 3], ["m", 3], [(1, 5), (5, 1), (4, 4)], [(2, 4), (4, 2)]),
        ("Where", ["n", 3], ["m", 3], [(1, 5), (4, 4)], [(2, 4)]),
        ("MatMul", ["n", 2, 3], ["m", 3, 4], [(1, 5), (5, 1), (4, 4)], [(2, 4)]),
        ("Expand", ["n", 3], ["m", 3], [(1, 5), (4, 4)], [(2, 4)]),
    ],
)
def test_sizes_that_do_not_broadcast_are_refused(
    op: str, a: list[str | int], b: list[str | int], legal: list[tuple[int, int]], refused: list[tuple[int, int]]
) -> None:
    nodes = {
        "Where": [node("Greater", ["a", "b"], ["c"]), node("Where", ["c", "a", "b"], ["y"])],
        "Expand": [node("Shape", ["b"], ["to"]), node("Expand", ["a", "to"], ["y"])],
    }.get(op, [node(op, ["a", "b"], ["y"])])
    proto = model(nodes, [value("a", a), value("b", b)], [value("y", None)]).SerializeToString()
    engine = build(proto, tune="off")

    def feeds(n: int, m: int) -> dict[str, np.ndarray]:
        return {"a": RNG.standard_normal((n, *a[1:])).astype(np.float32),
                "b": RNG.standard_normal((m, *b[1:])).astype(np.float32)}  # fmt: skip

    for n, m in legal:
        check(engine, proto, feeds(n, m))
    for n, m in refused:
        with pytest.raises(ShapeError, match=f"at m = {m}, n = {n}, . is .* and must be 1 or {max(n, m)}") as caught:
            load(engine).run(feeds(n, m))
        assert caught.value.fix == "give sizes that can be broadcast"


def test_a_constant_that_fits_one_length_of_many() -> None:
    """As positions of 16 tokens that are added to a sequence of 1 to 16: it may be broadcast to 16, or be of 16."""
    positions = tensor("positions", RNG.standard_normal((1, 16, 4)).astype(np.float32))
    added = node("Add", ["x", "positions"], ["y"])
    proto = model([added], [value("x", ["b", "s", 4])], ["y"], [positions]).SerializeToString()
    engine = build(proto, tune="off", profiles=[Profile({"x": ((1, 1, 4), (2, 16, 4), (4, 16, 4))})])
    for length in (1, 16):
        check(engine, proto, {"x": RNG.standard_normal((3, length, 4)).astype(np.float32)})
    with pytest.raises(ShapeError, match="at s = 7, s is 7 and must be 1 or 16"):
        load(engine).run({"x": np.zeros((3, 7, 4), np.float32)})
    with pytest.raises(ShapeError, match="at s = 7, s is 7 and must be 1 or 16"):
        build(proto, tune="off", profiles=[Profile({"x": ((1, 1, 4), (2, 7, 4), (4, 16, 4))})])


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


Sizes = list[str | int]


def dynamic(nodes: list[object], inputs: dict[str, Sizes], consts: dict[str, np.ndarray], opset: int = 21) -> bytes:
    """A model whose results are all that nodes make; input `l` is of i64."""
    values = [value(k, s, INT64) if k == "l" else value(k, s) for k, s in inputs.items()]
    outputs = [value(k, None, 0) for n in nodes for k in n.output]  # type: ignore[attr-defined]
    tensors = [tensor(k, v) for k, v in consts.items()]
    return model(nodes, values, outputs, tensors, opset=opset).SerializeToString()  # type: ignore[arg-type]


LENGTH: dict[str, Sizes] = {"x": ["n"]}
CHANNELS: dict[str, Sizes] = {"x": [1, "c", 6]}
GROUPED = {"num_groups": 2}
BROKEN: dict[str, tuple[bytes, list[tuple[int, ...]], list[tuple[int, ...]], str]] = {
    # name: (model, shapes of x at which it runs, and at which it does not, what is said)
    "index 5": (
        dynamic([node("Gather", ["x", "i"], ["y"])], LENGTH, {"i": np.array(5)}), [(6,), (9,)], [(3,), (5,)],
        r"at n = \d, n is \d and must be at least 6"),
    "index -5": (
        dynamic([node("Gather", ["x", "i"], ["y"])], LENGTH, {"i": np.array(-5)}), [(5,), (9,)], [(3,), (4,)],
        r"at n = \d, n is \d and must be at least 5"),
    "split": (
        dynamic([node("Split", ["x", "i"], ["y", "z"])], LENGTH, {"i": np.array([4, 4])}), [(8,)], [(3,), (10,)],
        r"n is \d+ and must be 8"),
    "conv": (
        dynamic([node("Conv", ["x", "w"], ["y"])], CHANNELS, {"w": f32(2, 8, 3)}), [(1, 8, 6)], [(1, 4, 6), (1, 16, 6)],
        r"c is \d+ and must be 8"),
    "conv transpose": (
        dynamic([node("ConvTranspose", ["x", "w"], ["y"])], CHANNELS, {"w": f32(8, 2, 3)}), [(1, 8, 6)],
        [(1, 4, 6), (1, 16, 6)], r"c is \d+ and must be 8"),
    "groups": (
        dynamic([node("GroupNormalization", ["x", "s", "s"], ["y"], **GROUPED)], CHANNELS, {"s": f32(2)}, 18),
        [(1, 4, 6), (1, 8, 6)], [(1, 5, 6)], r"c is 5|mod\(c,2\) is 1 and must be 0"),
    "scale of a group norm": (
        dynamic([node("GroupNormalization", ["x", "s", "s"], ["y"], **GROUPED)], CHANNELS, {"s": f32(4)}), [(1, 4, 6)],
        [(1, 8, 6), (1, 2, 6)], r"c is \d|and must be 4"),
    "elements": (
        dynamic([node("GatherElements", ["x", "i"], ["y"], axis=0)], {"x": [2, "n"]}, {"i": np.ones((3, 6), int)}),
        [(2, 6), (2, 9)], [(2, 5)], "n is 5 and must be at least 6"),
    "no edge": (
        dynamic([node("Pad", ["x", "p"], ["y"], mode="reflect")], LENGTH, {"p": np.array([1, 1])}), [(1,), (2,), (9,)],
        [(0,)], "n is 0 and must be at least 1"),
    "top": (
        dynamic([node("TopK", ["x", "k"], ["y", "z"])], LENGTH, {"k": np.array([6])}), [(6,), (9,)], [(5,)],
        "n is 5 and must be at least 6"),
    "scatter": (
        dynamic([node("ScatterElements", ["x", "i", "u"], ["y"], axis=0)], {"x": [4, "n"]},
                {"i": np.ones((1, 3), int), "u": f32(1, 3)}), [(4, 3), (4, 5)], [(4, 2)],
        "n is 2 and must be at least 3"),
    "scatter of rows": (
        dynamic([node("ScatterND", ["x", "i", "u"], ["y"], reduction="add")], {"x": [4, "n"]},
                {"i": np.ones((2, 1), int), "u": f32(2, 3)}), [(4, 3)], [(4, 2), (4, 1)], r"n is \d and must be 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_sizes_at_which_a_kernel_would_read_outside_are_refused(case: str) -> None:
    proto, legal, refused, said = BROKEN[case]
    low = tuple(min(s) for s in zip(*legal, *refused))
    high = tuple(max(s) for s in zip(*legal, *refused))
    session = load(build(proto, tune="off", profiles=[Profile({"x": (low, legal[-1], high)})]))
    for shape in legal:
        feeds = {"x": f32(*shape)}
        for name, want in run(import_model(proto), feeds).items():
            np.testing.assert_allclose(session.run(feeds)[name], want, 1e-4, 1e-5)
    for shape in refused:
        with pytest.raises(ShapeError, match=said) as caught:
            session.run({"x": f32(*shape)})
        assert "ONNX nodes " in str(caught.value) and caught.value.fix is not None


@pytest.mark.parametrize("viewed", [True, False])
def test_a_view_of_an_input_whose_rows_another_input_tells(viewed: bool) -> None:
    """(m - 1) * (12 // (m - 1)) may be much by its bounds, and is 12 wherever a run is not refused."""
    nodes = [
        node("Slice", ["x", "one", "far", "one"], ["s"]), node("Shape", ["s"], ["sizes"]),
        node("Gather", ["sizes", "one"], ["rows"]), node("Concat", ["rows", "rest"], ["to"], axis=0),
        node("Reshape", ["z", "to"], ["y"]) if viewed else node("Exp", ["z"], ["e"]),
    ]  # fmt: skip
    if not viewed:
        nodes += [node("Reshape", ["e", "to"], ["r"]), node("Softmax", ["r"], ["y"])]
    consts = [tensor("one", np.array([1])), tensor("far", np.array([100])), tensor("rest", np.array([-1]))]
    proto = model(nodes, [value("x", [2, "m"]), value("z", [12])], ["y"], consts).SerializeToString()
    engine = build(proto, tune="off", profiles=[Profile({"x": ((2, 1), (2, 4), (2, 7))})])
    for m in (2, 4, 7):
        check(engine, proto, {"x": f32(2, m), "z": f32(12)})
    with pytest.raises(ShapeError, match="is 10 and must be 12"):
        load(engine).run({"x": f32(2, 6), "z": f32(12)})
    with pytest.raises(ShapeError, match="divides by zero at m = 1"):
        load(engine).run({"x": f32(2, 1), "z": f32(12)})


@pytest.mark.parametrize("lengths", [2, 3, 5])
def test_lengths_of_another_batch(lengths: int) -> None:
    reverse = node("ReverseSequence", ["x", "l"], ["y"], batch_axis=0, time_axis=1)
    proto = dynamic([reverse], {"x": ["b", 5], "l": ["m"]}, {})
    feeds = {"x": f32(3, 5), "l": np.full(lengths, 4)}
    session = load(build(proto, tune="off"))
    if lengths == 3:
        np.testing.assert_array_equal(session.run(feeds)["y"][:, :4], feeds["x"][:, 3::-1])
    else:
        with pytest.raises(ShapeError, match=f"at b = 3, m = {lengths}"):
            session.run(feeds)


@pytest.mark.parametrize(
    "nodes,consts,said",
    [
        ([node("InstanceNormalization", ["x", "s", "s"], ["y"])], {"s": f32(4)}, "sizes 4 and 8 differ"),
        ([node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)], {"s": f32(4)}, "sizes 4 and 8 differ"),
        ([node("Gather", ["x", "i"], ["y"], axis=2)], {"i": np.array(7)}, "outside axis 2"),
        ([node("Split", ["x", "i"], ["y", "z"], axis=1)], {"i": np.array([4, 5])}, "add up to 9"),
        ([node("GatherElements", ["x", "i"], ["y"], axis=0)], {"i": np.zeros((1, 9, 2), int)}, "on axis 1"),
        ([node("ScatterElements", ["x", "i", "u"], ["y"])], {"i": np.zeros((1, 2, 3), int), "u": f32(1, 2, 2)},
         "sizes 3 and 2 differ"),
        ([node("ScatterND", ["x", "i", "u"], ["y"])], {"i": np.zeros((1, 2), int), "u": f32(2, 6)}, "differ"),
    ],
)  # fmt: skip
def test_fixed_sizes_that_do_not_agree_are_no_model(
    nodes: list[object], consts: dict[str, np.ndarray], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        build(dynamic(nodes, {"x": [1, 8, 6]}, consts), tune="off")
    assert "_0" in str(caught.value)


def test_batches_that_data_tell_are_compared_where_no_types_do() -> None:
    """As of GatherND: a size that depends on data is taken to be that which it meets."""
    nodes = [
        node("NonZero", ["m"], ["at"]), node("Transpose", ["at"], ["i"]),
        node("GatherND", ["x", "i"], ["y"], batch_dims=1),
    ]  # fmt: skip
    proto = model(nodes, [value("x", [3, 4]), value("m", [4])], [value("y", None)]).SerializeToString()
    session = load(build(proto, tune="off"))
    x = f32(3, 4)
    np.testing.assert_array_equal(session.run({"x": x, "m": np.float32([0, 1, 1, 1])})["y"], x[range(3), [1, 2, 3]])
    with pytest.raises(ShapeError, match="u0_nonzero is 4 and must be 3|must be 3"):
        session.run({"x": x, "m": np.ones(4, np.float32)})


def test_an_index_in_a_branch_is_compared_when_the_branch_runs() -> None:
    then = helper.make_graph([node("Gather", ["x", "five"], ["a"])], "then", [], [value("a", None)])
    other = helper.make_graph([node("Gather", ["x", "zero"], ["b"])], "else", [], [value("b", None)])
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "none"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]  # fmt: skip
    consts = [tensor("five", np.array(5)), tensor("zero", np.array(0)), tensor("none", np.float32(0))]
    engine = build(model(nodes, [value("x", ["n"])], ["y"], consts).SerializeToString(), tune="off")
    assert engine.program.equalities == ()
    x = np.arange(1, 4, dtype=np.float32)
    assert load(engine).run([-x])["y"] == -1
    assert load(engine).run([np.arange(1, 8, dtype=np.float32)])["y"] == 6
    with pytest.raises(InputError, match=r"in a branch that runs, max\(6,n\) must be n"):
        load(engine).run([x])
