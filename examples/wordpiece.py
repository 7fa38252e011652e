"""BERT's uncased WordPiece tokenizer: text to token ids, from nothing but the vocabulary."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
LONGEST_WORD = 100  # characters; a longer word is unknown as a whole


class Tokenizer:
    """`vocabulary` lists the pieces by token id; "##" starts a piece that continues a word."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.ids = {piece: index for index, piece in enumerate(vocabulary)}
        self.pad, self.unknown, self.begin, self.end = (self.ids[p] for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))

    def encode(self, text: str, limit: int = 256) -> list[int]:
        """Token ids of one text between [CLS] and [SEP], at most `limit` with these two."""
        ids = [token for word in words(text) for token in self._pieces(word)]
        return [self.begin, *ids[: limit - 2], self.end]

    def batch(self, texts: Sequence[str], limit: int = 256) -> dict[str, Ids]:
        """A BERT model's three inputs, [texts, longest] int64 each; shorter texts are padded and masked."""
        rows = [self.encode(text, limit) for text in texts]
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.pad, np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        mask = np.arange(longest) < np.array([len(row) for row in rows])[:, None]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": np.zeros_like(ids)}

    def _pieces(self, word: str) -> list[int]:
        """The longest piece that starts the word, then the longest that continues it, and so on."""
        if len(word) > LONGEST_WORD:
            return [self.unknown]
        found: list[int] = []
        begin = 0
        while begin < len(word):
            for end in range(len(word), begin, -1):
                token = self.ids.get(("##" if begin else "") + word[begin:end])
                if token is not None:
                    found.append(token)
                    begin = end
                    break
            else:
                return [self.unknown]
        return found


def words(text: str) -> list[str]:
    """Lower-case words without accents; every punctuation mark and every CJK ideograph is a word of its own."""
    spaced = "".join(f" {c} " if _stands_alone(c) else " " if c.isspace() else c for c in text if not _invisible(c))
    bare = "".join(c for c in unicodedata.normalize("NFD", spaced.lower()) if unicodedata.category(c) != "Mn")
    return bare.split()


def _invisible(character: str) -> bool:
    return character in "\0\ufffd" or (unicodedata.category(character)[0] == "C" and character not in "\t\n\r")


def _stands_alone(character: str) -> bool:
    code = ord(character)
    if 0x20 < code < 0x7F and not character.isalnum():  # also the ASCII symbols that Unicode does not call punctuation
        return True
    ideograph = 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or code >= 0x20000
    return unicodedata.category(character)[0] == "P" or (ideograph and code <= 0x2FA1F)
