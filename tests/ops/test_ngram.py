"""TfIdfVectorizer against onnxruntime: every mode, permuted coordinates, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core.errors import BessemerError
from bessemer.frontend.onnx import import_model
from tests.ops.onnx_nodes import check_node, node_model

X = np.random.default_rng(5).integers(1, 4, (3, 11))
ATTRS: dict[str, Any] = {
    "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1, "ngram_counts": [0, 2], "mode": "TF",
    "pool_int64s": [1, 2, 1, 2, 3, 1], "ngram_indexes": [3, 1, 0, 2],
}  # fmt: skip


@pytest.mark.parametrize("x", [X, X[0], X[:, :1], X.astype(np.int32)], ids=["rows", "row", "short", "i32"])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 4.0, 8.0]], ids=["plain", "weighted"])
@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
def test_modes(mode: str, weights: list[float] | None, x: np.ndarray) -> None:
    more = {} if weights is None else {"weights": weights}
    check_node("TfIdfVectorizer", (x,), 13, {**ATTRS, "mode": mode, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"ngram_indexes": [0, 1, 2, 3]}, {"ngram_indexes": [3, 1, 0, 6]}, {"min_gram_length": 2},
        {"max_gram_length": 1}, {"max_skip_count": 0}, {"max_skip_count": 12},
        {"ngram_counts": [0, 0], "pool_int64s": [1, 2, 2, 2, 3, 1], "ngram_indexes": [0, 1, 2]},
    ],
    ids=str,
)  # fmt: skip
def test_pools(more: dict[str, Any]) -> None:
    check_node("TfIdfVectorizer", (X,), 9, {**ATTRS, **more})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ngram_indexes": [0, 1, 1, 2]}, "occurs twice"),
        ({"pool_int64s": [1, 1, 1, 2, 3, 1]}, "occurs twice"),
        ({"ngram_indexes": [0, 1]}, "2 ngram_indexes and 2 weights for 4 n-grams"),
        ({"ngram_counts": [0, 3]}, "do not part a pool of 6"),
        ({"mode": "BM25"}, "known: TF, IDF, TFIDF"),
    ],
)
def test_refusals(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(BessemerError, match=reason):
        import_model(node_model("TfIdfVectorizer", (X,), 13, {**ATTRS, **more}, 1, True))
