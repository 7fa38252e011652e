"""The tokenizer on a small vocabulary, pooling, and ranking with a trained encoder."""

from __future__ import annotations

import numpy as np
import pytest

from examples.rank import Ranker, pooled
from examples.wordpiece import Tokenizer, words

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] un ##aff ##able aff able , ! cafe 漢 字 ##s [ ]".split()


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(VOCABULARY)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [VOCABULARY[token] for token in tokenizer.encode(text)[1:-1]]


def test_longest_piece_first(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "unaffable") == ["un", "##aff", "##able"]
    assert pieces(tokenizer, "able cafes") == ["able", "cafe", "##s"]


def test_a_word_without_pieces_is_unknown_as_a_whole(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "unaffected able") == ["[UNK]", "able"]
    assert pieces(tokenizer, "un" * 60) == ["[UNK]"]


def test_case_accents_and_control_characters_go(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "CAFÉ\t\u200bca\x00fe\u0301") == ["cafe", "cafe"]


def test_punctuation_and_ideographs_stand_alone() -> None:
    assert words("Hi,you! a漢字b $5^2 don't") == "hi , you ! a 漢 字 b $ 5 ^ 2 don ' t".split()


def test_text_cannot_smuggle_special_tokens(tokenizer: Tokenizer) -> None:
    assert "[SEP]" not in pieces(tokenizer, "able [SEP] able")


def test_limit_keeps_both_ends(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("able " * 50, limit=10)
    assert len(ids) == 10 and (ids[0], ids[-1]) == (2, 3)


def test_batch_pads_and_masks(tokenizer: Tokenizer) -> None:
    feed = tokenizer.batch(["able", "unaffable !", ""])
    assert feed["input_ids"].tolist() == [[2, 8, 3, 0, 0, 0], [2, 4, 5, 6, 10, 3], [2, 3, 0, 0, 0, 0]]
    assert feed["attention_mask"].sum(1).tolist() == [3, 6, 2]
    assert all(value.dtype == np.int64 for value in feed.values())


def test_pooling_ignores_padding() -> None:
    hidden = np.array([[[3, 4], [3, 4], [100, -7]]], np.float32)
    np.testing.assert_allclose(pooled(hidden, np.array([[1, 1, 0]])), [[0.6, 0.8]], rtol=1e-6)


def test_embedding_keeps_the_callers_order(tokenizer: Tokenizer) -> None:
    def encode(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.eye(len(VOCABULARY), dtype=np.float32)[feed["input_ids"]]}

    texts = ["able " * n for n in (20, 3, 11, 1, 7, 2, 5, 4, 9, 6)]
    vectors = Ranker(encode, tokenizer).embed(texts)
    counts = vectors[:, 8] / vectors[:, 2]  # "able" for every [CLS]
    np.testing.assert_allclose(counts, [20, 3, 11, 1, 7, 2, 5, 4, 9, 6], rtol=1e-5)


@pytest.mark.download
def test_ranks_by_meaning() -> None:
    pytest.importorskip("onnxruntime")
    from examples.running import with_onnxruntime
    from zoo.data import vocabulary
    from zoo.models import MODELS

    ranker = Ranker(with_onnxruntime(MODELS["c2"].path()), Tokenizer(vocabulary()))
    texts = ["The cat sleeps on the sofa.", "Shares fell sharply on Monday.", "Rain is expected in the north."]
    for question, answer in (("stock exchange prices", 1), ("weather forecast", 2), ("a pet taking a nap", 0)):
        assert ranker.rank(question, texts)[0][1] == texts[answer]
