"""What exporters write around dynamic shapes: it is evaluated on import and leaves the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bessemer.core.dim import Dim, sym
from bessemer.frontend.onnx import import_model
from bessemer.ir.graph import Graph
from bessemer.ir.interp import run
from bessemer.ir.verify import verify
from tests.frontend.models import model, node, tensor, value

N, S = sym("N"), sym("S")


def build(nodes: Sequence[onnx.NodeProto], opset: int = 17, **constants: Any) -> Graph:
    """x[N,S,6] and the nodes that give y."""
    initializers = [tensor(k, np.asarray(v)) for k, v in constants.items()]
    out = helper.make_empty_tensor_value_info("y")
    graph = import_model(model(nodes, [value("x", ["N", "S", 6])], [out], initializers, opset=opset))
    verify(graph)
    return graph


def shape_of(graph: Graph) -> tuple[Dim, ...]:
    return graph.types[graph.outputs[0]].shape


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def feed(graph: Graph, n: int, s: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(n * 100 + s).standard_normal((n, s, 6)).astype(np.float32)
    return x, run(graph, {"x": x})["y"]


def test_heads_split_and_merged_by_shape_nodes() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]), node("Gather", ["s", "one"], ["l"]),
            node("Unsqueeze", ["n", "axis"], ["n1"]), node("Unsqueeze", ["l", "axis"], ["l1"]),
            node("Concat", ["n1", "l1", "heads"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["r"]), node("Transpose", ["r"], ["y"], perm=[0, 2, 1, 3]),
        ],
        zero=np.array(0), one=np.array(1), axis=[0], heads=[2, 3],
    )  # fmt: skip
    assert ops(graph) == ["reshape", "transpose"] and shape_of(graph) == (N, 2, S, 3)
    x, y = feed(graph, 2, 5)
    assert np.array_equal(y, x.reshape(2, 5, 2, 3).transpose(0, 2, 1, 3))


def test_expand_with_minus_one_written_as_where_over_equal() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Concat", ["minus", "s"], ["wanted"], axis=0),
            node("Shape", ["wanted"], ["rank"]), node("ConstantOfShape", ["rank"], ["ones"], value=tensor("v", [1])),
            node("Mul", ["ones", "minus"], ["signs"]), node("Equal", ["wanted", "signs"], ["same"]),
            node("Where", ["same", "ones", "wanted"], ["target"]), node("Expand", ["x", "target"], ["y"]),
        ],
        minus=[-1],
    )  # fmt: skip
    assert ops(graph) == ["expand"] and shape_of(graph) == (1, N, S, 6)


def test_half_of_a_dynamic_axis() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["l"]), node("Div", ["l", "two"], ["half"]),
            node("Slice", ["x", "half", "huge", "one"], ["y"]),
        ],
        one=[1], two=[2], huge=[2**63 - 1],
    )  # fmt: skip
    assert ops(graph) == ["slice"]
    x, y = feed(graph, 1, 7)
    assert np.array_equal(y, x[:, 3:])


def test_last_token_by_a_negative_index() -> None:
    graph = build([node("Gather", ["x", "last"], ["y"], axis=1)], last=np.array(-1))
    assert ops(graph) == ["slice", "reshape"] and shape_of(graph) == (N, 6)
    x, y = feed(graph, 3, 4)
    assert np.array_equal(y, x[:, -1])


def test_position_ids_of_a_dynamic_length_stay_cheap() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["l"]),
            node("Range", ["zero", "l", "one"], ["ids"]), node("Gather", ["table", "ids"], ["y"]),
        ],
        zero=np.array(0), one=np.array(1), table=np.arange(80, dtype=np.float32).reshape(40, 2),
    )  # fmt: skip
    assert ops(graph) == ["range", "gather"] and shape_of(graph) == (S, 2)
    assert feed(graph, 1, 9)[1][:, 0].tolist() == list(range(0, 18, 2))


def test_causal_mask_over_a_dynamic_length() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["l"]),
            node("Concat", ["l", "l"], ["square"], axis=0), node("ConstantOfShape", ["square"], ["ones"]),
            node("Trilu", ["ones", "diagonal"], ["y"], upper=1),
        ],
        one=[1], two=[2], diagonal=np.array(1),
    )  # fmt: skip
    assert ops(graph) == ["fill", "trilu"] and shape_of(graph) == (S, S)


def test_pads_computed_from_the_shape() -> None:
    """Pad the second axis to a multiple of four."""
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["l"]), node("Neg", ["l"], ["m"]),
            node("Mod", ["m", "four"], ["extra"]), node("Concat", ["zeros", "extra", "zero"], ["pads"], axis=0),
            node("Pad", ["x", "pads"], ["y"]),
        ],
        one=[1], two=[2], four=[4], zeros=[0, 0, 0, 0], zero=[0],
    )  # fmt: skip
    assert ops(graph) == ["pad"]
    assert [feed(graph, 1, s)[1].shape[1] for s in (1, 4, 5, 8)] == [4, 4, 8, 8]


def test_the_greater_of_two_sizes() -> None:
    graph = build(
        [node("Shape", ["x"], ["s"]), node("ReduceMax", ["s"], ["m"]), node("ConstantOfShape", ["m"], ["y"])],
        opset=17,
    )
    assert ops(graph) == ["fill"]
    assert feed(graph, 3, 9)[1].shape == (9,) and feed(graph, 11, 2)[1].shape == (11,)


def test_product_of_sizes_flattens() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "two"], ["lead"]),
            node("ReduceProd", ["lead"], ["rows"], keepdims=1), node("Concat", ["rows", "minus"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        zero=[0], two=[2], minus=[-1],
    )  # fmt: skip
    assert ops(graph) == ["reshape"] and shape_of(graph) == (N * S, 6)


def test_repeat_by_expand_and_by_tile() -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "one"], ["n"]),
            node("Concat", ["n", "three", "one"], ["repeats"], axis=0), node("Tile", ["x", "repeats"], ["y"]),
        ],
        zero=[0], one=[1], three=[3],
    )  # fmt: skip
    assert ops(graph) == ["tile"] and shape_of(graph) == (N * N, 3 * S, 6)


@pytest.mark.parametrize("cast", [TensorProto.INT32, TensorProto.INT64])
def test_sizes_cast_and_compared(cast: int) -> None:
    graph = build(
        [
            node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["c"], to=cast),
            node("Cast", ["c"], ["d"], to=TensorProto.INT64),
            node("Greater", ["d", "nothing"], ["g"]), node("Where", ["g", "d", "nothing"], ["t"]),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        nothing=[0, 0, 0],
    )  # fmt: skip
    assert ops(graph) in ([], ["reshape"]) and shape_of(graph) == (N, S, 6)
