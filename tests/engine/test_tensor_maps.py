"""Tensor maps in a program: through JSON, at a shape, and each rule that the verifier has for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.errors import EngineFormatError
from bessemer.core.tensor_map import BITS, TensorMap, Window
from bessemer.engine.program import Arg, Program, from_json, to_json
from bessemer.engine.verify import verify
from tests.engine.engines import N, step, tensor

TILES = TensorMap((4, N), (16,), (4, 8), 0)  # of tensor 0, f32 [n, 4]
PIXELS = TensorMap((4, 1, N, 1), (16, 16, 16 * N), (4, 64), 0, Window((-1, -1), (-1, 0), (1, 2)))


def mapped(m: TensorMap | None = TILES, value: Any = 0, bits: int = BITS) -> Program:
    """The program whose first step passes that map alone."""
    return step(0, args=(Arg("map", value, bits, m),))


def changed(m: TensorMap = TILES, **changes: Any) -> Program:
    return mapped(replace(m, **changes))


@pytest.mark.parametrize("m", [TILES, PIXELS])
def test_maps_survive_the_file(m: TensorMap) -> None:
    verify(mapped(m), 2, 70)
    assert from_json(json.loads(canon.dumps(to_json(mapped(m))))) == mapped(m)


def test_maps_at_a_shape() -> None:
    assert PIXELS.at({"n": 5}) == replace(PIXELS, dims=(4, 1, 5, 1), strides=(16, 16, 80))
    assert PIXELS.extent(4) == 16 * N


def window(**changes: Any) -> Program:
    assert PIXELS.window is not None
    return changed(PIXELS, window=replace(PIXELS.window, **changes))


BROKEN: dict[str, tuple[Program, str]] = {
    "a stranger": (mapped(value=5), "maps tensor 5, which it neither reads nor writes"),
    "no map": (mapped(None), "no tensor map of 1024 bits"),
    "other bits": (mapped(bits=64), "no tensor map of 1024 bits"),
    "a map elsewhere": (step(0, args=(Arg("tensor", 0, 64, TILES),)), "a tensor map for an argument of kind 'tensor'"),
    "bools": (replace(tensor(0, dtype=dt.bool_), steps=mapped().steps), "no tensor map .* of bool"),
    "unknown symbol": (changed(dims=(4, sym("m"))), "unknown symbols"),
    "too many strides": (changed(strides=(16, 16)), "2 dims, 2 strides and a box of 2"),
    "a box without its rank": (changed(box=(4,)), "a box of 1"),
    "a window in a matrix": (changed(window=PIXELS.window), "2 dims"),
    "no dims": (changed(dims=(), strides=(), box=()), "0 dims"),
    "an empty dim": (changed(dims=(0, N)), "has dims"),
    "a negative dim": (changed(dims=(4, N - 9)), "has dims"),
    "a large dim": (changed(dims=(4, N * (1 << 31))), "has dims"),
    "an odd stride": (changed(strides=(8,)), "multiples of 16"),
    "a large stride": (changed(strides=(N * (1 << 38),)), r"below 2\^40"),
    "an empty box": (changed(box=(4, 0)), r"a box of \[4, 0\]"),
    "a large box": (changed(box=(4, 257)), r"a box of \[4, 257\]"),
    "many pixels": (changed(PIXELS, box=(4, 1025)), "a box of"),
    "odd rows": (changed(box=(3, 8)), "rows of 12 bytes"),
    "rows longer than their swizzle": (changed(box=(16, 8), swizzle=32), "rows of 64 bytes, swizzled in 32"),
    "an unknown swizzle": (changed(swizzle=16), "swizzled in 16"),
    "beyond the tensor": (changed(dims=(4, N + 1)), "reaches over"),
    "far rows": (changed(strides=(32,)), "reaches over"),
    "a far corner": (window(lower=(-129, 0)), "impossible Window"),
    "a corner too few": (window(upper=(0,)), "impossible Window"),
    "long steps": (window(steps=(9, 1)), "impossible Window"),
    "no steps": (window(steps=(0, 1)), "impossible Window"),
}  # fmt: skip


@pytest.mark.parametrize("broken,message", BROKEN.values(), ids=BROKEN)
def test_broken_rules(broken: Program, message: str) -> None:
    with pytest.raises(EngineFormatError, match=message):
        verify(broken, 2, 70)
