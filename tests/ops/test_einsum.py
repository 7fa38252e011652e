"""Einsum against numpy: fixed and dynamic sizes."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core.errors import BessemerError
from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.ops.onnx_nodes import node_model

RNG = np.random.default_rng(8)
SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "n": 2, "q": 3, "k": 4, "h": 2}

EQUATIONS = [
    "ab,bc->ac", "ab,cb->ac", "ba,bc->ca", "nhqd,nhkd->nhqk", "nhqk,nhkd->nqhd", "nqhd,nkhd->nhqk", "a,b->ab", "a,a->",
    "abc->cab", "abc->b", "ab->", "aab->ab", "aa", "aba->b", "abc,cd,de->abe", "ab,ab,ab->a", "abc,bd->ad",
    "ab,cd->dcba", "...ab,...bc->...ac", "...a,a->...", "a...,a...->...", "ab,bc", "b,ab->ab", "abc,dce,eb->ad",
    " ab , bc -> ca ",
]  # fmt: skip


def _shape(term: str) -> tuple[int, ...]:
    sizes: list[int] = []
    for part in term.strip().replace(" ", "").replace("...", "."):
        sizes += [7, 1] if part == "." else [SIZES[part]]
    return tuple(sizes)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_numpy(equation: str, dynamic: bool) -> None:
    if dynamic and equation in ("aab->ab", "aa", "aba->b"):
        pytest.skip("whether two dynamic sizes agree is not known")
    terms = equation.split("->")[0].split(",")
    arrays = [RNG.standard_normal(_shape(t)).astype(np.float32) for t in terms]
    graph = import_model(
        node_model("Einsum", arrays, 12, {"equation": equation}, 1, False, dynamic and len(arrays) == 1)
    )
    got = run(graph, {f"x{k}": a for k, a in enumerate(arrays)})["y0"]
    np.testing.assert_allclose(got, np.einsum(equation, *arrays), 1e-5, 1e-5)


def test_ellipses_of_different_ranks_broadcast() -> None:
    a, b = RNG.standard_normal((2, 3, 4)).astype(np.float32), RNG.standard_normal((4, 5)).astype(np.float32)
    graph = import_model(node_model("Einsum", (a, b), 12, {"equation": "...i,...ij->...j"}, 1, False))
    np.testing.assert_allclose(run(graph, {"x0": a, "x1": b})["y0"], a @ b, 1e-5, 1e-5)


def test_attention_needs_no_transposes() -> None:
    q, k = (RNG.standard_normal((2, 3, n, 4)).astype(np.float32) for n in (5, 6))
    graph = import_model(node_model("Einsum", (q, k), 12, {"equation": "bhqd,bhkd->bhqk"}, 1, False))
    assert [n.op for n in graph.nodes] == ["matmul"]


@pytest.mark.parametrize("equation", ["ab->ac", "abc->a", "ab,bc->ac", "ab->aa"])
def test_wrong_equations_are_refused(equation: str) -> None:
    with pytest.raises(BessemerError, match="Einsum"):
        import_model(
            node_model(
                "Einsum", (RNG.standard_normal((2, 3)).astype(np.float32),), 12, {"equation": equation}, 1, False
            )
        )
