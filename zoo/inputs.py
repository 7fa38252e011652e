"""Synthetic inputs that keep a trained network in the range it was trained for.

White noise leaves a text detector at zero everywhere and a speech detector without speech, and a relative error
measured there says nothing. All functions take a numpy Generator and return C-contiguous arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# The digits 0 to 9, 5 columns by 7 rows, one row of 5 bits a number.
_DIGITS = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)


def photo(rng: np.random.Generator, batch: int, height: int, width: int) -> Floats:
    """[batch, 3, height, width], 0..255: octaves of smooth noise, the spectrum of a natural picture."""
    picture = np.zeros((batch, 3, height, width), np.float32)
    cells = 3
    while cells <= max(height, width):
        coarse = rng.standard_normal((batch, 3, cells, cells)).astype(np.float32)
        picture += _enlarge(coarse, height, width) * np.float32(60 * (3 / cells) ** 0.8)
        cells *= 2
    return np.clip(picture + 118, 0, 255)


def page(rng: np.random.Generator, batch: int, height: int, width: int, line_height: int = 40) -> Floats:
    """[batch, 3, height, width], 0..255: lines of dark digits on light, unevenly lit paper."""
    ink = np.zeros((batch, height, width), np.float32)
    for sheet in ink:
        for top in range(0, height - line_height + 1, line_height):
            sheet[top : top + line_height] = _digits_line(rng, line_height, width)
    light = photo(rng, batch, height, width)[:, 0] / 255 * 40 + 200
    grey = light * (1 - 0.85 * ink) + rng.normal(0, 3, ink.shape).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(np.clip(grey, 0, 255)[:, None], (batch, 3, height, width)))


def tokens(rng: np.random.Generator, batch: int, length: int) -> dict[str, NDArray[np.int64]]:
    """Token ids, mask and type ids, [batch, length] int64 each, of sentences in BERT's uncased vocabulary.

    The first sentence fills the row, the others are shorter and padded.
    """
    ids = rng.integers(1996, 20_000, (batch, length))
    ends = np.concatenate([[length], rng.integers(max(2, length // 3), length + 1, batch - 1)])
    mask = (np.arange(length) < ends[:, None]).astype(np.int64)
    ids[:, 0] = 101
    ids[np.arange(batch), ends - 1] = 102
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def voice(rng: np.random.Generator, batch: int, samples: int, rate: int) -> Floats:
    """[batch, samples], -1..1: a buzzing vowel with a little breath, `rate` samples a second."""
    time = np.arange(samples) / rate
    sound = rng.normal(0, 0.01, (batch, samples))
    for row, pitch in zip(sound, rng.uniform(90, 240, batch), strict=True):
        for harmonic in range(1, int(3500 / pitch)):
            formants = sum(np.exp(-(((harmonic * pitch - f) / 200) ** 2)) for f in (500, 1500, 2500))
            row += 0.15 * (0.05 + formants) * np.sin(2 * np.pi * harmonic * pitch * time + rng.uniform(0, 6.28))
    return np.clip(sound, -1, 1).astype(np.float32)


def file_ends(rng: np.random.Generator, batch: int) -> NDArray[np.int32]:
    """[batch, 2048], 0..256: first and last 1024 bytes of files, by turns text and binary; 256 pads a short one."""
    rows = np.empty((batch, 2048), np.int32)
    words = (b"def ", b"return ", b"import ", b"self.", b"(x, y)", b":\n    ", b"= 0\n", b"for ", b"in ", b"range(")
    for index, row in enumerate(rows):
        size = int(rng.integers(200, 4000))
        picks = rng.integers(0, len(words), size)
        data = rng.bytes(size) if index % 2 else b"".join(words[pick] for pick in picks)[:size].strip()
        head = np.frombuffer(data[:1024], np.uint8)
        tail = np.frombuffer(data[-1024:], np.uint8)
        row[:] = 256
        row[: head.size] = head
        row[2048 - tail.size :] = tail
    return rows


def _enlarge(coarse: Floats, height: int, width: int) -> Floats:
    """Bilinear, corners aligned, on the last two axes."""
    columns = _hat_weights(coarse.shape[-1], width)
    rows = _hat_weights(coarse.shape[-2], height)
    return np.asarray(rows.T @ (coarse @ columns), np.float32)


def _hat_weights(cells: int, size: int) -> Floats:
    position = np.linspace(0, cells - 1, size, dtype=np.float32)
    return np.asarray(np.maximum(0, 1 - np.abs(position - np.arange(cells, dtype=np.float32)[:, None])), np.float32)


def _digits_line(rng: np.random.Generator, height: int, width: int) -> Floats:
    """[height, width], 0..1: one line of digits with blanks between groups."""
    scale = max(1, height // 12)
    count = width // (6 * scale) - 1
    line = np.zeros((height, width), np.float32)
    top = (height - 7 * scale) // 2
    for index in range(count):
        if rng.random() < 0.15:
            continue
        bits = np.array(_DIGITS[int(rng.integers(10))])
        glyph = (bits[:, None] >> np.arange(4, -1, -1)) & 1
        left = scale * (3 + 6 * index)
        line[top : top + 7 * scale, left : left + 5 * scale] = np.kron(glyph, np.ones((scale, scale)))
    return line
