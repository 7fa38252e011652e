"""The order of driver calls, on a recorder in the driver's place. That kernels run is shown by the gpu tests."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bessemer.core.errors import DeviceError
from bessemer.device.cuda import Device
from bessemer.device.cuda_api import Bindings
from bessemer.device.cuda_devices import devices, require_device

ABI = {"params": [64, 32], "scratch": [[0, 1], [128, 16]], "shared": 100_000, "warps": 4, "pdl": False}
ATTRIBUTES = {"COMPUTE_CAPABILITY_MAJOR": 9, "COMPUTE_CAPABILITY_MINOR": 0, "MULTIPROCESSOR_COUNT": 132,
              "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448, "L2_CACHE_SIZE": 50 << 20}  # fmt: skip
RESULTS: dict[str, Any] = {
    "cuDeviceGetCount": 1, "cuDeviceGet": 0, "cuDeviceGetName": b"NVIDIA H200\0\0", "cuDriverGetVersion": 13000,
    "cuDeviceTotalMem": 141 << 30, "cuMemGetInfo": (5, 9), "cuDevicePrimaryCtxGetState": (0, 1),
    "cuStreamGetCaptureInfo": (1, 1, 0, ["node"], [], 1),
}  # fmt: skip


class Recorder:
    """Writes down every call and answers with something plausible; `fails` names calls that raise."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails
        self.free = 1 << 32  # where the next memory starts: no two share any

    def call(self, name: str, *args: Any) -> Any:
        self.calls.append((name, *args))
        if name in self.fails:
            raise DeviceError(f"{name} failed: CUDA_ERROR_OUT_OF_MEMORY: out of memory", fix="free memory")
        if name == "cuDeviceGetAttribute":
            return ATTRIBUTES[args[0].removeprefix("CU_DEVICE_ATTRIBUTE_")]
        if name == "cuMemAlloc":
            address, self.free = self.free, self.free + -(-args[0] // 256) * 256
            return address
        return RESULTS.get(name, 0x1000 + len(self.calls))

    def constant(self, enum: str, member: str) -> Any:
        return member

    def struct(self, name: str, *value: int) -> Any:
        return value[0] if value else SimpleNamespace(name=name, value=SimpleNamespace())

    def names(self, start: int = 0) -> list[str]:
        return [c[0] for c in self.calls[start:]]


def test_a_gpu_is_described() -> None:
    (info,) = devices(Recorder())
    assert (info.name, info.arch, info.sms, info.shared_bytes) == ("NVIDIA H200", "sm_90", 132, 232448)
    assert info.driver == "13.0" and info.fingerprint()["memory_bytes"] == 141 << 30
    with pytest.raises(DeviceError, match="no GPU number 3"):
        require_device(3, Recorder())


def test_the_primary_context_is_made_current() -> None:
    api = Recorder()
    device = Device(0, api)
    assert api.names()[-2:] == ["cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]
    device.close()
    assert api.names()[-1] == "cuDevicePrimaryCtxRelease"


def test_a_new_context_sets_no_stack_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULTS, "cuDevicePrimaryCtxGetState", (0, 0))
    api = Recorder()
    Device(0, api)
    assert api.calls[-1] == ("cuCtxSetLimit", "CU_LIMIT_STACK_SIZE", 0)


def test_a_launch_is_one_call_with_packed_arguments() -> None:
    api = Recorder()
    device = Device(0, api)
    kernel = device.load(b"cubin").kernel("gemm", ABI)
    assert api.calls[-1] == (
        "cuFuncSetAttribute", kernel.function, "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", 100_000,
    )  # fmt: skip
    args = kernel.arguments([0xABCDEF0123, -7])
    stream = device.stream()
    start = len(api.calls)
    kernel.launch((3, 2), args, stream)
    assert api.calls[start:] == [
        ("cuLaunchKernel", kernel.function, 3, 2, 1, 128, 1, 1, 100_000, stream.handle, args.address, 0)
    ]
    pointers = np.ctypeslib.as_array((ctypes.c_uint64 * 4).from_address(args.address))
    assert ctypes.c_uint64.from_address(int(pointers[0])).value == 0xABCDEF0123
    assert ctypes.c_int32.from_address(int(pointers[1])).value == -7
    assert kernel.scratch_bytes((3, 2)) == (0, 768)
    args.scratch(1, 4096)
    assert ctypes.c_uint64.from_address(int(pointers[3])).value == 4096


def test_an_empty_grid_launches_nothing() -> None:
    api = Recorder()
    device = Device(0, api)
    kernel, stream = device.load(b"cubin").kernel("k", ABI), device.stream()
    start = len(api.calls)
    kernel.launch((0,), kernel.arguments([1, 2]), stream)
    assert api.names(start) == []


def test_programmatic_launches_carry_the_attribute() -> None:
    api = Recorder()
    device = Device(0, api)
    kernel, stream = device.load(b"cubin").kernel("k", {**ABI, "pdl": True}), device.stream()
    kernel.launch((5,), kernel.arguments([1, 2]), stream)
    name, config, *_ = api.calls[-1]
    assert name == "cuLaunchKernelEx" and (config.gridDimX, config.blockDimX, config.numAttrs) == (5, 128, 1)
    assert config.attrs[0].value.programmaticStreamSerializationAllowed == 1


def test_a_graph_is_captured_launched_and_updated() -> None:
    api = Recorder()
    device = Device(0, api)
    kernel, stream = device.load(b"cubin").kernel("k", ABI), device.stream()
    args = kernel.arguments([1, 2])
    start = len(api.calls)
    with stream.capture() as graph:
        kernel.launch((4,), args, stream)
    graph.launch(stream)
    args[0] = 77
    graph.update(0, kernel, (9,), args)
    graph.close()
    assert api.names(start) == [
        "cuStreamBeginCapture", "cuLaunchKernel", "cuStreamGetCaptureInfo", "cuStreamEndCapture", "cuGraphInstantiate",
        "cuGraphLaunch", "cuGraphExecKernelNodeSetParams", "cuGraphExecDestroy", "cuGraphDestroy",
    ]  # fmt: skip
    _, _, node, params = next(c for c in api.calls if c[0] == "cuGraphExecKernelNodeSetParams")
    assert node == "node" and params.gridDimX == 9 and params.kernelParams == args.address


def test_a_capture_that_breaks_is_ended() -> None:
    api = Recorder()
    stream = Device(0, api).stream()
    start = len(api.calls)
    with pytest.raises(ValueError, match="boom"), stream.capture():
        raise ValueError("boom")
    assert api.names(start) == ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphDestroy"]
    assert stream.recording is None


def test_copies_wait_without_a_stream_and_queue_with_one() -> None:
    api = Recorder()
    device = Device(0, api)
    stream = device.stream()
    start = len(api.calls)
    device.upload(1, 2, 64)
    device.upload(1, 2, 64, stream)
    device.download(2, 1, 64, stream)
    device.copy(3, 1, 64, stream)
    device.fill(3, 255, 64)
    device.copy(3, 1, 0, stream)
    wait = "cuStreamSynchronize"
    assert api.names(start) == [
        "cuMemcpyHtoD", wait, "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync", "cuMemsetD8", wait,
    ]  # fmt: skip
    assert [c for c in api.calls[start:] if c[0] == wait] == [(wait, 0), (wait, 0)]


def test_streams_and_events() -> None:
    api = Recorder()
    device = Device(0, api)
    start = len(api.calls)
    stream, event = device.foreign_stream(0x77), device.event(timing=True)
    event.record(stream)
    stream.wait(event)
    event.close()
    stream.close()  # the caller's: it stays
    assert api.names(start) == ["cuEventCreate", "cuEventRecord", "cuStreamWaitEvent", "cuEventDestroy"]
    assert api.calls[start + 1] == ("cuEventRecord", event.handle, 0x77)


def test_errors_name_the_size_and_the_fix() -> None:
    device = Device(0, Recorder(fails=["cuMemAlloc"]))
    with pytest.raises(DeviceError, match="4096 bytes of GPU memory") as caught:
        device.alloc(4096)
    assert caught.value.fix == "free memory"


def test_arguments_are_checked() -> None:
    device = Device(0, Recorder())
    kernel = device.load(b"cubin").kernel("k", ABI)
    with pytest.raises(DeviceError, match="2 arguments is given 3"):
        kernel.arguments([1, 2, 3])
    with pytest.raises(DeviceError, match="does not fit into 32 bits"):
        kernel.arguments([1, 2**40])
    with pytest.raises(DeviceError, match="build the engine for this GPU"):
        device.load(b"cubin").kernel("k", {**ABI, "shared": 1 << 20})


def test_a_machine_without_a_gpu_is_told_what_to_do() -> None:
    try:
        Bindings()
    except DeviceError as error:
        assert error.fix and ("pip install" in error.fix or "GPU" in error.fix or "driver" in error.fix)
    else:
        assert devices() is not None
