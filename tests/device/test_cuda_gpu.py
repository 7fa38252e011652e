"""On a GPU: the driver layer as it is used, and generated kernels against the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.core.errors import DeviceError
from bessemer.device.cuda import Device
from bessemer.device.cuda_kernel import Kernel
from bessemer.ir import expr as ex
from bessemer.ir import scalar as oracle
from bessemer.kernels.base import Problem
from bessemer.kernels.triton.group_kernel import flat
from bessemer.targets.cuda import Request, cuda_target
from tests.kernels.triton import test_emit_scalar as scalars
from tests.kernels.triton import test_group as groups
from tests.kernels.triton.cases import expected, group, ulps, values
from tests.kernels.triton.harness import run_on_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.triton]
N = 1000


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    found = Device(0)
    yield found
    found.close()


def adder(device: Device) -> Kernel:
    """y[i] = x[i] + 1 for N floats."""
    e = ex.call("add", ex.load(0, (ex.Axis("i0"),), dt.f32), ex.lit(1, dt.f32))
    problem = group([(dt.f32, (N,))], (N,), dt.f32, e)
    code = flat(problem, 128, 4)
    kernel = cuda_target().compile_one(Request(problem, code, code.launches[0]))
    return device.load(kernel.cubin).kernel(kernel.symbol, kernel.abi)


def test_memory_goes_there_and_back(device: Device) -> None:
    data, back = np.arange(N, dtype=np.float32), np.zeros(N, np.float32)
    address, other, stream = device.alloc(4 * N), device.alloc(4 * N), device.stream()
    assert address % 256 == 0
    device.upload(address, data.ctypes.data, 4 * N, stream)
    device.copy(other, address, 4 * N, stream)
    stream.synchronize()
    device.download(back.ctypes.data, other, 4 * N)
    np.testing.assert_array_equal(back, data)
    device.fill(other, 0, 4 * N)
    device.download(back.ctypes.data, other, 4 * N)
    assert not back.any()
    device.free(address)
    device.free(other)


def test_a_graph_repeats_and_takes_other_arguments(device: Device) -> None:
    kernel, stream = adder(device), device.stream()
    x, y, z = (device.alloc(4 * N) for _ in range(3))
    for address in (x, y, z):
        device.fill(address, 0, 4 * N)
    grid, first, second = (-(-N // 128),), kernel.arguments([x, y]), kernel.arguments([y, x])
    with stream.capture() as graph:
        kernel.launch(grid, first, stream)
        kernel.launch(grid, second, stream)
    assert len(graph) == 2
    back = np.ones(N, np.float32)
    device.download(back.ctypes.data, x, 4 * N)
    assert not back.any()  # nothing ran while it was captured
    graph.upload(stream)
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    device.download(back.ctypes.data, x, 4 * N)
    assert (back == 6).all()
    second[1] = z
    graph.update(1, kernel, grid, second)
    graph.launch(stream)
    stream.synchronize()
    device.download(back.ctypes.data, z, 4 * N)
    assert (back == 8).all()
    graph.close()


def test_events_measure_time_and_order_streams(device: Device) -> None:
    kernel, one, two = adder(device), device.stream(), device.stream()
    x, y = device.alloc(4 * N), device.alloc(4 * N)
    device.fill(x, 0, 4 * N)
    start, end = device.event(timing=True), device.event(timing=True)
    start.record(one)
    kernel.launch((8,), kernel.arguments([x, y]), one)
    end.record(one)
    two.wait(end)
    kernel.launch((8,), kernel.arguments([y, x]), two)
    two.synchronize()
    assert 0 < end.milliseconds_since(start) < 1000
    back = np.zeros(N, np.float32)
    device.download(back.ctypes.data, x, 4 * N)
    assert (back == 2).all()


def test_too_much_memory_is_said(device: Device) -> None:
    with pytest.raises(DeviceError, match="bytes of GPU memory"):
        device.alloc(1 << 50)


def test_a_cubin_of_another_gpu_is_refused(device: Device) -> None:
    problem = group([(dt.f32, (N,))], (N,), dt.f32, ex.load(0, (ex.Axis("i0"),), dt.f32))
    other = cuda_target("sm_120" if device.info.arch != "sm_120" else "sm_90")
    code = flat(problem, 128, 4)
    cubin = other.compile_one(Request(problem, code, code.launches[0])).cubin
    with pytest.raises(DeviceError, match="cuModuleLoadData failed"):
        device.load(cubin)


@pytest.mark.parametrize("name", groups.CASES)
def test_groups_in_every_configuration(name: str) -> None:
    problem = groups.CASES[name]
    rng = np.random.default_rng(len(name))
    operands = [values(rng, o.type, groups.ENV) for o in problem.operands]
    want, out = expected(problem, operands, groups.ENV), problem.outputs[0].dtype
    target = cuda_target()
    for config in groups.TACTIC.configs(problem, target):
        code = groups.TACTIC.emit(problem, target, config)
        (got,) = run_on_gpu(problem, code, operands, groups.ENV)
        (again,) = run_on_gpu(problem, code, operands, groups.ENV)
        np.testing.assert_array_equal(got, again)
        if out.is_float:
            limit = groups.TOLERANCE[out.name]
            np.testing.assert_allclose(got, want, rtol=limit, atol=limit, err_msg=str(config))
        else:
            np.testing.assert_array_equal(got, want, err_msg=str(config))


def on_gpu(problem: Problem, operands: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    assert problem.body is not None
    (got,) = run_on_gpu(problem, flat(problem, 64, 1), operands)
    out = problem.outputs[0].dtype
    dtype = dt.f64 if out.is_float else out
    return got, oracle.evaluate(problem.body.expr, (scalars.N,), dtype, operands, {})


@pytest.mark.parametrize("dtype", [dt.i64, dt.i32, dt.i8, dt.u8, dt.u64], ids=str)
def test_integer_division_has_no_exceptions(dtype: DType) -> None:
    for fn in ("div", "floordiv", "fmod", "floormod"):
        got, want = on_gpu(scalars.call(fn, dtype, 2), scalars.extremes(dtype))
        np.testing.assert_array_equal(got, want, err_msg=fn)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.f16, dt.bf16], ids=str)
def test_float_functions(dtype: DType) -> None:
    rng, wrong = np.random.default_rng(5), []
    for fn in [*scalars.FLOAT_UNARY, "div", "fmod", "pow", "min", "max", "atan2"]:
        unary = fn in ex.UNARY
        operands = [scalars.floats(rng, dtype, *scalars.DOMAIN.get(fn, (-9.0, 9.0))) for _ in range(1 if unary else 2)]
        got, want = on_gpu(scalars.call(fn, dtype, len(operands)), operands)
        if got.dtype == np.bool_:
            worst = float((got != want).any())
        else:
            worst = float(ulps(got, want, dtype, 3e-8 if fn in scalars.ABSOLUTE else 0.0).max())
        limit = {dt.bf16: 0.6}.get(dtype, scalars.LIMITS[dtype]) if fn != "pow" or dtype != dt.f64 else 400.0
        if worst > limit:
            wrong.append(f"{fn}: {worst} ulp")
    assert not wrong
