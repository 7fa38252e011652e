"""Products of few tokens on the GPU against float64: sizes around the tiles, every kind of configuration, epilogues."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.device.cuda import Device
from bessemer.device.cuda_kernel import Arguments
from bessemer.ir import expr as ex
from bessemer.ir import scalar as oracle
from bessemer.kernels.base import TRANSFORMS, Config, Int, Tactic
from bessemer.kernels.cuda.conv_skinny import ConvSkinny
from bessemer.kernels.cuda.gemm_skinny import GemmSkinny
from tests.kernels.triton.harness import compile_for, run_on_gpu
from tests.kernels.triton.problems import H200, Case, assert_right, matmul, symbolic, with_bias_relu
from tests.kernels.triton.test_conv import conv

pytestmark = pytest.mark.gpu


def check(tactic: Tactic, c: Case, configs: int = 4, env: dict[str, int] | None = None) -> None:
    """The best configurations by their estimates, and as many spread over all of them."""
    assert tactic.applicable(c.problem, H200) is None
    found = list(tactic.configs(c.problem, H200))
    for config in [*found[:configs], *found[configs :: max(1, len(found) // configs)]]:
        check_one(tactic, c, config, env)


def check_one(tactic: Tactic, c: Case, config: Config, env: dict[str, int] | None) -> None:
    """One configuration."""
    got = run_on_gpu(c.problem, tactic.emit(c.problem, H200, config), c.operands, env)
    assert_right(c, got, f"{dict(config)} for {c.problem.key}")


def with_gelu(c: Case) -> Case:
    """The case followed by a bias and GELU: x (1 + erf(x / sqrt(2))) / 2."""
    biased = with_bias_relu(c, -1)
    out = biased.problem.outputs[0]
    n = len(c.operands)
    x = ex.call("add", ex.Acc(out.dtype), ex.load(n, (ex.out_axes(out.rank)[-1],), out.dtype))
    inner = ex.call("erf", ex.call("mul", x, ex.lit(0.5**0.5, out.dtype)))
    half = ex.call("mul", x, ex.lit(0.5, out.dtype))
    e = ex.call("mul", half, ex.call("add", inner, ex.lit(1.0, out.dtype)))
    problem = replace(biased.problem, operands=biased.problem.operands[:-1], epilogue=e)
    operands = biased.operands[:-1]
    want = oracle.evaluate(e, c.want[0].shape, dt.f64, operands, {}, acc=c.want[0])
    return Case(problem, operands, (want,))


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16], ids=str)
@pytest.mark.parametrize(
    "m,k,n", [(128, 768, 2304), (128, 3072, 768), (49, 2048, 512), (1, 64, 8), (17, 72, 200), (130, 1000, 1000)]
)
def test_products(dtype: DType, m: int, k: int, n: int) -> None:
    check(GemmSkinny(), with_bias_relu(matmul((m, k), (k, n), dtype), -1))


def test_every_configuration() -> None:
    check(GemmSkinny(), with_bias_relu(matmul((70, 768), (768, 136), dt.f16), -1), configs=1000)


@pytest.mark.parametrize("tb", [False, True])
def test_gelu_over_batches(tb: bool) -> None:
    check(GemmSkinny(), with_gelu(matmul((3, 40, 256), (256, 192), dt.f16, tb=tb)))


@pytest.mark.parametrize("a", [(1, 128, 768), (3, 128, 768)], ids=str)
def test_weights_of_several_batches(a: tuple[int, ...]) -> None:
    check(GemmSkinny(), with_bias_relu(matmul(a, (3, 768, 768), dt.f16), -1))


def test_symbolic_tokens() -> None:
    rows = sym("n")
    c = symbolic(matmul((21, 512), (512, 320), dt.f16), {0: (rows, 512)}, (rows, 320), {"n": Range(1, 500, 64)})
    check(GemmSkinny(), c, env={"n": 21})


@pytest.mark.parametrize("channels", [64, 24])
@pytest.mark.parametrize("stride,dilation", [(1, 1), (2, 1), (1, 2)])
def test_convolutions(channels: int, stride: int, dilation: int) -> None:
    c = conv(
        (2, channels, 15, 13), (72, channels, 3, 3), dt.f16, strides=(stride, stride), dilations=(dilation, 1),
        pads=(1, 1, 1, 1),
    )  # fmt: skip
    check(ConvSkinny(), with_bias_relu(c, -1))


@pytest.mark.parametrize("cluster", [1, 4])
def test_clusters_and_early_starts_survive_updates_of_a_graph(cluster: int) -> None:
    """Two launches in a chain, captured; the second then reads and writes elsewhere."""
    c = matmul((33, 512), (512, 512), dt.f16)
    chosen = {"tokens": 16, "blocks": 1, "slices": 1, "cluster": cluster, "step": 2}
    device = Device(0)
    code = GemmSkinny().emit(c.problem, H200, chosen)
    ((kernel,),) = compile_for(device.info.arch, [(c.problem, code)])
    module, stream = device.load(kernel.cubin), device.stream()
    loaded = module.kernel(kernel.symbol, kernel.abi)
    packed = TRANSFORMS.get(code.packs[0].transform).apply(c.operands[1].astype(np.float16), *code.packs[0].params)
    x = c.operands[0].astype(np.float16)
    buffers = [device.alloc(x.nbytes) for _ in range(4)]
    weights = device.alloc(packed.nbytes)
    device.upload(weights, packed.ctypes.data, packed.nbytes)
    device.upload(buffers[0], x.ctypes.data, x.nbytes)
    for buffer in buffers[1:]:
        device.fill(buffer, 0xFF, x.nbytes)
    launch = code.launches[0]
    grid = [evaluate(d, {}) for d in launch.grid]

    def arguments(source: int, target: int) -> Arguments:
        places = {0: source, 1: weights, 2: target}
        return loaded.arguments(
            [evaluate(a.value, {}) if isinstance(a, Int) else places[a.operand] for a in launch.args]
        )

    first, second = arguments(buffers[0], buffers[1]), arguments(buffers[1], buffers[2])
    other = arguments(buffers[0], buffers[3])
    with stream.capture() as graph:
        loaded.launch(grid, first, stream)
        loaded.launch(grid, second, stream)
    graph.launch(stream)
    graph.update(1, loaded, grid, other)
    graph.launch(stream)
    stream.synchronize()
    once = c.want[0]
    for buffer, want in ((buffers[2], once.astype(np.float16) @ c.operands[1].astype(np.float64)), (buffers[3], once)):
        got = np.empty(x.shape, np.float16)
        device.download(got.ctypes.data, buffer, got.nbytes)
        assert np.linalg.norm(got - want) < 2e-3 * np.linalg.norm(want)
    graph.close()
    module.close()
    for address in (*buffers, weights):
        device.free(address)
