"""Resampling of pictures in numpy. Pixel centres lie at half-integers of the picture's extent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def resize(picture: NDArray[Any], height: int, width: int) -> Floats:
    """[h, w, channels] -> [height, width, channels], bilinear; when shrinking, averaged over the covered pixels."""
    rows = _tent(picture.shape[0], height)
    columns = _tent(picture.shape[1], width)
    return np.asarray(np.einsum("yh,hwc,xw->yxc", rows, picture.astype(np.float32), columns, optimize=True))


def _tent(inside: int, outside: int) -> Floats:
    """[outside, inside] weights: a tent as wide as the larger of the two pixel sizes, each row with sum 1."""
    step = inside / outside
    centres = (np.arange(outside) + 0.5) * step - 0.5
    distance = np.abs(np.arange(inside) - centres[:, None]) / max(1.0, step)
    weights = np.maximum(0, 1 - distance)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def cut(picture: NDArray[Any], quad: NDArray[Any], height: int, width: int) -> Floats:
    """The parallelogram `quad` of a [h, w, channels] picture as [height, width, channels], bilinear.

    `quad` is [4, 2]: x and y of the top left, top right, bottom right and bottom left corner, in pixels of the
    picture's extent. What lies outside repeats the edge.
    """
    across = (np.arange(width) + 0.5)[None, :, None] / width * (quad[1] - quad[0])
    down = (np.arange(height) + 0.5)[:, None, None] / height * (quad[3] - quad[0])
    place = quad[0] + across + down - 0.5
    limits = np.array([picture.shape[1], picture.shape[0]]) - 1
    place = np.clip(place, 0, limits)
    low = np.minimum(np.floor(place).astype(np.intp), np.maximum(limits - 1, 0))
    part = (place - low).astype(np.float32)
    high = np.minimum(low + 1, limits)
    (x0, y0), (x1, y1) = np.moveaxis(low, -1, 0), np.moveaxis(high, -1, 0)
    fx, fy = part[..., :1], part[..., 1:]
    top = picture[y0, x0] * (1 - fx) + picture[y0, x1] * fx
    bottom = picture[y1, x0] * (1 - fx) + picture[y1, x1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, np.float32)
