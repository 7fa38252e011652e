"""Ranks sentences by how close their meaning is to a question's.

    python -m examples.rank ["QUESTION"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.running import Run, only
from examples.wordpiece import Tokenizer

Floats = NDArray[np.float32]
BATCH = 8
QUESTION = "How are the stock markets and company profits doing?"


@dataclass(frozen=True)
class Ranker:
    """A sentence encoder of BERT's inputs and its tokenizer."""

    encode: Run
    tokenizer: Tokenizer

    def embed(self, texts: Sequence[str]) -> Floats:
        """[texts, width] vectors of length 1; texts of like length share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: dict[int, Floats] = {}
        for begin in range(0, len(order), BATCH):
            chosen = order[begin : begin + BATCH]
            feed = self.tokenizer.batch([texts[i] for i in chosen])
            vectors.update(zip(chosen, pooled(only(self.encode({**feed})), feed["attention_mask"]), strict=True))
        return np.stack([vectors[i] for i in range(len(texts))])

    def rank(self, question: str, texts: Sequence[str]) -> list[tuple[float, str]]:
        """Cosine similarity and text, nearest first."""
        scores = self.embed(texts) @ self.embed([question])[0]
        return [(float(scores[i]), texts[i]) for i in np.argsort(-scores, kind="stable")]


def pooled(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> Floats:
    """[batch, tokens, width] to [batch, width]: the mean over the tokens that are no padding, scaled to length 1."""
    weights = mask[:, :, None].astype(np.float32)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def main() -> None:
    import sys

    from examples.running import with_onnxruntime
    from zoo.data import sentences, vocabulary
    from zoo.models import MODELS

    ranker = Ranker(with_onnxruntime(MODELS["c2"].path()), Tokenizer(vocabulary()))
    for score, text in ranker.rank(sys.argv[1] if len(sys.argv) > 1 else QUESTION, sentences())[:5]:
        print(f"{score:.3f}  {text}")


if __name__ == "__main__":
    main()
