"""From a text detector's probability map to boxes: components, smallest rectangles, growth, reading order.

Boxes are [4, 2] arrays: x and y of the top left, top right, bottom right and bottom left corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = NDArray[np.float64]


@dataclass(frozen=True)
class Component:
    """Pixels that touch, as runs: columns begins[i] up to, not including, ends[i] of row rows[i]."""

    rows: NDArray[np.intp]
    begins: NDArray[np.intp]
    ends: NDArray[np.intp]

    @property
    def area(self) -> int:
        return int((self.ends - self.begins).sum())

    def corners(self) -> NDArray[np.float64]:
        """[n, 2] x and y of the runs' corners; one pixel gives those of a unit square."""
        across = np.concatenate([self.begins, self.ends, self.begins, self.ends])
        down = np.concatenate([self.rows, self.rows, self.rows + 1, self.rows + 1])
        return np.stack([across, down], axis=1).astype(np.float64)

    def mean(self, values: NDArray[np.float32]) -> float:
        """Mean of a [height, width] map over the pixels."""
        runs = zip(self.rows, self.begins, self.ends, strict=True)
        return float(sum(values[row, begin:end].sum() for row, begin, end in runs) / self.area)


def find_boxes(
    probability: NDArray[np.float32], threshold: float = 0.3, keep: float = 0.5, growth: float = 1.8
) -> list[Box]:
    """Boxes of text in a [height, width] map of probabilities, in its pixels.

    Pixels above `threshold` that touch make one box; a box whose mean probability is below `keep` is dropped. The
    detector is trained on shrunken text, so a box grows on every side by `growth` times the pixels' area over the
    box's perimeter. The mean and the area are those of the pixels, not of the box, which a curved line fills badly.
    """
    mask = probability > threshold
    mask[1:, 1:] |= mask[:-1, :-1] | mask[1:, :-1] | mask[:-1, 1:]  # joins strokes that are one pixel apart
    found = []
    for component in components(mask):
        box = smallest_rectangle(component.corners())
        width, height = (float(np.linalg.norm(box[i] - box[0])) for i in (1, 3))
        if min(width, height) >= 3 and component.mean(probability) >= keep:
            found.append(grow(box, growth * component.area / (2 * (width + height))))
    return found


def components(mask: NDArray[np.bool_]) -> list[Component]:
    """The 8-connected components of a [height, width] mask."""
    height, _ = mask.shape
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, begins = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    first = np.searchsorted(rows, np.arange(height + 1))
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for row in range(1, height):
        upper, lower = first[row - 1], first[row]
        while upper < first[row] and lower < first[row + 1]:
            if begins[upper] <= ends[lower] and begins[lower] <= ends[upper]:
                parent[root(lower)] = root(upper)
            if ends[upper] < ends[lower]:
                upper += 1
            else:
                lower += 1

    members: dict[int, list[int]] = {}
    for run in range(len(rows)):
        members.setdefault(root(run), []).append(run)
    return [Component(rows[runs], begins[runs], ends[runs]) for runs in members.values()]


def hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The convex hull of [n, 2] points, in order of rotation, without collinear points."""
    ordered = sorted(set(map(tuple, points.tolist())))
    half: list[list[Any]] = []
    for sequence in (ordered, ordered[::-1]):
        chain: list[Any] = []
        for point in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        half.append(chain[:-1])
    return np.array(half[0] + half[1] or ordered)


def _turn(a: Any, b: Any, c: Any) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def smallest_rectangle(points: NDArray[np.float64]) -> Box:
    """The rectangle of least area around [n, 2] points; one of its sides lies along a side of their hull."""
    corners = hull(points)
    sides = np.roll(corners, -1, axis=0) - corners
    angles = np.unique(np.round(np.arctan2(sides[:, 1], sides[:, 0]) % (np.pi / 2), 9))
    best, area = None, np.inf
    for angle in angles:
        axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        turned = corners @ axes.T
        low, high = turned.min(0), turned.max(0)
        size = float(np.prod(high - low))
        if size < area - 1e-9:
            area = size
            best = np.array([low, (high[0], low[1]), high, (low[0], high[1])]) @ axes
    assert best is not None, "a hull has at least one side"
    return in_order(best)


def in_order(box: Box) -> Box:
    """Rotate the corners so that the first is the top left one: the text's own up is nearest to the picture's."""
    tilt = [abs(np.arctan2(*(box[(i + 1) % 4] - box[i])[::-1])) for i in range(4)]
    return np.roll(box, -int(np.argmin(tilt)), axis=0)


def grow(box: Box, distance: float) -> Box:
    """Move every side of a rectangle outwards by `distance`."""
    across = (box[1] - box[0]) / np.linalg.norm(box[1] - box[0]) * distance
    down = (box[3] - box[0]) / np.linalg.norm(box[3] - box[0]) * distance
    return np.asarray(box + np.array([-across - down, across - down, across + down, -across + down]))


def reading_order(boxes: list[Box]) -> list[Box]:
    """Top to bottom, and within a line from left to right; one line's centres differ by under half a box's height."""
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda b: float(b[:, 1].mean())):
        height = np.linalg.norm(box[3] - box[0])
        if lines and abs(box[:, 1].mean() - lines[-1][-1][:, 1].mean()) < height / 2:
            lines[-1].append(box)
        else:
            lines.append([box])
    return [box for line in lines for box in sorted(line, key=lambda b: float(b[:, 0].mean()))]
