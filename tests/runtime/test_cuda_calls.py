"""What a session asks of the CUDA driver, call by call: on a GPU of the driver itself, elsewhere of a recorder.

Every test runs twice. The engines, sessions, contexts and graphs are the real ones both times; without a GPU only the
driver behind the call door is not, so nothing is computed.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import helper, numpy_helper

from bessemer.core.errors import DeviceError, InputError
from bessemer.device import cuda
from bessemer.device.cuda_api import Bindings
from bessemer.device.cuda_devices import require_device
from bessemer.engine.engine import Engine
from bessemer.frontend.profile import Profile
from bessemer.runtime import cuda as sessions
from bessemer.runtime import cuda_context
from bessemer.runtime.cuda import CudaSession
from bessemer.runtime.session import load
from bessemer.targets.cuda import cuda_target
from tests.device.test_cuda_driver import Recorder
from tests.runtime.counting import Counting, OnGpu
from tests.runtime.networks import WIDTH, as_model, built, expected, perceptron

pytestmark = pytest.mark.triton
MODEL = perceptron()


@pytest.fixture(scope="module", params=["recorder", pytest.param("gpu", marks=pytest.mark.gpu)])
def api(request: pytest.FixtureRequest) -> Iterator[Counting]:
    """The driver of this machine, or the recorder; every device made in this module is behind it."""
    inner = Bindings() if request.param == "gpu" else Recorder()
    counting = Counting(inner)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "bindings", lambda: counting)
        yield counting
        gc.collect()


@pytest.fixture(scope="module")
def engine(api: Counting) -> Engine:
    arch = require_device(0, api).arch
    return built(MODEL, cuda_target(arch), profiles=[Profile({"x": ((1, WIDTH), (16, WIDTH), (64, WIDTH))})])


@pytest.fixture
def session(engine: Engine) -> Iterator[CudaSession]:
    found = load(engine)
    assert isinstance(found, CudaSession)
    yield found
    found.close()


def random(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, WIDTH), np.float32)


def check(api: Counting, got: np.ndarray, x: np.ndarray) -> None:
    """The numbers, where there is a GPU to compute them."""
    if isinstance(api.inner, Bindings):
        np.testing.assert_allclose(got, expected(MODEL, x), rtol=1e-3, atol=1e-5)


def test_a_warm_run_is_one_graph_launch(api: Counting, session: CudaSession) -> None:
    pairs = [(OnGpu(api, random(n)), OnGpu(api, np.zeros((n, WIDTH), np.float32))) for n in (3, 64, 16)]
    for x, y in pairs * 2:
        session.run({"x": x}, out={"y": y})
        check(api, y.get(), x.array)
    for x, y in pairs * 3:
        api.names()
        assert session.run({"x": x}, out={"y": y})["y"] is y
        assert api.names() == ["cuCtxSetCurrent", "cuGraphLaunch", "cuStreamSynchronize"]
        check(api, y.get(), x.array)


def test_views_start_elsewhere_at_other_shapes(api: Counting) -> None:
    """Two products of one input are one, and what reads a half of it is given that half's address at every shape."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((64, 64), np.float32) / 8 for _ in range(2)]
    nodes = [helper.make_node("MatMul", ["x", f"w{k}"], [f"m{k}"]) for k in range(2)]
    nodes += [helper.make_node("Softmax", ["m1"], ["p"], axis=-1), helper.make_node("MatMul", ["m0", "p"], ["y"])]
    model = as_model(nodes, {"x": ["n", 64, 64]}, {"y": ["n", 64, 64]},
                     [numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)])  # fmt: skip
    target = cuda_target(require_device(0, api).arch)
    engine = built(model, target, profiles=[Profile({"x": ((1, 64, 64), (4, 64, 64), (16, 64, 64))})])
    (half,) = [n for n, t in enumerate(engine.program.tensors) if t.shift != 0]
    (whole,) = {n for s in engine.program.steps for n in s.writes if engine.program.tensors[n].shape[0] == 2}
    with load(engine) as session:
        assert isinstance(session, CudaSession)
        for n in (3, 16, 1, 3):
            x = rng.standard_normal((n, 64, 64), np.float32)
            y = session.run([x])["y"]
            (context,) = session._free
            assert context.tensors.address(half) == context.tensors.address(whole) + 4 * n * 64 * 64
            if isinstance(api.inner, Bindings):
                e = np.exp(x @ weights[1])
                np.testing.assert_allclose(y, (x @ weights[0]) @ (e / e.sum(-1, keepdims=True)), rtol=1e-3, atol=1e-4)


def test_a_warm_asynchronous_run_waits_for_nothing(api: Counting, session: CudaSession) -> None:
    stream = cuda.Device(0, api).stream()
    x, y = OnGpu(api, random(9)), OnGpu(api, np.zeros((9, WIDTH), np.float32))
    session.run_async({"x": x}, stream=int(stream.handle), out={"y": y})
    api.names()
    for _ in range(3):
        session.run_async({"x": x}, stream=int(stream.handle), out={"y": y})
    assert api.names() == ["cuCtxSetCurrent", "cuGraphLaunch"] * 3
    stream.synchronize()
    check(api, y.get(), x.array)


