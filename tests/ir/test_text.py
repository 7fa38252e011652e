"""The text of a graph parses back to the graph."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import dtype as dt
from bessemer.core.dim import floordiv, sym
from bessemer.core.errors import GraphError
from bessemer.core.interval import INF, Range
from bessemer.ir.fold import constant_from
from bessemer.ir.graph import Constant, Graph, Node, TensorType
from bessemer.ir.text import parse, print_graph, print_node

N = sym("N")
X = TensorType(dt.f32, (N, 3))

HAND_WRITTEN = """\
graph "main"(%x: f32[N,3], %"input:0": i64[]) -> (%y as "out", %s as "sum") {
  sym N = [1, 64] opt 4 multiple 2
  meta "labels" = "a\\nb"
  %half: f32[] = constant 0.5
  %w: f32[3,8] = constant "normal:7" | transpose((1, 0)) | cast(f16)
  %idx: i64[2] = constant [1, -2]
  %y: f32[N,3] = relu(%x)  // node_1, "an odd, name"
  %s: f32[floordiv(N,2),3] = some_op(%y, _, %idx) {axes = (0, 1), one = (2,), none = (), to = f16, scale = 0.5,
    flag = true, text = "a \\"b\\"", nothing = none, size = <2*N+1>, low = -inf}  // "named": a/b.c
}
"""


def test_hand_written_text_round_trips():
    graph = parse(HAND_WRITTEN)
    assert graph.inputs == ("x", "input:0") and graph.output_names == ("out", "sum")
    assert graph.ranges == {"N": Range(1, 64, 4, 2)} and graph.metadata == {"labels": "a\nb"}
    relu, other = graph.nodes
    assert relu.origin == ("node_1", "an odd, name") and relu.name == "node_1"
    assert other.name == "named" and other.origin == ("a/b.c",) and other.inputs == ("y", "", "idx")
    assert dict(other.attrs) == {
        "axes": (0, 1), "one": (2,), "none": (), "to": dt.f16, "scale": 0.5, "flag": True, "text": 'a "b"',
        "nothing": None, "size": 2 * N + 1, "low": float("-inf"),
    }  # fmt: skip
    assert graph.types["s"] == TensorType(dt.f32, (floordiv(N, 2), 3))
    assert graph.constants["w"].transforms == (("transpose", ((1, 0),)), ("cast", (dt.f16,)))
    assert parse(print_graph(graph)) == graph
    assert print_graph(parse(print_graph(graph))) == print_graph(graph)


def test_small_constants_are_written_out_and_large_ones_by_key():
    graph = parse(HAND_WRITTEN)
    assert np.array_equal(graph.constants["idx"].load(), [1, -2])
    drawn = np.random.default_rng(7).standard_normal((3, 8)).astype(np.float32)
    assert np.array_equal(graph.constants["w"].load(), drawn)
    big = constant_from(np.arange(100, dtype=np.float32))
    graph = Graph("g", (), ("w",), (), {"w": big.type}, {"w": big})
    assert f'constant "{big.key}"' in print_graph(graph)
    parsed = parse(print_graph(graph))
    assert parsed == graph
    with pytest.raises(GraphError, match="is not part of the text"):
        parsed.constants["w"].load()
    assert np.array_equal(parse(print_graph(graph), {big.key: big}).constants["w"].load(), np.arange(100))


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-45, 3.4e38, float("inf"), float("nan"), 16777217.0])
@pytest.mark.parametrize("dtype", [dt.f16, dt.f32, dt.f64, dt.bf16], ids=str)
def test_literals_are_exact(value: float, dtype: dt.DType):
    with np.errstate(over="ignore"):
        array = dt.to_bf16(np.array(value)) if dtype == dt.bf16 else np.array([value], dtype.numpy)
    constant = constant_from(array, dtype)
    graph = Graph("g", (), ("c",), (), {"c": constant.type}, {"c": constant})
    assert parse(print_graph(graph)) == graph


def test_a_folded_constant_is_not_computed_for_its_text():
    def explode() -> np.ndarray:
        raise AssertionError("loaded")

    folded = Constant(TensorType(dt.f32, ()), explode, "abc.0")
    assert 'constant "abc.0"' in print_graph(Graph("g", (), ("c",), (), {"c": folded.type}, {"c": folded}))


def test_nested_graphs():
    inner = Graph("inner", ("i",), ("o",), (Node("relu", ("i",), ("o",), name="r", origin=("r",)),), {"i": X, "o": X},
                  ranges={"N": Range(1, 8)})  # fmt: skip
    attrs = MappingProxyType({"body": inner, "several": (inner, 3), "axis": 1})
    outer = Graph("outer", ("x",), ("y",), (Node("loop", ("", "x"), ("y",), attrs, "l", ("l", "m")),), {"x": X, "y": X},
                  ranges={"N": Range(1, 8)})  # fmt: skip
    assert parse(print_graph(outer)) == outer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 'graph'"),
        ('graph "g"() -> () {} more', "expected the end"),
        ('graph "g"(%x: f33[]) -> () {}', "unknown dtype 'f33'"),
        ('graph "g"(%x: f32[N+]) -> () {}', "not a dimension expression"),
        ('graph "g"() -> () {\n  %y: f32[] relu()\n}', "expected '='"),
        ('graph "g"() -> () {\n  %y: f32[] = relu() {a = what}\n}', "'what' is no attribute value"),
    ],
)
def test_what_is_no_graph_text_is_shown_with_its_line(text: str, message: str):
    with pytest.raises(GraphError) as error:
        parse(text)
    assert message in str(error.value) and "line " in str(error.value)


NAMES = st.text(min_size=1, max_size=8)
ATTRS = st.recursive(
    st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text(max_size=5)
    | st.sampled_from([dt.f32, dt.bf16, dt.bool_, 3 * N - 1, floordiv(N, 2)]),
    lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6,
)  # fmt: skip


@given(
    st.lists(NAMES, min_size=2, max_size=2, unique=True), st.text(max_size=5), NAMES, st.lists(NAMES, max_size=3),
    st.dictionaries(st.from_regex(r"[a-z]\w{0,5}", fullmatch=True).filter(str.isascii), ATTRS, max_size=3),
)  # fmt: skip
def test_any_names_and_attributes_round_trip(values, graph_name, node_name, origin, attrs):
    x, y = values
    node = Node("some_op", (x, "", x), (y,), MappingProxyType(attrs), node_name, tuple(origin))
    graph = Graph(graph_name, (x,), (y,), (node,), {x: X, y: X}, ranges={"N": Range(0, INF)}, output_names=(y,))
    assert parse(print_graph(graph)) == graph


def test_one_node():
    node = Node("relu", ("x",), ("y",), name="r", origin=("r",))
    assert print_node(node, {"y": X}) == "%y: f32[N,3] = relu(%x)  // r"
