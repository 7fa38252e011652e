"""Shapes and profiles as they are written on the command line."""

from __future__ import annotations

import pytest

from bessemer.cli.shapes import parse_profile, parse_shapes
from bessemer.core.errors import InputError


def test_shapes() -> None:
    assert parse_shapes(None) == parse_shapes("") == {}
    assert parse_shapes("x:1x3x224x224") == {"x": (1, 3, 224, 224)}
    assert parse_shapes("x:1x8,a:b:2,y:scalar") == {"x": (1, 8), "a:b": (2,), "y": ()}
    assert parse_shapes("x:0x3") == {"x": (0, 3)}
    assert parse_shapes("a,b:1x3,x=y:2,,c,d,e:4,") == {"a,b": (1, 3), "x=y": (2,), "c,d,e": (4,)}


@pytest.mark.parametrize("text", ["x", "x:", ":1x2", "x:1xx2", "x:-1x2", "x:1.5", "x:ax2", "1x3x224x224", "x:2,y"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(InputError, match="is not a shape") as caught:
        parse_shapes(text)
    assert caught.value.fix and "INPUT:1x3x224x224" in caught.value.fix


def test_an_input_has_one_shape() -> None:
    with pytest.raises(InputError, match="input 'x' is given two shapes"):
        parse_shapes("x:4x8,x:5x8")


def test_profiles() -> None:
    assert parse_profile(None, None, None) is None
    (profile,) = parse_profile("x:1x8", "x:4x8", "x:16x8") or []
    assert profile.inputs == {"x": ((1, 8), (4, 8), (16, 8))}
    (same,) = parse_profile(None, "x:4x8", None) or []
    assert same.inputs == {"x": ((4, 8), (4, 8), (4, 8))}
    (scalar,) = parse_profile(None, "s:scalar", "x:4") or []
    assert scalar.inputs == {"s": ((), (), ()), "x": ((4,), (4,), (4,))}