def test_other_arrays_are_patched_into_the_graph(api: Counting, session: CudaSession) -> None:
    made = [(OnGpu(api, random(5, seed)), OnGpu(api, np.zeros((5, WIDTH), np.float32))) for seed in range(3)]
    session.run([made[0][0]], out={"y": made[0][1]})
    for x, y in [*made, *reversed(made)]:
        api.names()
        session.run([x], out={"y": y})
        names = api.names()
        assert set(names) <= {"cuCtxSetCurrent", "cuGraphExecKernelNodeSetParams", "cuGraphLaunch",
                              "cuStreamSynchronize"}  # fmt: skip
        assert names.count("cuGraphLaunch") == 1
        check(api, y.get(), x.array)


def test_host_arrays_are_copied_once_each_way_into_memory_that_stays(api: Counting, session: CudaSession) -> None:
    for n in (64, 7):
        session.run([random(n)])
    for n in (7, 64, 7):
        api.names()
        got = session.run([random(n, n)])["y"]
        assert api.names() == [
            "cuCtxSetCurrent", "cuMemcpyHtoDAsync", "cuGraphLaunch", "cuStreamSynchronize", "cuMemcpyDtoH",
        ]  # fmt: skip
        check(api, got, random(n, n))


def test_the_producers_stream_is_waited_for_once(api: Counting, session: CudaSession) -> None:
    producer = cuda.Device(0, api).stream()
    y = OnGpu(api, np.zeros((4, WIDTH), np.float32), producer=int(producer.handle))
    x = OnGpu(api, random(4), producer=int(producer.handle))
    for warm in (False, True, True):  # once for both
        api.names()
        session.run([x], out={"y": y})
        if warm:
            assert api.names() == [
                "cuCtxSetCurrent", "cuEventRecord", "cuStreamWaitEvent", "cuGraphLaunch", "cuStreamSynchronize",
            ]  # fmt: skip
        check(api, y.get(), x.array)
    session.run_async([x], stream=int(producer.handle), out={"y": y})
    api.names()
    session.run_async([x], stream=int(producer.handle), out={"y": y})
    assert api.names() == ["cuCtxSetCurrent", "cuGraphLaunch"], "its own stream needs no waiting"


def test_shapes_are_forgotten_least_recently_used_first(
    api: Counting, session: CudaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_context, "MAX_SHAPES", 3)
    for n in (1, 2, 3, 1, 4):  # forgets 2
        session.run([random(n)])
    for n, captured in ((1, False), (3, False), (4, False), (2, True)):
        api.names()
        check(api, session.run([random(n)])["y"], random(n))
        assert ("cuStreamBeginCapture" in api.names()) == captured, n


def test_weights_are_loaded_once_for_all_contexts(api: Counting, session: CudaSession) -> None:
    weights = session.engine.weights.nbytes
    assert weights > session.engine.memory["arena"]
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            barrier.wait()
            for k in range(10):
                x = random(1 + (7 * seed + k) % 64, seed)
                check(api, session.run([x])["y"], x)
        except BaseException as error:
            failures.append(error)

    api.names()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    sizes = [c[1] for c in api.calls if c[0] == "cuMemAlloc"]
    assert sizes and max(sizes) < weights and "cuModuleLoadData" not in api.names()


def test_one_stream_may_be_used_from_many_threads(api: Counting, session: CudaSession) -> None:
    stream = cuda.Device(0, api).stream()
    pairs = [(OnGpu(api, random(5 + k, k)), OnGpu(api, np.zeros((5 + k, WIDTH), np.float32))) for k in range(4)]
    failures: list[BaseException] = []

    def work(pair: tuple[OnGpu, OnGpu]) -> None:
        try:
            for _ in range(20):
                session.run_async([pair[0]], stream=int(stream.handle), out={"y": pair[1]})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(session._queues) == 1
    stream.synchronize()
    for x, y in pairs:
        check(api, y.get(), x.array)


