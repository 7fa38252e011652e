"""Tensor maps of a program's launches: encoded for each shape, moved where the caller's arrays are, in graphs too."""

from __future__ import annotations

from types import SimpleNamespace

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.tensor_map import BITS, TensorMap
from bessemer.device.cuda import Device
from bessemer.engine.program import Arg, Program, Step, Tensor
from bessemer.runtime.cuda_context import CudaContext
from tests.device.test_cuda_driver import ABI
from tests.device.test_tensor_map import Encoder, held

N = sym("n")
ROWS = TensorMap((64, N), (128,), (64, 32))


def _context(api: Encoder) -> CudaContext:
    tensors = (
        Tensor("x", dt.f16, (N, 64), "input", 0, 128 * 100),
        Tensor("y", dt.f16, (N, 64), "output", 0, 128 * 100),
    )
    args = (Arg("map", 0, BITS, ROWS), Arg("tensor", 1))
    step = Step("kernel", "k", reads=(0,), writes=(1,), kernel=0, args=args, grid=(N,))
    program = Program("p", (0,), (1,), tensors, (step,), (), {}, 0, 0, 0)
    device = Device(0, api)
    kernel = device.load(b"cubin").kernel("k", {**ABI, "params": [BITS, 64], "scratch": []})
    return CudaContext(SimpleNamespace(program=program, device=device, kernels=[kernel], hosts={}))  # type: ignore[arg-type]


def _run(context: CudaContext, n: int, x: int, y: int) -> None:
    shapes = ((n, 64),)
    state = context.bind(shapes) or context.bind(shapes, {"n": n})
    assert state is not None
    context.tensors.addresses |= {("input", 0): x, ("output", 0): y}
    context.run(state, context.stream)


def test_maps_follow_shapes_and_addresses() -> None:
    api = Encoder()
    context = _context(api)
    _run(context, 5, 4096, 8192)
    encoded = [c for c in api.calls if c[0] == "cuTensorMapEncodeTiled"]
    assert [(c[3], c[4]) for c in encoded] == [(4096, [64, 5])]
    _run(context, 5, 4096, 8192)
    assert "cuTensorMapReplaceAddress" not in api.names()[api.names().index("cuGraphLaunch") :]
    start = len(api.calls)
    _run(context, 5, 12288, 8192)
    assert api.names(start) == ["cuTensorMapReplaceAddress", "cuGraphExecKernelNodeSetParams", "cuGraphLaunch"]
    (state,) = context._states.values()
    assert held(state.launches[0].args, 0) == [12288] * 16
    _run(context, 7, 4096, 8192)
    assert [c[4] for c in api.calls if c[0] == "cuTensorMapEncodeTiled"] == [[64, 5], [64, 7]]


def test_an_empty_tensor_has_no_map() -> None:
    api = Encoder()
    _run(_context(api), 0, 4096, 8192)
    assert not {"cuTensorMapEncodeTiled", "cuLaunchKernel"} & set(api.names())
