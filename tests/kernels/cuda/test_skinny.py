"""Products of few tokens on the emulator, against float64: tails, clusters, slices of the sum, windows, epilogues."""

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
from bessemer.kernels.base import Config, Tactic
from bessemer.kernels.cuda.conv_skinny import ConvSkinny
from bessemer.kernels.cuda.gemm_skinny import GemmSkinny
from bessemer.kernels.cuda.weights import swizzled_blocks
from bessemer.targets.cuda import ARCHS, CudaTarget
from bessemer.targets.nvrtc_compile import compile_text, version
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.problems import H200, Case, assert_right, matmul, reason, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def config(tokens: int, blocks: int = 1, slices: int = 1, cluster: int = 1, step: int = 1) -> Config:
    return {"tokens": tokens, "blocks": blocks, "slices": slices, "cluster": cluster, "step": step}


def check(tactic: Tactic, c: Case, chosen: Config, folder: Path, env: dict[str, int] | None = None) -> None:
    assert tactic.applicable(c.problem, H200) is None
    (got,) = emulate(c.problem, tactic.emit(c.problem, H200, chosen), c.operands, folder, env)
    assert_right(c, [got])


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize(
    "chosen",
    [
        config(16), config(32, 2), config(16, 1, 2, 1, 2), config(16, 1, 1, 2), config(16, 1, 1, 8),
        config(32, 1, 1, 4, 2),
    ],  # fmt: skip
)
def test_products(dtype: DType, chosen: Config, tmp_path: Path) -> None:
    check(GemmSkinny(), with_bias_relu(matmul((21, 504), (504, 72), dtype), -1), chosen, tmp_path)


def test_stored_transposed_over_batches(tmp_path: Path) -> None:
    check(GemmSkinny(), with_bias_relu(matmul((3, 7, 64), (64, 40), dt.f16, tb=True), -1), config(16), tmp_path)


@pytest.mark.parametrize("a", [(1, 21, 200), (21, 200), (3, 21, 200)], ids=str)
@pytest.mark.parametrize("tb", [False, True])
def test_weights_of_several_batches(a: tuple[int, ...], tb: bool, tmp_path: Path) -> None:
    check(GemmSkinny(), with_bias_relu(matmul(a, (3, 200, 72), dt.f16, tb=tb), -1), config(16, 1, 1, 2, 2), tmp_path)


def test_symbolic_tokens(tmp_path: Path) -> None:
    rows = sym("n")
    c = symbolic(matmul((21, 128), (128, 64), dt.f16), {0: (rows, 128)}, (rows, 64), {"n": Range(1, 500, 64)})
    check(GemmSkinny(), c, config(16, 1, 1, 2), tmp_path, {"n": 21})


@pytest.mark.parametrize("channels,kernel", [(64, (3, 3)), (24, (3, 2)), (16, (5,))])
@pytest.mark.parametrize("step,gap", [(1, 1), (2, 1), (1, 2)])
def test_windows(channels: int, kernel: tuple[int, ...], step: int, gap: int, tmp_path: Path) -> None:
    rank = len(kernel)
    sizes = (9, 7)[:rank]
    attrs = {"strides": (step,) * rank, "dilations": (gap,) * rank, "pads": (1, 2)[:rank] * 2}
    c = conv((2, channels, *sizes), (16, channels, *kernel), dt.f16, **attrs)
    check(ConvSkinny(), with_bias_relu(c, -1), config(32, 1, 1, 2), tmp_path)


@pytest.mark.parametrize("kernel,pads", [((3, 1), (2, 0)), ((1, 33), (0, 4))], ids=str)
@pytest.mark.parametrize("chosen", [config(64), config(32, 3), config(64, 1, 1, 2)])
def test_windows_of_many_small_images(
    kernel: tuple[int, int], pads: tuple[int, int], chosen: Config, tmp_path: Path
) -> None:
    c = conv((9, 8, 1, 29), (72, 8, *kernel), dt.f16, strides=(1, 13), pads=pads * 2)
    check(ConvSkinny(), with_bias_relu(c, -1), chosen, tmp_path)


def test_pointwise_convolutions_read_rows(tmp_path: Path) -> None:
    c = with_bias_relu(conv((2, 64, 5, 3), (24, 64, 1, 1), dt.bf16), -1)
    assert "corner[i]" not in ConvSkinny().emit(c.problem, H200, config(16)).text
    check(ConvSkinny(), c, config(16), tmp_path)


@pytest.mark.skipif(version() is None, reason="needs NVRTC")
def test_every_configuration_compiles_without_spills() -> None:
    gemm = with_bias_relu(matmul((128, 768), (768, 768), dt.bf16), -1).problem
    window = with_bias_relu(conv((1, 256, 14, 14), (256, 256, 3, 3), dt.f16, pads=(1, 1, 1, 1)), -1).problem
    for tactic, problem in ((GemmSkinny(), gemm), (ConvSkinny(), window)):
        for chosen in tactic.configs(problem, H200)[::4]:
            _, log = compile_text(tactic.emit(problem, H200, chosen).text, "sm_90")
            assert re.findall(r"(\d+) bytes spill", log) == ["0", "0"], f"{chosen}: {log}"
            assert "C7517" not in log, f"{chosen}: products wait for each other"
            assert "warning" not in log, log


def test_reasons() -> None:
    plain = matmul((128, 64), (64, 64), dt.f16).problem
    sm_80 = CudaTarget("sm_80", ARCHS["sm_80"])
    found = GemmSkinny().applicable(plain, sm_80)
    assert found is not None and found.text == "needs the warpgroup products of sm_90, not sm_80"
    assert "not constant" in reason(GemmSkinny(), matmul((8, 64), (64, 64), dt.f16, constant=False).problem)
    assert "f16 and bf16" in reason(GemmSkinny(), matmul((8, 64), (64, 64)).problem)
    assert "16 bytes" in reason(GemmSkinny(), matmul((8, 60), (60, 64), dt.f16).problem)
    assert "16 bytes" in reason(GemmSkinny(), matmul((8, 64), (64, 60), dt.f16).problem)
    assert "along one axis" in reason(GemmSkinny(), matmul((2, 1, 8, 64), (2, 3, 64, 64), dt.f16).problem)
    assert "whole slab" in reason(GemmSkinny(), matmul((8, 32768), (32768, 64), dt.f16).problem)
    assert "of 12 channels" in reason(ConvSkinny(), conv((1, 12, 5, 5), (16, 12, 3, 3), dt.f16).problem)


def test_configurations_are_ordered_by_their_estimate() -> None:
    tactic, problem = GemmSkinny(), matmul((128, 768), (768, 2304), dt.f16).problem
    times = [tactic.estimate(problem, H200, c) for c in tactic.configs(problem, H200)]
    assert times == sorted(times) and 3 < times[0] < 4.5  # 3.5 measured


def test_weights_lie_in_blocks_as_products_read_them() -> None:
    w = np.arange(72 * 200, dtype=np.float32).reshape(72, 200)
    packed = swizzled_blocks(w, "nk", 2, 4)
    assert packed.shape == (2, 4, 64, 64)
    assert packed[1, 2, 9, (3 ^ 9 % 8) * 8 + 1] == w[64 + 3, 2 * 64 + 3 * 8 + 1]
    assert np.count_nonzero(packed[1].any(axis=(0, 2))) == 8
    assert np.array_equal(packed, swizzled_blocks(w.T, "kn", 2, 4))
    taps = swizzled_blocks(np.moveaxis(w.reshape(72, 4, 50), 1, 2).reshape(72, 50, 2, 2), "taps", 2, 4)
    assert np.array_equal(packed, taps)
