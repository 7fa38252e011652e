"""On a GPU: arrays of torch by address on any stream, sessions in threads, and what does not fit is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bessemer.core.errors import DeviceError, EngineMismatchError, InputError
from bessemer.device import cuda
from bessemer.device.cuda_api import Bindings
from bessemer.device.cuda_devices import require_device
from bessemer.engine.engine import Engine
from bessemer.frontend.profile import Profile
from bessemer.runtime.cuda import CudaSession
from bessemer.runtime.session import load
from bessemer.targets.cuda import cuda_target
from tests.runtime.counting import Counting
from tests.runtime.networks import as_model, built, expected, perceptron

pytestmark = [pytest.mark.gpu, pytest.mark.torch, pytest.mark.triton]
WIDTH = 512
MODEL = perceptron(WIDTH)
PROFILE = Profile({"x": ((1, WIDTH), (64, WIDTH), (2048, WIDTH))})


@pytest.fixture(scope="module")
def engine() -> Engine:
    return built(MODEL, cuda_target(require_device().arch), profiles=[PROFILE])


@pytest.fixture
def session(engine: Engine) -> Iterator[CudaSession]:
    found = load(engine)
    assert isinstance(found, CudaSession)
    yield found
    found.close()


def close(got: Any, x: np.ndarray) -> None:
    array = got if isinstance(got, np.ndarray) else got.cpu().numpy()
    np.testing.assert_allclose(array, expected(MODEL, x), rtol=2e-3, atol=1e-5)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, WIDTH), np.float32)


class Ledger(Counting):
    """The driver of this machine, with the bytes that are allocated by it; after `allocations` of them it is asked for
    more than any GPU has."""

    def __init__(self, allocations: int = 1000) -> None:
        super().__init__(Bindings())
        self.left, self.sizes = allocations, dict[int, int]()

    def call(self, name: str, *args: Any) -> Any:
        if name == "cuMemFree":
            del self.sizes[int(args[0])]
        if name != "cuMemAlloc":
            return self.inner.call(name, *args)
        self.left -= 1
        address = self.inner.call(name, args[0] if self.left >= 0 else 1 << 50)
        self.sizes[int(address)] = args[0]
        return address


class DlpackOnly:
    """A torch tensor that shows DLPack and nothing else; remembers for which stream it was asked."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.streams: list[Any] = []

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        self.streams.append(stream)
        return self.tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


class InterfaceOnly:
    """A torch tensor that shows __cuda_array_interface__ and nothing else, with the stream that makes it."""

    def __init__(self, tensor: Any, producer: int | None = None) -> None:
        self.tensor = tensor
        self.__cuda_array_interface__ = {**tensor.__cuda_array_interface__, "stream": producer, "version": 3}


def test_torch_tensors_are_used_by_address(session: CudaSession) -> None:
    import torch

    x, y = torch.randn(64, WIDTH, device="cuda"), torch.empty(64, WIDTH, device="cuda")
    for given, out in ((x, y), (DlpackOnly(x), DlpackOnly(y)), (InterfaceOnly(x), InterfaceOnly(y))):
        y.zero_()
        assert session.run({"x": given}, out={"y": out})["y"] is out
        close(y, x.cpu().numpy())
        (context,) = session._free
        addresses = context.tensors.addresses
        assert addresses[("input", 0)] == x.data_ptr() and addresses[("output", 0)] == y.data_ptr()
    close(session.run({"x": x})["y"], x.cpu().numpy())
    with pytest.raises(InputError, match="not C-contiguous"):
        session.run({"x": torch.randn(WIDTH, 64, device="cuda").T})
    with pytest.raises(InputError, match="detach"):
        session.run({"x": torch.randn(64, WIDTH, device="cuda", requires_grad=True)})


def slowly(torch: Any, value: Any) -> Any:
    """The same value, made by work that takes milliseconds on the current stream."""
    big = torch.full((4096, 4096), 1e-4, device="cuda")
    for _ in range(12):
        big = big @ big
    return value + big[0, 0] * 0


@pytest.mark.parametrize("wrap", [lambda t, s: t, lambda t, s: DlpackOnly(t), lambda t, s: InterfaceOnly(t, s)],
                         ids=["torch", "dlpack", "interface"])  # fmt: skip
def test_a_run_waits_for_the_work_that_makes_its_inputs(session: CudaSession, wrap: Any) -> None:
    import torch

    base = torch.from_numpy(rows(64)).cuda()
    y = torch.empty(64, WIDTH, device="cuda")
    session.run([base], out={"y": y})
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        for k in range(4):
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                x = torch.empty_like(base)
                x.copy_(slowly(torch, base * (k + 1)))
                handle = stream.cuda_stream or 1
                session.run([wrap(x, handle)], out={"y": wrap(y, handle)})
            close(y, rows(64) * np.float32(k + 1))


