"""Matrix products against float64, at sizes around the tiles, on every ISA level that this processor runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.kernels.c.gemm import Gemm
from tests.kernels.c.harness import Machine, bias_relu, compute, f32, matmul_problem, supported

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def close(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    want = a.astype(np.float64) @ b.astype(np.float64)
    scale = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64) + 1e-30
    assert got.shape == want.shape
    assert (np.abs(got - want) / scale).max(initial=0) < 2e-6


SIZES = [(1, 1, 1), (7, 3, 5), (49, 33, 64), (13, 64, 65), (6, 700, 17), (130, 5, 200), (0, 4, 4), (3, 0, 9)]
# Every size with every pair of flags: an even number of them is true, or an odd one, in turns. ISA levels in turns too,
# so that each level has all sizes.
PRODUCTS = [
    (supported()[(i + j) % len(supported())], *size, *flags)
    for i, size in enumerate(SIZES)
    for j, flags in enumerate(f for f in itertools.product([False, True], repeat=3) if sum(f) % 2 == i % 2)
]


@pytest.mark.parametrize("arch,m,k,n,constant,ta,tb", PRODUCTS)
def test_sizes(arch: str, m: int, k: int, n: int, constant: bool, ta: bool, tb: bool) -> None:
    a, b = normal(m, k), normal(k, n)
    stored = (np.ascontiguousarray(a.T) if ta else a, np.ascontiguousarray(b.T) if tb else b)
    p = matmul_problem(
        f32(*stored[0].shape), f32(*stored[1].shape), f32(m, n), constant=constant, transpose_a=ta, transpose_b=tb
    )
    close(compute(Gemm(), p, stored, arch), a, b)


@pytest.mark.parametrize("arch", supported())
def test_every_tile_shape_and_a_split_reduction(arch: str) -> None:
    a, b, bias = normal(50, 5000), normal(5000, 130), normal(130)
    p = matmul_problem(f32(50, 5000), f32(5000, 130), f32(50, 130), epilogue=bias_relu(2, 130), extra=(f32(130),))
    want = np.maximum(a.astype(np.float64) @ b + bias, 0)
    for config in Gemm().configs(p, Machine(arch)):
        got = compute(Gemm(), p, (a, b, bias), arch, config)
        assert np.abs(got - want).max() < 2e-3, config


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    "a_batch,b_batch", [((3,), ()), ((2, 3), (2, 3)), ((2, 1), (3,)), ((), (4,)), ((2, 3), (1, 1))]
)
def test_batches_broadcast(a_batch: tuple[int, ...], b_batch: tuple[int, ...], constant: bool) -> None:
    a, b = normal(*a_batch, 5, 9), normal(*b_batch, 9, 21)
    out = np.broadcast_shapes(a_batch, b_batch)
    p = matmul_problem(f32(*a.shape), f32(*b.shape), f32(*out, 5, 21), constant=constant)
    close(compute(Gemm(), p, (a, b), supported()[0]), a, b)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("m", [1, 5, 6, 7, 40])
def test_symbolic_rows(m: int, constant: bool) -> None:
    a, b = normal(2, m, 19), normal(19, 40)
    p = matmul_problem(
        f32(2, sym("s"), 19), f32(19, 40), f32(2, sym("s"), 40), constant=constant, ranges={"s": Range(1, 64, 16)}
    )
    close(compute(Gemm(), p, (a, b), supported()[0], env={"s": m}), a, b)


def test_everything_symbolic() -> None:
    s, t = sym("s"), sym("t")
    p = matmul_problem(
        f32(sym("b"), s, t), f32(sym("b"), t, s), f32(sym("b"), s, s), constant=False,
        ranges={"s": Range(1, 64, 16), "t": Range(1, 512, 32), "b": Range(1, 8, 2)},
    )  # fmt: skip
    for m, k in ((1, 1), (17, 33), (64, 500)):
        a, b = normal(3, m, k), normal(3, k, m)
        close(compute(Gemm(), p, (a, b), supported()[0], env={"s": m, "t": k, "b": 3}), a, b)


def test_what_it_leaves_to_others() -> None:
    open_batch = matmul_problem(f32(sym("b"), 4, 4), f32(sym("c"), 4, 4), f32(sym("d"), 4, 4), constant=False)
    reason = Gemm().applicable(open_batch, Machine())
    assert reason is not None and "broadcasts" in reason.text
