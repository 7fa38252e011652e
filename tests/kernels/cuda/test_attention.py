"""Attention on the emulator, against float64: layouts, masks, causality, parts of keys, rounds, symbolic lengths."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.kernels.base import Config, Problem, Tactic
from bessemer.kernels.cuda.attention import CudaAttention
from bessemer.kernels.cuda.attention_whole import CudaAttentionWhole
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.problems import H200, RNG, Array, Case, assert_right, normal, reason, symbolic
from tests.kernels.triton.test_attention import attention

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

RUNNING = CudaAttention()
WHOLE = CudaAttentionWhole()


def running(groups: int = 1, keys: int = 64, stages: int = 1) -> tuple[Tactic, Config]:
    return RUNNING, {"groups": groups, "keys": keys, "stages": stages}


def whole(keys: int, steps: int = 1, split: int = 1, groups: int = 1, rounds: int = 1) -> tuple[Tactic, Config]:
    sizes = {"keys": keys, "steps": steps, "split": split, "groups": groups, "rounds": rounds}
    return WHOLE, {**sizes, "resident": 1}


def check(kernel: tuple[Tactic, Config], c: Case, folder: Path, env: dict[str, int] | None = None) -> None:
    tactic, config = kernel
    assert tactic.applicable(c.problem, H200) is None
    (got,) = emulate(c.problem, tactic.emit(c.problem, H200, config), c.operands, folder, env)
    assert_right(c, [got])


KERNELS = [
    running(), running(2, 128), running(1, 64, 3), whole(112), whole(64, 2), whole(48, split=3), whole(64, split=2),
    whole(32, 2, split=2), whole(112, groups=2), whole(112, rounds=2), whole(64, 2, rounds=3),
    whole(48, 3, groups=2, rounds=2),
]  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: "-".join(map(str, k[1].values())))
def test_tiles(kernel: tuple[Tactic, Config], tmp_path: Path) -> None:
    check(kernel, attention((1, 2, 150, 109), dt.f16, 64, 64, "BSHD"), tmp_path)


# Every kernel with every head; dtypes in turns, so that each has all kernels and all heads.
HEADS = [
    pytest.param(kernel, (dt.f16, dt.bf16)[(i + j) % 2], d, layout, id=f"{kernel[0].name}-{i}-{d}-{layout}")
    for i, kernel in enumerate((running(), whole(48, 2), whole(48, split=2)))
    for j, (d, layout) in enumerate(((32, "BHSD"), (64, "BHSD"), (128, "BSHD")))
]


@pytest.mark.parametrize(("kernel", "dtype", "d", "layout"), HEADS)
def test_heads_and_layouts(kernel: tuple[Tactic, Config], dtype: DType, d: int, layout: str, tmp_path: Path) -> None:
    check(kernel, attention((2, 2, 70, 90), dtype, d, d, layout), tmp_path)


@pytest.mark.parametrize("kernel", [running(), whole(48, 2), whole(48, split=2)], ids=lambda k: k[0].name)
@pytest.mark.parametrize("shape", [(2, 1, 1, 90), (1, 2, 70, 90), (70, 1), (2, 1, 1, 1)], ids=str)
def test_masks_broadcast(kernel: tuple[Tactic, Config], shape: tuple[int, ...], tmp_path: Path) -> None:
    c = attention((2, 2, 70, 90), dt.f16, 32, 32, mask=normal(shape), mask_dtype=dt.f32)
    check(kernel, c, tmp_path)


@pytest.mark.parametrize("kernel", [running(), whole(48, 2), whole(48, split=2)], ids=lambda k: k[0].name)
@pytest.mark.parametrize("queries", [1, 70])
def test_masks_of_the_least_float_and_rows_that_are_masked_entirely(
    kernel: tuple[Tactic, Config], queries: int, tmp_path: Path
) -> None:
    least: Array = np.where(RNG.random((2, 1, queries, 90)) < 0.5, np.float32(0), np.finfo(np.float32).min)
    least[0, :, 0] = np.finfo(np.float32).min
    check(kernel, attention((2, 2, 70, 90), dt.f16, 32, 32, mask=least, mask_dtype=dt.f32), tmp_path)
    keep = RNG.random((1, 1, queries, 90)) < 0.6
    keep[0, 0, 0] = False
    check(kernel, attention((1, 2, 70, 90), dt.f16, 32, 32, mask=keep, mask_dtype=dt.bool_), tmp_path)


@pytest.mark.parametrize("kernel", [running(), whole(64, 2, rounds=2), whole(64, split=2)], ids=lambda k: k[0].name)
def test_causality_and_shared_heads(kernel: tuple[Tactic, Config], tmp_path: Path) -> None:
    check(kernel, attention((1, 4, 100, 100), dt.f16, 32, 32, causal=True, kv_heads=2), tmp_path)


@pytest.mark.parametrize("kernel", [running(), whole(64, 2, rounds=2), whole(64, split=2)], ids=lambda k: k[0].name)
@pytest.mark.parametrize("lengths", [(20, 100), (200, 30)], ids=str)
def test_the_last_query_sees_the_last_key(
    kernel: tuple[Tactic, Config], lengths: tuple[int, int], tmp_path: Path
) -> None:
    """And with more queries than keys the first see none, which gives zeros."""
    check(kernel, attention((1, 2, *lengths), dt.f16, 32, 32, "BSHD", causal=True), tmp_path)


@pytest.mark.parametrize("kernel", [running(), whole(64, 3, rounds=2), whole(48, 2, split=2)], ids=lambda k: k[0].name)
@pytest.mark.parametrize("length", [1, 40, 150])
def test_symbolic_lengths(kernel: tuple[Tactic, Config], length: int, tmp_path: Path) -> None:
    s = sym("s")
    shape = (1, 2, s, 32)
    c = attention((1, 2, length, length), dt.f16, 32, 32)
    c = symbolic(c, {0: shape, 1: shape, 2: shape}, shape, {"s": Range(1, 180, 64)})
    check(kernel, c, tmp_path, {"s": length})


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_configurations_compile_without_spills() -> None:
    plain = attention((32, 12, 197, 197), dt.f16, 64, 64, "BSHD").problem
    masked = attention((1, 12, 128, 128), dt.bf16, 32, 32, mask=normal((1, 1, 1, 128)), mask_dtype=dt.f32).problem
    causal = attention((1, 4, 300, 300), dt.f16, 128, 128, causal=True, kv_heads=2).problem
    for tactic in (RUNNING, WHOLE):
        for problem in (plain, masked, causal):
            for config in tactic.configs(problem, H200)[:6:2]:
                _, log = compile_text(tactic.emit(problem, H200, config).text, "sm_90")
                assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{config}: {log}"
                assert "C7510" not in log and "C7517" not in log, f"{config}: products wait for each other"


def sized(batch: int, heads: int, queries: int, keys: int) -> Problem:
    """A problem whose result nobody needs."""
    q, kv = (batch, heads, queries, 64), (batch, heads, keys, 64)
    return symbolic(attention((1, 1, 1, 1), dt.f16, 64, 64), {0: q, 1: kv, 2: kv}, q, {}).problem


def test_reasons_and_configurations() -> None:
    long = sized(1, 1, 4, 2000)
    assert "do not fit" in reason(WHOLE, long) and reason(RUNNING, long) == ""
    assert "f16 and bf16" in reason(WHOLE, attention((1, 1, 2, 2), dt.f32, 64, 64).problem)
    for sizes in ((1, 12, 128, 128), (32, 12, 197, 197), (1, 16, 384, 384), (1, 1, 1, 1), (4, 8, 300, 77)):
        problem = sized(*sizes)
        for tactic in (RUNNING, WHOLE):
            found = tactic.configs(problem, H200)
            assert found and list(found) == sorted(found, key=lambda c: tactic.estimate(problem, H200, c))
