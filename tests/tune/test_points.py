"""Points of a dynamic problem: they cover the range, and boxes take every shape exactly once."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate, sym
from bessemer.core.dimtext import parse
from bessemer.core.interval import INF, UNBOUNDED, Range
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Operand, Problem
from bessemer.tune.points import Box, corners, full_tiles, inside, merged, points_of, words
from tests.tune.fakes import problem

B, S = Range(1, 32, 8), Range(16, 512, 128, 8)


def _two(b: Range = B, s: Range = S) -> Problem:
    """A product of two computed matrices."""
    return replace(_rows(b, s), operands=tuple(replace(o, constant=False) for o in _rows(b, s).operands))


def _rows(b: Range, s: Range) -> Problem:
    """A product with weights."""
    return problem(sym("b") * sym("s"), b=b, s=s)


def test_static_problems_and_symbols_that_no_input_binds_have_one_point() -> None:
    assert [(p.problem, p.box) for p in points_of(problem(), {"b"}, 9)] == [(problem(), ())]
    assert len(points_of(_two(), set(), 9)) == 1
    assert len(points_of(_two(), {"b", "s"}, 1)) == 1


def test_two_symbols_share_the_limit_and_the_opt_shape_is_a_point() -> None:
    found = points_of(_two(), {"b", "s"}, 9)
    assert [tuple(r.opt for _, r in p.problem.ranges) for p in found] == list(
        itertools.product((1, 8, 32), (16, 128, 512))
    )
    assert found[4].problem is not None and found[4].problem.key == _two().key
    b, s = sym("b"), sym("s")
    assert found[0].box == ((b, 1, 2), (s, 16, 45)) and found[8].box == ((b, 17, 32), (s, 257, 512))


def test_rows_of_a_product_with_weights_are_one_size() -> None:
    found = points_of(_rows(Range(1, 32, 8), Range(16, 512, 128)), {"b", "s"}, 9)
    rows = [math.prod(r.typical for _, r in p.problem.ranges) for p in found]
    assert rows[:10] == [16, 32, 48, 64, 80, 96, 128, 192, 256, 320], "shapes of exactly so many rows"
    assert {512, 1024, 2048, 4096, 8192, 16384} <= set(rows) and all(n % 64 == 0 for n in rows[7:])
    assert max(b / a for a, b in itertools.pairwise(rows[3:])) <= 1.5
    odd = points_of(_rows(Range(1, 7, 3), Range(1, 1 << 16, 50)), {"b", "s"}, 9)
    rows_of_odd = [math.prod(r.typical for _, r in p.problem.ranges) for p in odd]
    assert rows_of_odd[0] == 1 and 150 in rows_of_odd and 7 << 16 in rows_of_odd and len(odd) <= 33
    for point, at in zip(found, rows, strict=True):
        ((size, low, high),) = point.box
        assert size == sym("b") * sym("s") and low <= at == high, "it serves what is smaller than its point"
    assert words(found[9].box, {"b": B, "s": S}) == "b*s 257 to 320"


def test_rows_of_a_normalisation_are_one_size_and_double() -> None:
    made = replace(_rows(B, Range(16, 512, 128)), op="layer_norm", attrs=(("axis", 1), ("mode", "layer")))
    found = points_of(made, {"b", "s"}, 9)
    assert [p.box[0][2] for p in found] == [1 << k for k in range(4, 15)]
    over_rows = replace(made, attrs=(("axis", 0), ("mode", "layer")))
    assert len(points_of(over_rows, {"b", "s"}, 9)[0].box) == 2, "the symbols are in what is summed"


def test_an_attention_has_more_points_along_its_keys_and_they_end_its_boxes() -> None:
    q = TensorType(dt.f16, (sym("b"), sym("s"), 12, 64))
    made = replace(_two(), op="attention", operands=(Operand(q),) * 3, attrs=(("layout", "BSHD"),), ranges=(
        ("b", B), ("s", Range(16, 512, 128))))  # fmt: skip
    found = points_of(made, {"b", "s"}, 9)
    assert sorted({p.box[1][1:] for p in found}) == [(16, 16), (17, 32), (33, 64), (65, 128), (129, 256), (257, 512)]
    assert sorted({p.box[0][1:] for p in found}) == [(1, 2), (3, 16), (17, 32)]
    alone = replace(made, ranges=(("b", Range(8, 8)), ("s", Range(16, 512, 128, 16))))
    assert [p.box[0][2] for p in points_of(alone, {"b", "s"}, 9)] == [16, 32, 64, 128, 256, 512]


def test_corners_are_the_ends_of_what_inputs_bind() -> None:
    both = [_rows(B, S), problem(sym("b") * 2, b=B)]
    ends = [{"b": b, "s": s} for b in (1, 32) for s in (16, 512)]
    assert corners(both, {"b", "s"}) == ends and corners(both, {"s"}) == [{"s": 16}, {"s": 512}]
    assert corners(both, ()) == corners([problem()], {"b"}) == []
    many = [problem(sym(name) * 2, **{name: Range(1, 9, 3)}) for name in "abcd"]
    assert corners(many, "abcd") == [dict.fromkeys("abcd", 1), dict.fromkeys("abcd", 9)]


def test_middles_are_multiples_and_near_values_are_not_split() -> None:
    one = problem(sym("s"), s=Range(16, 4096, 64, 16))
    values = [dict(p.problem.ranges)["s"].opt for p in points_of(one, {"s"}, 9)]
    assert values == sorted(set(values)) and {16, 64, 4096} <= set(values)  # type: ignore[type-var]
    assert all(v is not None and v % 16 == 0 for v in values) and len(values) < 9
    assert [dict(p.problem.ranges)["s"].opt for p in points_of(problem(sym("s"), s=Range(4, 6, 5)), {"s"}, 9)] == [
        4, 5, 6]  # fmt: skip


@pytest.mark.parametrize("r", [Range(1, UNBOUNDED), Range(1, UNBOUNDED, 100), Range(0, INF), Range(0, 7, 0)])
def test_open_and_empty_ends(r: Range) -> None:
    found = points_of(problem(sym("s"), s=r), {"s"}, 4)
    assert found[0].box[0][1] == r.lo and found[-1].box[0][2] == r.hi
    assert all((dict(p.problem.ranges)["s"].opt or 0) <= max(8 * r.typical, 7) for p in found)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_boxes_take_every_shape_once_merged_or_not(data: st.DataObject) -> None:
    def range_() -> Range:
        lo = data.draw(st.integers(0, 9))
        hi = lo + data.draw(st.integers(0, 24))
        return Range(lo, hi, data.draw(st.integers(lo, hi)))

    ranges = {"b": range_(), "s": range_()}
    made = data.draw(st.sampled_from((_two, _rows)))
    found = points_of(made(ranges["b"], ranges["s"]), set(ranges), data.draw(st.integers(1, 17)))
    whole = made(ranges["b"], ranges["s"])
    assert len({p.problem.key for p in found}) == len(found) and whole.key in {p.problem.key for p in found}
    boxes: dict[Box, int] = {p.box: data.draw(st.integers(0, 2)) for p in found}
    larger = merged(boxes)
    assert len(larger) <= len(boxes)
    for b, s in itertools.product(*(range(r.lo, r.hi + 1) for r in ranges.values())):
        env = {"b": b, "s": s}
        taken = [v for box, v in boxes.items() if evaluate(inside(box, ranges), env)]
        assert taken == [v for box, v in larger if evaluate(inside(box, ranges), env)] and len(taken) == 1


def test_equal_neighbours_become_one_box() -> None:
    boxes = {p.box: 1 for p in points_of(_two(), {"b", "s"}, 9)}
    assert merged(boxes) == [(((sym("b"), 1, 32), (sym("s"), 16, 512)), 1)]
    assert inside(merged(boxes)[0][0], {"b": B, "s": S}) == 1
    odd = {**boxes, next(iter(boxes)): 2}
    assert sorted(v for _, v in merged(odd)) == [1, 1, 2]


def test_the_dim_survives_being_written() -> None:
    when = inside(((sym("b"), 3, 16), (sym("s"), 16, 45)), {"b": B, "s": S}) * sym("b")
    assert parse(str(when)) == when
    assert [evaluate(when, {"b": b, "s": 16}) for b in (2, 3, 16, 17)] == [0, 3, 16, 0]


def test_tiles_above_a_point_are_counted_up_to_a_limit() -> None:
    assert list(full_tiles(17, 90)) == [32, 48, 64, 80] and list(full_tiles(65, 300)) == [128, 192, 256]
    assert len(full_tiles(1, 1 << 40)) == 1024, "the end of a range of two dims of which nothing is said"
