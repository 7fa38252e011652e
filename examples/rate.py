"""Rates photos: how unfit for work (Open NSFW), and what they show (MobileNetV2).

    python -m examples.rate [PICTURE ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.pixels import Floats, resize
from examples.running import Run, only

BGR_MEAN = np.array([104, 117, 123], np.float32)
RGB_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
RGB_STD = np.array([0.229, 0.224, 0.225], np.float32)


def centre(picture: Floats, size: int = 224) -> Floats:
    """The middle [size, size, channels] of a picture."""
    top, left = ((side - size) // 2 for side in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def nsfw_input(picture: NDArray[np.uint8]) -> Floats:
    """[224, 224, 3]: squeezed to 256 x 256, centre, blue first, less the training set's mean.

    The original code also saves and reloads a JPEG before the mean, which shifts the 20 photos by up to 0.014.
    """
    return np.ascontiguousarray(centre(resize(picture, 256, 256))[..., ::-1] - BGR_MEAN)


def imagenet_input(picture: NDArray[np.uint8]) -> Floats:
    """[3, 224, 224]: short side to 256, centre, per-channel mean and deviation."""
    height, width = picture.shape[:2]
    scale = 256 / min(height, width)
    unit = centre(resize(picture, round(height * scale), round(width * scale))) / 255
    return np.ascontiguousarray(((unit - RGB_MEAN) / RGB_STD).transpose(2, 0, 1))


def rate(run: Run, input_name: str, picture: NDArray[np.uint8]) -> float:
    """Probability from 0 (fit for work) to 1, by either export of Open NSFW; their input's name differs."""
    return float(only(run({input_name: nsfw_input(picture)[None]}))[0, 1])


def classify(run: Run, picture: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The ImageNet classes, likeliest first."""
    return np.argsort(-only(run({"x": imagenet_input(picture)[None]}))[0], kind="stable")


def main() -> None:
    from examples.running import with_onnxruntime
    from zoo.data import Photo, photos, read_image
    from zoo.export import ExportError
    from zoo.models import MODELS

    labelled = not sys.argv[1:]
    chosen = photos() if labelled else [Photo(name, -1, read_image(Path(name))) for name in sys.argv[1:]]
    rating = with_onnxruntime(MODELS["d1-a"].path())
    scores = [rate(rating, "input:0", photo.pixels) for photo in chosen]
    try:
        classifier = with_onnxruntime(MODELS["d0"].path())
    except ExportError as error:
        print(f"no classes: {error}")
        guesses = ["-"] * len(chosen)
    else:
        classes = [int(classify(classifier, photo.pixels)[0]) for photo in chosen]
        guesses = [str(guess) for guess in classes]
        if labelled:
            right = sum(guess == photo.label for guess, photo in zip(classes, chosen, strict=True))
            print(f"class right on {right} of {len(chosen)} photos")
    for score, guess, photo in zip(scores, guesses, chosen, strict=True):
        print(f"{score:.4f}  class {guess:>3}  {photo.name}")


if __name__ == "__main__":
    main()