def test_asynchronous_runs_are_in_the_order_of_their_stream(session: CudaSession) -> None:
    import torch

    stream = torch.cuda.Stream()
    x, y = torch.empty(64, WIDTH, device="cuda"), torch.empty(64, WIDTH, device="cuda")
    data = [torch.from_numpy(rows(64, seed)).cuda() for seed in range(6)]
    torch.cuda.synchronize()
    kept = []
    with torch.cuda.stream(stream):
        for d in data:
            x.copy_(slowly(torch, d))
            assert session.run_async([x], stream=stream, out={"y": y})["y"] is y
            kept.append(y.clone())
        assert not stream.query(), "nothing was waited for"
    stream.synchronize()
    for seed, got in enumerate(kept):
        close(got, rows(64, seed))


def test_sessions_in_threads_and_on_streams(session: CudaSession) -> None:
    import torch

    failures: list[BaseException] = []
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            stream = torch.cuda.Stream()
            barrier.wait()
            for k in range(25):
                n = 1 + (number * 97 + k * 31) % 512
                x = rows(n, k)
                if number % 2:
                    close(session.run([x])["y"], x)
                    continue
                with torch.cuda.stream(stream):
                    y = torch.empty(n, WIDTH, device="cuda")
                    session.run_async([torch.from_numpy(x).cuda()], stream=stream, out={"y": y})
                    stream.synchronize()
                close(y, x)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_weights_lie_on_the_gpu_once_and_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Ledger()
    monkeypatch.setattr(cuda, "bindings", lambda: driver)
    profile = Profile({"x": ((1, 4096), (8, 4096), (8, 4096))})
    engine = built(perceptron(4096, 4), cuda_target(require_device().arch), profiles=[profile])  # 256 MB
    session = load(engine)
    contexts = 4
    threads = [threading.Thread(target=session.run, args=([np.ones((8, 4096), np.float32)],)) for _ in range(contexts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    weights, used = engine.memory["weights"], sum(driver.sizes.values())
    assert weights > 256 << 20
    assert weights < used < weights + contexts * (engine.memory["arena"] + (1 << 20))
    session.close()
    assert not driver.sizes


def test_bfloat16_inputs_and_data_dependent_outputs() -> None:
    import torch
    from onnx import TensorProto, helper

    model = as_model(
        [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), helper.make_node("NonZero", ["f"], ["n"]),
         helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT), helper.make_node("Relu", ["f"], ["r"])],
        {"x": [4, 8]}, {"y": [None, None], "r": [4, 8]},
    )  # fmt: skip
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.BFLOAT16
    session = load(built(model, cuda_target(require_device().arch)))
    assert isinstance(session, CudaSession)
    x = (torch.randint(-1, 2, (4, 8)) * 1.5).to(torch.bfloat16)
    bits = x.view(torch.uint16).numpy()
    for given in (x, x.cuda(), bits, bits.view(pytest.importorskip("ml_dtypes").bfloat16)):
        found = session.run([given])
        np.testing.assert_array_equal(found["y"], np.array(np.nonzero(x.float().numpy()), np.float32))
        np.testing.assert_array_equal(found["r"], np.maximum(x.float().numpy(), 0))
    with pytest.raises(InputError, match="takes no buffer: its size depends on the data"):
        session.run_async([x.cuda()], stream=0, out={"y": torch.empty(2, 8).cuda(), "r": torch.empty(4, 8).cuda()})
    session.close()


def test_results_are_the_same_on_every_run(session: CudaSession) -> None:
    x = rows(777)
    first = session.run([x])["y"]
    for _ in range(20):
        np.testing.assert_array_equal(session.run([x])["y"], first)


def test_an_engine_for_another_gpu_is_refused_with_both_named() -> None:
    here = require_device()
    other = "sm_80" if here.arch != "sm_80" else "sm_90"
    with pytest.raises(EngineMismatchError) as caught:
        load(built(perceptron(layers=1), cuda_target(other)))
    assert other in caught.value.what and here.arch in caught.value.what and here.name in caught.value.what
    assert caught.value.fix == f"build it with --target cuda:{here.arch}"


@pytest.mark.parametrize("allocations", range(4))
def test_too_little_gpu_memory_is_said_with_the_fix(
    engine: Engine, allocations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of weights, arena, input and output, whichever does not fit."""
    driver = Ledger(allocations)
    monkeypatch.setattr(cuda, "bindings", lambda: driver)
    with pytest.raises(DeviceError, match="bytes of GPU memory: .*OUT_OF_MEMORY") as caught:
        load(engine).run([rows(2048)])
    assert caught.value.fix == "free memory on the GPU, or build with a smaller profile"
    assert driver.left == -1
    monkeypatch.undo()
    close(load(engine).run([rows(5)])["y"], rows(5))
