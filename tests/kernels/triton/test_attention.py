"""Attention against float64: layouts, masks of every broadcast, causality, shared heads, odd and symbolic sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir.graph import TensorType
from bessemer.kernels.triton.attention import Attention
from tests.kernels.triton.problems import RNG, Array, Case, case, check, compiles, first, normal, reason, symbolic

pytestmark = [pytest.mark.triton, pytest.mark.torch]

TILE = {"bm": 16, "bn": 16, "stages": 2, "warps": 4}


def attention(
    sizes: tuple[int, int, int, int], dtype: DType = dt.f32, d: int = 16, dv: int = 16, layout: str = "BHSD",
    mask: Array | None = None, mask_dtype: DType | None = None, causal: bool = False, kv_heads: int | None = None,
) -> Case:  # fmt: skip
    """sizes: batch, heads, queries, keys."""
    batch, heads, s, t = sizes
    few = kv_heads or heads
    q, k, v = normal((batch, heads, s, d), dtype), normal((batch, few, t, d), dtype), normal((batch, few, t, dv), dtype)
    wide = [np.repeat(a, heads // few, 1).astype(np.float64) for a in (k, v)]
    scale = d**-0.5
    x = q.astype(np.float64) @ np.swapaxes(wide[0], -1, -2) * scale
    if mask is not None:
        x = np.where(mask, x, -np.inf) if mask.dtype == np.bool_ else x + mask
    if causal:
        x = np.where(np.tri(s, t, t - s, dtype=bool), x, -np.inf)
    top = x.max(-1, keepdims=True)
    p = np.exp(x - np.where(np.isinf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    want = p / np.where(total == 0, 1, total) @ wide[1]
    arrays = [q, k, v]
    if layout == "BSHD":
        arrays, want = [np.ascontiguousarray(np.swapaxes(a, 1, 2)) for a in arrays], np.swapaxes(want, 1, 2)
    attrs: dict[str, Any] = {"layout": layout, "causal": causal, "scale": scale, "has_mask": mask is not None}
    kinds = {} if mask is None else {3: mask_dtype or dtype}
    return case("attention", arrays + ([] if mask is None else [mask]), [want], dtype, attrs, dtypes=kinds)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f16])
@pytest.mark.parametrize("layout", ["BHSD", "BSHD"])
def test_layouts_and_odd_sizes(dtype: DType, layout: str) -> None:
    c = attention((2, 3, 33, 21), dtype, d=24, dv=20, layout=layout)
    check(Attention(), c, TILE)
    check(Attention(), c)


@pytest.mark.parametrize("shape", [(2, 1, 1, 21), (2, 3, 17, 21), (17, 21), (1, 3, 17, 1)])
def test_masks_broadcast(shape: tuple[int, ...]) -> None:
    check(Attention(), attention((2, 3, 17, 21), mask=normal(shape)), TILE)


def test_a_mask_of_the_least_float_and_a_row_that_is_masked_entirely() -> None:
    least = np.where(RNG.random((2, 1, 1, 21)) < 0.5, np.float32(0), np.finfo(np.float32).min)
    least[0] = np.finfo(np.float32).min
    check(Attention(), attention((2, 2, 17, 21), dt.f16, mask=least, mask_dtype=dt.f32), TILE)
    keep = RNG.random((1, 1, 17, 21)) < 0.6
    keep[0, 0, 3] = False
    check(Attention(), attention((2, 2, 17, 21), mask=keep, mask_dtype=dt.bool_), TILE)


def test_causality_and_shared_heads() -> None:
    check(Attention(), attention((1, 4, 40, 40), dt.f16, causal=True, kv_heads=2), TILE)


@pytest.mark.parametrize("lengths", [(4, 7), (10, 40), (40, 10)], ids=str)
def test_the_last_query_sees_the_last_key(lengths: tuple[int, int]) -> None:
    """And with more queries than keys the first see none, which gives zeros."""
    check(Attention(), attention((1, 2, *lengths), causal=True, layout="BSHD"), TILE)


def test_symbolic_lengths() -> None:
    s = sym("s")
    shape = (1, 2, s, 16)
    c = symbolic(attention((1, 2, 19, 19)), {0: shape, 1: shape, 2: shape}, shape, {"s": Range(1, 64, 32)})
    check(Attention(), c, TILE, {"s": 19})


def test_reasons() -> None:
    assert "at most 256" in reason(Attention(), attention((1, 1, 2, 2), d=300).problem)
    c = attention((1, 1, 2, 3), mask=normal((1, 1, 2, 3)))
    wrong = replace(c.problem.operands[3], type=TensorType(dt.f32, (1, 1, 3, 3)))
    assert "does not broadcast" in reason(Attention(), replace(c.problem, operands=(*c.problem.operands[:3], wrong)))


def test_compiles_for_every_architecture() -> None:
    long, short = attention((1, 2, 128, 128), dt.f16, 64, 64).problem, attention((1, 2, 9, 9), dt.bf16, 64, 64).problem
    masked = attention((1, 2, 128, 77), dt.f16, 40, 40, "BSHD", normal((1, 1, 1, 77), dt.f16)).problem
    compiles(Attention(), [long, short, masked, attention((1, 2, 64, 64), dt.f32, 64, 64).problem], first)
