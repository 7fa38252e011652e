"""Reads the text of a picture: detector, direction classifier and recogniser of PP-OCRv4.

    python -m examples.ocr [PICTURE]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from examples.boxes import Box, find_boxes, reading_order
from examples.pixels import Floats, cut, resize
from examples.running import Run, only

SHORT_SIDE = 736  # a smaller picture is enlarged to this for the detector
LINE_HEIGHT = 48
LINE_WIDTH = 320  # the recogniser's least width; longer lines are wider in steps of WIDTH_STEP
WIDTH_STEP = 32
CLASSIFIER_WIDTH = 192
PIECES = 8  # of a line, at most, that the classifier sees
BATCH = 6
READABLE = 0.5  # least score of a line that is not taken for a smudge


@dataclass(frozen=True)
class Line:
    """One line of text; `score` is the mean probability of its characters."""

    text: str
    score: float
    box: Box  # in pixels of the picture


@dataclass(frozen=True)
class Reader:
    """The three networks and the recogniser's characters, by class: the first is CTC's blank."""

    detect: Run
    classify: Run
    recognise: Run
    characters: Sequence[str]

    def read(self, picture: NDArray[np.uint8]) -> list[Line]:
        """The lines of a [height, width, 3] picture in reading order; what cannot be read is left out."""
        boxes = self.boxes(picture)
        crops = [self.upright(crop_line(picture, box)) for box in boxes]
        texts = self.texts(crops)
        lines = [Line(text, score, box) for (text, score), box in zip(texts, boxes, strict=True)]
        return [line for line in lines if line.score >= READABLE]

    def boxes(self, picture: NDArray[np.uint8]) -> list[Box]:
        """Boxes of text in reading order, in pixels of the picture."""
        height, width = picture.shape[:2]
        scale = max(1.0, SHORT_SIDE / min(height, width))
        tall, wide = (max(32, 32 * round(side * scale / 32)) for side in (height, width))
        probability = only(self.detect({"x": centred(resize(picture, tall, wide))[None]}))[0, 0]
        shrink = np.array([width / wide, height / tall])
        return reading_order([box * shrink for box in find_boxes(probability)])

    def upright(self, crop: Floats) -> Floats:
        """The line, turned by 180 degrees when the classifier sees it on its head.

        It looks at pieces of the proportions it was trained on, spread over the line; a long line squeezed into one
        picture misleads it.
        """
        height, width = crop.shape[:2]
        piece = height * CLASSIFIER_WIDTH // LINE_HEIGHT
        count = min(PIECES, -(-width // piece))
        begins = np.linspace(0, max(0, width - piece), count).astype(int)
        pieces = padded([crop[:, begin : begin + piece] for begin in begins], CLASSIFIER_WIDTH)
        upside_down = only(self.classify({"x": pieces}))[:, 1].mean()
        return crop[::-1, ::-1] if upside_down > 0.6 else crop

    def texts(self, crops: Sequence[Floats]) -> list[tuple[str, float]]:
        """Text and score of each line; lines of like length share a batch."""
        found: list[tuple[str, float]] = [("", 0.0)] * len(crops)
        order = sorted(range(len(crops)), key=lambda i: crops[i].shape[1] / crops[i].shape[0])
        for begin in range(0, len(order), BATCH):
            batch = order[begin : begin + BATCH]
            longest = max(line_width(crops[i]) for i in batch)
            width = max(LINE_WIDTH, -(-longest // WIDTH_STEP) * WIDTH_STEP)
            probabilities = only(self.recognise({"x": padded([crops[i] for i in batch], width)}))
            for i, rows in zip(batch, probabilities, strict=True):
                found[i] = ctc_decode(rows, self.characters)
        return found


def characters_of(model: Path) -> list[str]:
    """The recogniser's classes from its ONNX metadata: the blank, the dictionary's characters, the space."""
    metadata = {entry.key: entry.value for entry in onnx.load(model, load_external_data=False).metadata_props}
    if "character" not in metadata:
        raise ValueError(f"{model} has no metadata entry 'character'; it is not a recogniser of this family")
    return ["", *metadata["character"].splitlines(), " "]


def ctc_decode(probabilities: NDArray[np.float32], characters: Sequence[str]) -> tuple[str, float]:
    """Best path of [steps, classes]: the likeliest class of each step, repeats merged, blanks (class 0) dropped."""
    best = probabilities.argmax(1)
    fresh = (best != 0) & (best != np.roll(best, 1))
    fresh[:1] = best[:1] != 0
    if not fresh.any():
        return "", 0.0
    return "".join(characters[i] for i in best[fresh]), float(probabilities.max(1)[fresh].mean())


def crop_line(picture: NDArray[np.uint8], box: Box) -> Floats:
    """The box's pixels as [height, width, 3]; a tall one is turned to lie down."""
    width, height = (max(1, round(float(np.linalg.norm(box[i] - box[0])))) for i in (1, 3))
    crop = cut(picture, box, height, width)
    return np.rot90(crop) if height >= 1.5 * width else crop


def line_width(crop: Floats) -> int:
    """Width of a line at the recogniser's height."""
    height, width = crop.shape[:2]
    return max(1, int(LINE_HEIGHT * width / height + 0.5))


def padded(crops: Sequence[Floats], width: int) -> Floats:
    """[batch, 3, 48, width]: lines at the recogniser's height, on the left of grey; a longer one is squeezed."""
    batch = np.zeros((len(crops), 3, LINE_HEIGHT, width), np.float32)
    for row, crop in zip(batch, crops, strict=True):
        fits = min(width, line_width(crop))
        row[:, :, :fits] = centred(resize(crop, LINE_HEIGHT, fits))
    return batch


def centred(picture: NDArray[Any]) -> Floats:
    """[h, w, 3] of 0..255 to [3, h, w] of -1..1."""
    return np.asarray(picture.transpose(2, 0, 1) / np.float32(127.5) - 1, np.float32)


def character_errors(found: str, expected: str) -> int:
    """Edit distance (characters to insert, delete or replace) without spaces, full-width forms as plain ones."""
    mine, theirs = ("".join(unicodedata.normalize("NFKC", text).split()) for text in (found, expected))
    costs = list(range(len(theirs) + 1))
    for i, a in enumerate(mine, 1):
        diagonal, costs[0] = costs[0], i
        for j, b in enumerate(theirs, 1):
            diagonal, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, diagonal + (a != b))
    return costs[-1]


def main() -> None:
    import sys

    from examples.running import with_onnxruntime
    from zoo.data import page, read_image
    from zoo.models import MODELS

    picture = read_image(Path(sys.argv[1])) if len(sys.argv) > 1 else page()
    paths = {key: MODELS[key].path() for key in ("a1-det", "a1-cls", "a1-rec")}
    detect, classify, recognise = (with_onnxruntime(path) for path in paths.values())
    for line in Reader(detect, classify, recognise, characters_of(paths["a1-rec"])).read(picture):
        print(f"{line.score:.2f}  {line.text}")


if __name__ == "__main__":
    main()
