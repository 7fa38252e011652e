"""Attention on the GPU against float64: every configuration at networks' sizes, masks, causality, symbolic lengths."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Tactic
from bessemer.kernels.cuda.attention import CudaAttention
from bessemer.kernels.cuda.attention_whole import CudaAttentionWhole
from tests.kernels.cuda.test_skinny_gpu import check
from tests.kernels.triton.problems import RNG, normal, symbolic
from tests.kernels.triton.test_attention import attention

pytestmark = pytest.mark.gpu

TACTICS = [CudaAttention(), CudaAttentionWhole()]
tactics = pytest.mark.parametrize("tactic", TACTICS, ids=lambda t: t.name)


@tactics
@pytest.mark.parametrize("length", [128, 197, 384])
def test_every_configuration(tactic: Tactic, length: int) -> None:
    check(tactic, attention((2, 12, length, length), dt.f16, 64, 64, "BSHD"), configs=1000)


@tactics
@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize("d,layout", [(32, "BHSD"), (64, "BHSD"), (128, "BSHD")])
def test_heads_and_layouts(tactic: Tactic, dtype: DType, d: int, layout: str) -> None:
    check(tactic, attention((2, 3, 150, 109), dtype, d, d, layout))


@tactics
@pytest.mark.parametrize("shape", [(2, 1, 1, 109), (1, 2, 150, 109), (150, 1), (2, 1, 1, 1)], ids=str)
def test_masks_broadcast(tactic: Tactic, shape: tuple[int, ...]) -> None:
    check(tactic, attention((2, 2, 150, 109), dt.f16, 32, 32, mask=normal(shape), mask_dtype=dt.f32))


@tactics
def test_rows_that_are_masked_entirely(tactic: Tactic) -> None:
    least = np.where(RNG.random((2, 1, 1, 109)) < 0.5, np.float32(0), np.finfo(np.float32).min)
    least[0] = np.finfo(np.float32).min
    check(tactic, attention((2, 2, 70, 109), dt.f16, 64, 64, mask=least, mask_dtype=dt.f32))
    keep = RNG.random((1, 1, 70, 109)) < 0.6
    keep[0, 0, 3] = False
    check(tactic, attention((1, 2, 70, 109), dt.f16, 64, 64, mask=keep, mask_dtype=dt.bool_))


@tactics
def test_causality_and_shared_heads(tactic: Tactic) -> None:
    check(tactic, attention((1, 4, 300, 300), dt.f16, 64, 64, causal=True, kv_heads=2))


@tactics
@pytest.mark.parametrize("lengths", [(70, 300), (300, 70)], ids=str)
def test_the_last_query_sees_the_last_key(tactic: Tactic, lengths: tuple[int, int]) -> None:
    check(tactic, attention((1, 2, *lengths), dt.f16, 64, 64, causal=True))


@tactics
@pytest.mark.parametrize("length", [1, 100, 256])
def test_symbolic_lengths(tactic: Tactic, length: int) -> None:
    s = sym("s")
    shape = (1, 2, s, 64)
    c = attention((1, 2, length, length), dt.f16, 64, 64)
    check(tactic, symbolic(c, {0: shape, 1: shape, 2: shape}, shape, {"s": Range(1, 256, 128)}), env={"s": length})
