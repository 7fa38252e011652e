"""The text reader's parts on pictures whose answer is known, and the whole on a photographed page."""

from __future__ import annotations

import numpy as np
import pytest

from examples.boxes import components, find_boxes, grow, hull, reading_order, smallest_rectangle
from examples.ocr import Reader, character_errors, characters_of, ctc_decode, padded
from examples.pixels import cut, resize


def one_hot(classes: list[int], count: int = 4) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes]


def test_ctc_merges_repeats_and_drops_blanks() -> None:
    text, score = ctc_decode(one_hot([1, 1, 0, 1, 2, 2, 3, 0, 0, 3]), ["", "a", "b", " "])
    assert (text, score) == ("aab  ", 1.0)


def test_ctc_keeps_a_first_step_equal_to_the_last() -> None:
    assert ctc_decode(one_hot([1, 2, 1]), ["", "a", "b", " "])[0] == "aba"
    assert ctc_decode(one_hot([1]), ["", "a", "b", " "])[0] == "a"


def test_ctc_of_blanks_is_empty() -> None:
    assert ctc_decode(one_hot([0, 0]), ["", "a", "b", " "]) == ("", 0.0)


def test_components_join_diagonals_and_u_shapes() -> None:
    art = ["#.#..", "#.#.#", "###..", "...#.", "....."]
    found = components(np.array([[c == "#" for c in row] for row in art]))
    assert sorted(component.area for component in found) == [1, 8]


def test_components_agree_with_flood_fill() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((17, 23)) < 0.45
        assert sorted(component.area for component in components(mask)) == sorted(flood_areas(mask))


def flood_areas(mask: np.ndarray) -> list[int]:
    left = set(zip(*np.nonzero(mask), strict=True))
    areas = []
    while left:
        stack, area = [left.pop()], 0
        while stack:
            y, x = stack.pop()
            area += 1
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            stack += near
        areas.append(area)
    return areas


def test_hull_of_a_grid_is_its_corners() -> None:
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), axis=-1).reshape(-1, 2)
    assert {tuple(point) for point in hull(grid)} == {(0, 0), (3, 0), (3, 2), (0, 2)}


@pytest.mark.parametrize("degrees", (-30, -5, 0, 5, 30))
def test_smallest_rectangle_finds_a_turned_one(degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = np.array([[0, 0], [40, 0], [40, 10], [0, 10]]) @ turn + 50
    inner = np.random.default_rng(0).random((30, 2)) * [40, 10] @ turn + 50
    np.testing.assert_allclose(smallest_rectangle(np.concatenate([inner, corners])), corners, atol=1e-6)


def test_growth_moves_every_side() -> None:
    box = np.array([[10.0, 10], [30, 10], [30, 20], [10, 20]])
    np.testing.assert_allclose(grow(box, 2), [[8, 8], [32, 8], [32, 22], [8, 22]])


def test_boxes_of_a_probability_map() -> None:
    probability = np.zeros((100, 200), np.float32)
    probability[20:30, 20:120] = 0.9  # a line of text
    probability[60:70, 20:120] = 0.4  # too unsure
    probability[80:82, 150:152] = 0.9  # too small
    (box,) = find_boxes(probability)
    margin = 1.8 * 101 * 11 / (2 * (101 + 11)) * 1000 / 1110  # joining widens the mask by a pixel each way
    np.testing.assert_allclose(box.min(0), [20 - margin, 20 - margin], atol=1)
    np.testing.assert_allclose(box.max(0), [121 + margin, 31 + margin], atol=1)


def test_a_bent_line_is_kept() -> None:
    probability = np.zeros((120, 300), np.float32)
    for x in range(20, 280):
        middle = int(60 + 25 * np.sin(np.pi * (x - 20) / 260))
        probability[middle - 3 : middle + 3, x] = 0.95
    assert len(find_boxes(probability)) == 1


def test_reading_order_goes_by_lines() -> None:
    def box(x: float, y: float) -> np.ndarray:
        return np.array([[x, y], [x + 20, y], [x + 20, y + 10], [x, y + 10]])

    boxes = [box(60, 2), box(0, 40), box(0, 0), box(50, 39)]
    assert [tuple(b[0]) for b in reading_order(boxes)] == [(0, 0), (60, 2), (0, 40), (50, 39)]


def test_resize_keeps_constants_and_averages() -> None:
    assert np.allclose(resize(np.full((7, 5, 3), 9), 11, 13), 9)
    ramp = np.arange(8.0)[None, :, None]
    np.testing.assert_allclose(resize(ramp, 1, 16)[0, 1:-1, 0], np.arange(0.25, 7, 0.5), atol=1e-6)
    assert abs(float(resize(ramp, 1, 2).mean()) - 3.5) < 1e-6


def test_cut_takes_whole_pixels_exactly() -> None:
    picture = np.random.default_rng(0).random((20, 30, 3))
    quad = np.array([[4.0, 5], [14, 5], [14, 11], [4, 11]])
    np.testing.assert_allclose(cut(picture, quad, 6, 10), picture[5:11, 4:14], atol=1e-6)
    upside_down = np.roll(quad, 2, axis=0)
    np.testing.assert_allclose(cut(picture, upside_down, 6, 10), picture[5:11, 4:14][::-1, ::-1], atol=1e-6)


def test_cut_repeats_the_edge_outside() -> None:
    picture = np.arange(4.0).reshape(2, 2, 1)
    quad = np.array([[-2.0, 0], [0, 0], [0, 2], [-2, 2]])
    np.testing.assert_allclose(cut(picture, quad, 2, 2)[..., 0], [[0, 0], [2, 2]])


def test_lines_are_padded_with_grey_on_the_right() -> None:
    batch = padded([np.full((24, 50, 3), 255, np.float32), np.zeros((48, 400, 3), np.float32)], 320)
    assert batch.shape == (2, 3, 48, 320)
    assert np.allclose(batch[0, :, :, :100], 1) and (batch[0, :, :, 100:] == 0).all()
    assert np.allclose(batch[1], -1)


def test_a_line_on_its_head_is_turned() -> None:
    def classify(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert feed["x"].shape[0] <= 8
        dark_below = feed["x"][:, :, 24:].mean((1, 2, 3)) < feed["x"][:, :, :24].mean((1, 2, 3))
        return {"y": np.stack([1.0 - dark_below, dark_below], axis=1)}

    reader = Reader(classify, classify, classify, [""])
    crop = np.zeros((20, 300, 3), np.float32)
    crop[:10] = 255
    assert (reader.upright(crop)[10:] == 255).all()
    assert (reader.upright(crop[::-1]) == crop[::-1]).all()


def test_character_errors_fold_spaces_and_width() -> None:
    assert character_errors("Here，（x) y", "Here,(x)y") == 0
    assert character_errors("kitten", "sitting") == 3
    assert character_errors("", "abc") == 3


@pytest.mark.download
def test_reads_the_page() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("PIL")
    from examples.running import with_onnxruntime
    from zoo.data import PAGE_TEXT, page
    from zoo.models import MODELS

    detect, classify, recognise = (with_onnxruntime(MODELS[key].path()) for key in ("a1-det", "a1-cls", "a1-rec"))
    reader = Reader(detect, classify, recognise, characters_of(MODELS["a1-rec"].path()))
    lines = reader.read(page())
    assert len(lines) == len(PAGE_TEXT)
    assert character_errors("".join(line.text for line in lines), "".join(PAGE_TEXT)) <= 5
    turned = reader.read(np.ascontiguousarray(page()[::-1, ::-1]))
    assert character_errors("".join(line.text for line in turned[::-1]), "".join(PAGE_TEXT)) <= 5
