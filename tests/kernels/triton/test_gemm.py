"""Matrix products against float64: sizes around the tiles, batches, both orders of b, swapped tiles, split sums."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.kernels.triton.gemm import Gemm
from bessemer.kernels.triton.gemm_splitk import GemmSplitK
from bessemer.kernels.triton.gemm_tma import GemmTma
from bessemer.kernels.triton.gemv import Gemv
from tests.kernels.triton.problems import H200, check, compiles, first, matmul, reason, symbolic, with_bias_relu

pytestmark = [pytest.mark.triton, pytest.mark.torch]

SMALL = {"bm": 32, "bn": 16, "bk": 32, "stages": 2, "warps": 4, "swap": 0, "split": 1, "b": "kn"}


@pytest.mark.parametrize("dtype", [dt.f32, dt.f16])
@pytest.mark.parametrize("m,k,n", [(1, 1, 1), (33, 40, 17), (64, 32, 48), (130, 7, 5)])
def test_sizes(dtype: dt.DType, m: int, k: int, n: int) -> None:
    check(Gemm(), matmul((m, k), (k, n), dtype), SMALL)
    check(Gemm(), matmul((m, k), (k, n), dtype))


@pytest.mark.parametrize("ta,tb", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("swap", [0, 1])
def test_transposed_operands(ta: bool, tb: bool, swap: int) -> None:
    config = {**SMALL, "swap": swap, "b": "nk" if tb else "kn"}
    check(Gemm(), matmul((40, 36), (36, 50), dt.f16, ta, tb, constant=False), config)


@pytest.mark.parametrize("order", ["kn", "nk"])
@pytest.mark.parametrize("tb", [False, True])
def test_a_constant_b_is_stored_in_either_order(order: str, tb: bool) -> None:
    check(Gemm(), matmul((3, 20, 24), (24, 30), dt.f16, tb=tb), {**SMALL, "b": order})


@pytest.mark.parametrize(
    "a,b", [((2, 3, 9, 8), (2, 3, 8, 7)), ((2, 1, 9, 8), (3, 8, 7)), ((3, 9, 8), (2, 1, 8, 7)), ((4, 9, 8), (4, 8, 7))]
)
def test_batches_broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check(Gemm(), matmul(a, b, constant=False), SMALL)


def test_an_epilogue_over_batches() -> None:
    check(Gemm(), with_bias_relu(matmul((2, 20, 24), (2, 24, 30), constant=False), -1), SMALL)
    check(Gemm(), with_bias_relu(matmul((2, 20, 24), (24, 30), dt.f16), -1), {**SMALL, "swap": 1})


def test_symbolic_rows() -> None:
    rows = sym("n")
    c = symbolic(matmul((21, 24), (24, 30)), {0: (rows, 24)}, (rows, 30), {"n": Range(1, 64, 16)})
    check(Gemm(), c, SMALL, {"n": 21})


def test_offsets_of_64_bits() -> None:
    rows = sym("n")
    c = symbolic(matmul((21, 24), (24, 30), dt.f16), {0: (rows, 24)}, (rows, 30), {"n": Range(1, 2**31, 16)})
    check(Gemm(), c, SMALL, {"n": 21})
    compiles(Gemm(), [c.problem], first)
    assert "32 bits" in reason(GemmTma(), c.problem)


@pytest.mark.parametrize("split", [2, 5])
def test_split_sums(split: int) -> None:
    c = with_bias_relu(matmul((35, 300), (300, 40), dt.f16), -1)
    check(GemmSplitK(), c, {**SMALL, "split": split})
    check(GemmSplitK(), c)


def test_split_sums_of_batches() -> None:
    check(GemmSplitK(), matmul((2, 10, 300), (2, 300, 20), constant=False), {**SMALL, "split": 3})


@pytest.mark.parametrize("dtype", [dt.f16])
@pytest.mark.parametrize("order", ["kn", "nk"])
def test_the_copy_engine(dtype: dt.DType, order: str) -> None:
    config = {**SMALL, "bm": 64, "bk": 64, "flatten": 0, "b": order}
    check(GemmTma(), with_bias_relu(matmul((3, 30, 40), (40, 32), dtype), -1), config)
    check(GemmTma(), matmul((70, 24), (24, 40), dtype), {**config, "bm": 16, "bn": 64, "swap": 1})


@pytest.mark.parametrize("dtype", [dt.f32, dt.f16, dt.bf16])
@pytest.mark.parametrize("order", ["kn", "nk"])
def test_few_rows(dtype: dt.DType, order: str) -> None:
    config = {"rows": 4, "bn": 8, "bk": 64, "stages": 1, "warps": 4, "b": order}
    check(Gemv(), with_bias_relu(matmul((3, 100), (100, 37), dtype), -1), config)
    check(Gemv(), matmul((1, 64), (64, 20), dtype))


def test_reasons() -> None:
    whole, half = matmul((4, 8), (8, 4)).problem, matmul((4, 8), (8, 4), dt.f16).problem
    assert "mix" in reason(Gemm(), replace(whole, operands=(whole.operands[0], half.operands[1])))
    assert "two batch strides" in reason(Gemm(), matmul((2, 1, 3, 4, 8), (3, 1, 8, 4), constant=False).problem)
    assert "fill 132" in reason(GemmSplitK(), matmul((2048, 512), (512, 2048)).problem)
    assert "whole 16 bytes" in reason(GemmTma(), matmul((64, 33), (33, 64), dt.f16).problem)
    assert "at most 4 rows" in reason(Gemv(), matmul((5, 8), (8, 4)).problem)


@pytest.mark.parametrize("m,n", [(128, 3072), (4096, 4096), (1, 1), (37, 11)])
def test_configurations_are_ordered_by_their_estimate(m: int, n: int) -> None:
    tactic, problem = Gemm(), matmul((m, 64), (64, n), dt.f16).problem
    times = [tactic.estimate(problem, H200, c) for c in tactic.configs(problem, H200)]
    assert times and times == sorted(times)


def test_compiles_for_every_architecture() -> None:
    problems = [matmul((128, 256), (256, 192), dtype).problem for dtype in (dt.f16, dt.bf16, dt.f32)]
    compiles(Gemm(), problems, first)
    compiles(GemmSplitK(), problems[:1], first)
    compiles(GemmTma(), problems[:2], first)
    compiles(Gemv(), [matmul((1, 256), (256, 192), dt.f16).problem], first)


@pytest.mark.parametrize(
    ("n", "k", "fastest"),
    [(768, 768, (64, 32, 128, 1)), (2304, 768, (64, 64, 64, 1)), (3072, 768, (64, 64, 128, 1)),
     (768, 3072, (64, 64, 128, 4))],
)  # fmt: skip
def test_what_was_fastest_on_an_h200_is_tried_early(n: int, k: int, fastest: tuple[int, ...]) -> None:
    problem = matmul((128, k), (k, n), dt.f16).problem
    times: dict[tuple[int, ...], float] = {}
    for tactic in (Gemm(), GemmSplitK()):
        for c in tactic.configs(problem, H200):
            key = tuple(int(c[name]) for name in ("bm", "bn", "bk", "split"))
            times.setdefault(key, tactic.estimate(problem, H200, c))
    assert fastest in sorted(times, key=lambda key: times[key])[:8]