def test_callers_streams_keep_a_bounded_number_of_contexts(
    api: Counting, session: CudaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_STREAMS", 2)
    device = cuda.Device(0, api)
    streams = [device.stream() for _ in range(4)]
    x, y = OnGpu(api, random(5)), OnGpu(api, np.zeros((5, WIDTH), np.float32))
    for stream in (streams[0], streams[1], streams[0], streams[2], streams[3], streams[0]):
        session.run_async([x], stream=int(stream.handle), out={"y": y})
        stream.synchronize()
        check(api, y.get(), x.array)
    assert list(session._queues) == [int(streams[3].handle), int(streams[0].handle)]


def test_closing_gives_everything_back(api: Counting, engine: Engine) -> None:
    gc.collect()
    stream = cuda.Device(0, api).stream()
    x, y = OnGpu(api, random(5)), OnGpu(api, np.zeros((5, WIDTH), np.float32))
    for collected in (False, True):
        api.names()
        session = load(engine)
        assert isinstance(session, CudaSession)
        for n in (1, 2, 64):
            session.run([random(n)])
        session.run_async([x], stream=int(stream.handle), out={"y": y})
        if collected:
            del session
            gc.collect()
        else:
            session.close()
            session.close()
            with pytest.raises(InputError, match="the session is closed"):
                session.run([random(1)])
            with pytest.raises(InputError, match="the session is closed"):
                session.run_async([x], stream=int(stream.handle), out={"y": y})
        names = api.names()
        for made, freed in (
            ("cuMemAlloc", "cuMemFree"), ("cuModuleLoadData", "cuModuleUnload"), ("cuStreamCreate", "cuStreamDestroy"),
            ("cuGraphInstantiate", "cuGraphExecDestroy"), ("cuStreamEndCapture", "cuGraphDestroy"),
            ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease"),
        ):  # fmt: skip
            assert names.count(made) == names.count(freed) > 0, made


def test_buffers_that_do_not_fit_are_refused_before_anything_runs(api: Counting, session: CudaSession) -> None:
    x, y = OnGpu(api, random(5)), OnGpu(api, np.zeros((5, WIDTH), np.float32))
    wrong = [
        (OnGpu(api, np.zeros((5, WIDTH), np.int32)), "needed is a writable, C-contiguous f32"),
        (OnGpu(api, np.zeros((4, WIDTH), np.float32)), r"is f32 \[4, 96\] \(cuda\), needed"),
        (np.zeros((4, WIDTH), np.float32), r"is float32 \[4, 96\], needed is float32 \[5, 96\]"),
    ]
    session.run([x], out={"y": y})
    api.names()
    for out, message in wrong:
        with pytest.raises(InputError, match=message):
            session.run([x], out={"y": out})
    for call in (lambda out: session.run([x], out=out), lambda out: session.run_async([x], stream=0, out=out)):
        with pytest.raises(InputError, match="unknown outputs in out: z"):
            call({"z": y, "y": y})
    with pytest.raises(InputError, match="run_async needs a buffer on the GPU for y"):
        session.run_async([x], stream=0, out={})
    with pytest.raises(InputError, match="input x of run_async is not on the GPU"):
        session.run_async([random(5)], stream=0, out={"y": y})
    other = OnGpu(api, random(5))
    other.__dlpack_device__ = lambda: (2, 1)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="is on GPU 1, the session runs on GPU 0"):
        session.run([other], out={"y": y})
    assert "cuGraphLaunch" not in api.names()
    session.run([x], out={"y": y})
    check(api, y.get(), x.array)


def test_memory_that_ran_out_is_not_used_again(
    api: Counting, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer is freed before a larger one is asked for; where there is no room for it, nothing finds the old one."""

    def full(device: cuda.Device, nbytes: int) -> int:
        raise DeviceError(f"{nbytes} bytes of GPU memory: full")

    with load(engine) as session:
        session.run([random(2)])
        api.names()
        with monkeypatch.context() as patch:
            patch.setattr(cuda.Device, "alloc", full)
            with pytest.raises(DeviceError, match="of GPU memory: full"):
                session.run([random(64)])
        (freed,) = [args[0] for name, *args in api.calls if name == "cuMemFree"]
        x = random(1)
        check(api, session.run([x])["y"], x)
        assert [name for name, *_ in api.calls if name in ("cuMemFree", "cuMemAlloc")] == ["cuMemFree", "cuMemAlloc"]
        uploads = [args[0] for name, *args in api.calls if name == "cuMemcpyHtoDAsync"]
        assert uploads and (freed not in uploads or isinstance(api.inner, Bindings))


def test_timing_a_run_leaves_no_events(api: Counting, session: CudaSession) -> None:
    session.run([random(3)])
    api.names()
    assert len(session.device_ms({"x": random(3)}, 4)) == 4
    names = api.names()
    assert names.count("cuEventCreate") == names.count("cuEventDestroy") == 2


def test_buffers_that_share_memory_are_refused(api: Counting, session: CudaSession) -> None:
    x = OnGpu(api, random(5))
    api.names()
    for run in (lambda: session.run([x], out={"y": x}), lambda: session.run_async([x], stream=0, out={"y": x})):
        with pytest.raises(InputError, match="the out buffer for output y shares memory with that of input x"):
            run()
    assert "cuGraphLaunch" not in api.names()


def test_larger_shapes_leave_the_graphs_of_smaller_ones(api: Counting, engine: Engine) -> None:
    """Kernels get the hidden scratch memory of their largest grid at once, for graphs hold its address."""
    if isinstance(api.inner, Bindings):
        pytest.skip("the kernels of this engine have no scratch memory")
    with load(engine) as session:
        assert isinstance(session, CudaSession)
        for kernel in session._open().kernels:
            kernel._scratch = ((128, 128),)
        for n in (1, 16, 64):
            session.run([random(n)])
        for n in (1, 64, 16):
            api.names()
            session.run([random(n)])
            names = api.names()
            assert names.count("cuGraphLaunch") == 1 and "cuStreamBeginCapture" not in names, n
