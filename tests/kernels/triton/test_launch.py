"""Programmatic dependent launch: what the texts promise, what is compiled, and that no run of hazards changes a bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.device.cuda_kernel import Kernel
from bessemer.device.cuda_stream import Stream
from bessemer.ir import expr as ex
from bessemer.kernels.base import COUNTERS, TRANSFORMS, WORKSPACE, Int, KernelCode, Problem
from bessemer.kernels.triton.gemm import Gemm
from bessemer.kernels.triton.gemm_splitk import GemmSplitK
from bessemer.kernels.triton.group_kernel import flat
from tests.kernels.triton.cases import group
from tests.kernels.triton.harness import Array, _device, compile_for
from tests.kernels.triton.problems import H200, matmul, with_bias_relu
from tests.kernels.triton.ptx import ptx_of
from tests.kernels.triton.waits import check_waits

pytestmark = pytest.mark.triton

PRODUCT = {"bm": 64, "bn": 32, "bk": 64, "stages": 3, "warps": 4, "swap": 0, "split": 1, "b": "nk"}
N = 512


def reversed_half() -> Problem:
    """x[i, j] = y[127 - i, N - 1 - j] / 2: every program reads what programs at the other end wrote."""
    i, j = ex.out_axes(2)
    last = [ex.call("sub", ex.lit(size - 1, dt.i64), axis) for size, axis in ((128, i), (N, j))]
    half = ex.call("mul", ex.load(0, tuple(last), dt.f16), ex.lit(0.5, dt.f16))
    return group([(dt.f16, (128, N))], (128, N), dt.f16, half)


def product() -> tuple[Problem, KernelCode]:
    problem = with_bias_relu(matmul((128, N), (N, N), dt.f16), -1).problem
    return problem, Gemm().emit(problem, H200, PRODUCT)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("    wait(PDL)\n", "", "reads before"), ("    wait(PDL)\n", "    wait(PDL)\n    wait(PDL)\n", "waits twice"),
     ("    begin(PDL)\n", "    tl.load(a_ptr)\n    begin(PDL)\n", "reads before"),
     ("    begin(PDL)\n", "    tl.store(e_y0, 0.0)\n    begin(PDL)\n", "writes before"),
     ("    wait(PDL)\n", "    if M > 3:\n        wait(PDL)\n", "one side"),
     ("    wait(PDL)\n", "    for _ in range(3):\n        wait(PDL)\n", "twice")],
)  # fmt: skip
def test_texts_that_do_not_wait_are_found(old: str, new: str, message: str) -> None:
    problem, code = product()
    check_waits(problem, code)
    head, kernel, body = code.text.partition("def kernel(")
    with pytest.raises(AssertionError, match=message):
        check_waits(problem, replace(code, text=head + kernel + body.replace(old, new, 1)))


def test_constants_are_read_ahead() -> None:
    problem, code = product()
    check_waits(
        problem, replace(code, text=code.text.replace("    begin(PDL)\n", "    begin(PDL)\n    tl.load(b_ptr)\n"))
    )


@pytest.mark.parametrize(("arch", "there"), [("sm_80", False), ("sm_89", False), ("sm_90", True), ("sm_100", True)])
def test_kernels_wait_where_the_architecture_can(arch: str, there: bool, tmp_path: Path) -> None:
    problem, code = product()
    rest = reversed_half()
    for p, c in ((problem, code), (rest, flat(rest, 128, 4))):
        text = ptx_of(p, c, arch, tmp_path)
        assert ("griddepcontrol.wait" in text) == ("griddepcontrol.launch_dependents" in text) == there
        assert not there or text.index("griddepcontrol.wait") < text.index("ld.global" if p is rest else "cp.async")
        assert ("prefetch.global.L2" in text) == (there and p is problem)


def test_weights_are_prefetched_only_where_all_programs_run_at_once() -> None:
    few, many = matmul((128, N), (N, N), dt.f16).problem, matmul((8192, N), (N, 8 * N), dt.f16).problem
    moving = matmul((128, N), (N, N), dt.f16, constant=False).problem
    options = [dict(Gemm().emit(p, H200, {**PRODUCT, "b": "kn"}).launches[0].options) for p in (few, many, moving)]
    assert [o["PREFETCH"] > 0 for o in options] == [True, False, False]


def run_chain(pdl: bool, runs: int, x: Array, w: Array) -> Array:
    """x after `runs` times y = x w (its sum in parts) and x = reversed y / 2."""
    device = _device()
    product_, turn = matmul((128, N), (N, N), dt.f16).problem, reversed_half()
    codes = [GemmSplitK().emit(product_, H200, {**PRODUCT, "split": 4}), flat(turn, 128, 4)]
    compiled = compile_for(device.info.arch, [(product_, codes[0]), (turn, codes[1])])
    for pack in codes[0].packs:
        w = TRANSFORMS.get(pack.transform).apply(w, *pack.params)
    sizes = {"x": x.nbytes, "y": x.nbytes, "w": w.nbytes, "parts": int(str(codes[0].workspace)), "counters": 1 << 12}
    places = {name: device.alloc(size) for name, size in sizes.items()}
    device.upload(places["x"], x.ctypes.data, x.nbytes)
    device.upload(places["w"], w.ctypes.data, w.nbytes)
    device.fill(places["counters"], 0, 1 << 12)
    device.synchronize()
    stream: Stream = device.stream()
    queue = []
    operands = ({0: "x", 1: "w", 2: "y", WORKSPACE: "parts", COUNTERS: "counters"}, {0: "y", 1: "x"})
    for code, (kernel,), names in zip(codes, compiled, operands, strict=True):
        loaded: Kernel = device.load(kernel.cubin).kernel(kernel.symbol, {**kernel.abi, "pdl": pdl})
        (launch,) = code.launches
        values = [int(str(a.value)) if isinstance(a, Int) else places[names[a.operand]] for a in launch.args]
        queue.append((loaded, [int(str(d)) for d in launch.grid], loaded.arguments(values)))
    for _ in range(runs):
        for loaded, grid, args in queue:
            loaded.launch(grid, args, stream)
    stream.synchronize()
    out = np.empty_like(x)
    device.download(out.ctypes.data, places["x"], out.nbytes)
    for address in places.values():
        device.free(address)
    stream.close()
    return out


@pytest.mark.gpu
def test_hazards_change_no_bit() -> None:
    """Each kernel reads what the one ahead wrote, and writes what that one read; counters and parts are shared."""
    rng = np.random.default_rng()
    x = rng.standard_normal((128, N)).astype(np.float16)
    w = np.linalg.qr(rng.standard_normal((N, N)))[0].astype(np.float16) * np.float16(2)
    want = run_chain(False, 1000, x, w)
    assert np.isfinite(want).all() and want.any()
    for _ in range(3):
        assert (run_chain(True, 1000, x, w) == want).all()
