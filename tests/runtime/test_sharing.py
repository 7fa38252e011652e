"""One session in many threads, at many shapes: right results, weights once, bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from weakref import finalize

import numpy as np
import pytest

from bessemer.core.errors import InputError, ShapeError
from bessemer.frontend.profile import Profile
from bessemer.runtime import cpu_context
from bessemer.runtime.session import CpuSession, load
from tests.runtime.networks import WIDTH, as_model, built, expected, perceptron

MODEL = perceptron()


@pytest.fixture
def session(tmp_path: Path) -> CpuSession:
    engine = built(MODEL, profiles=[Profile({"x": ((1, WIDTH), (16, WIDTH), (200, WIDTH))})])
    found = load(engine.save(tmp_path / "net.engine"))
    assert isinstance(found, CpuSession)
    return found


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """`work(number)` in that many threads at once; the first failure is raised here."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_get_their_own_results(session: CpuSession) -> None:
    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        out = np.empty((7 + number, WIDTH), np.float32)
        for k in range(40):
            n = 7 + number if k % 2 else int(rng.integers(1, 200))
            x = rng.standard_normal((n, WIDTH), np.float32)
            got = session.run({"x": x}, out={"y": out} if k % 2 else None)["y"]
            np.testing.assert_allclose(got, expected(MODEL, x), rtol=1e-3, atol=1e-5)

    in_threads(6, work)
    assert 1 <= len(session._free) <= 6


def test_weights_and_code_are_loaded_once(session: CpuSession) -> None:
    """Every context's pointers go into the one mapped weight section."""
    in_threads(4, lambda number: [session.run([np.ones((64, WIDTH), np.float32)]) for _ in range(20)] and None)
    contexts = session._free + [cpu_context.CpuContext(session._shared, 1) for _ in range(2)]
    weights = session._shared.weights
    assert weights.base is not None, "mapped, not copied"
    assert len({id(c.table.library) for c in contexts}) == 1
    low, high = weights.ctypes.data, weights.ctypes.data + weights.nbytes
    inside = {tuple(int(p) for p in c.table.pointers if low <= int(p) < high) for c in contexts}
    assert len(inside) == 1 and len(next(iter(inside))) >= 8
    assert len({c.arena.ctypes.data for c in contexts}) == len(contexts), "arenas are their own"


def test_a_context_remembers_a_bounded_number_of_shapes(session: CpuSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_context, "MAX_SHAPES", 5)
    rng = np.random.default_rng(0)
    for n in (*range(1, 30), 3, 29, 28, 3, 27, 26, 25, 24, 3, 1):
        x = rng.standard_normal((n, WIDTH), np.float32)
        np.testing.assert_allclose(session.run([x])["y"], expected(MODEL, x), rtol=1e-3, atol=1e-5)
    (context,) = session._free
    assert [shapes[0][0] for shapes in context._bound] == [26, 25, 24, 3, 1], "the least recently used goes first"


def test_a_failed_run_costs_only_itself(session: CpuSession) -> None:
    x = np.ones((3, WIDTH), np.float32)
    good = session.run([x])["y"]

    def work(number: int) -> None:
        for k in range(60):
            if (number + k) % 3 == 0:
                with pytest.raises(ShapeError, match="allowed are 1 to 200"):
                    session.run([np.ones((201 + k, WIDTH), np.float32)])
            elif (number + k) % 3 == 1:
                with pytest.raises(InputError, match="has dtype float64"):
                    session.run([x.astype(np.float64)])
            else:
                np.testing.assert_array_equal(session.run([x])["y"], good)

    in_threads(4, work)
    assert len(session._free) <= 4, "contexts of failed runs are given back"


def test_host_steps_run_in_threads_too() -> None:
    """Steps that call back into Python, with sizes that depend on the data."""
    import onnx
    from onnx import helper

    model = as_model(
        [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=onnx.TensorProto.FLOAT)],
        {"x": [None, 4]}, {"y": [None, None]},
    )  # fmt: skip
    session = load(built(model, profiles=[Profile({"x": ((1, 4), (4, 4), (64, 4))})]))

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(30):
            x = rng.integers(0, 2, (int(rng.integers(1, 64)), 4)).astype(np.float32)
            np.testing.assert_array_equal(session.run([x])["y"], np.array(np.nonzero(x), np.float32))

    in_threads(4, work)


def test_a_closed_session_says_so(session: CpuSession) -> None:
    x = np.ones((3, WIDTH), np.float32)
    threads = threading.active_count()
    with session as same:
        assert same is session
        session.run([x])
        freed: list[int] = []
        finalize(session._shared, freed.append, 1)
    session.close()
    assert threading.active_count() == threads and not session._free
    assert freed, "its weights and code are still held"
    with pytest.raises(InputError, match="the session is closed") as caught:
        session.run([x])
    assert caught.value.fix == "load the engine again"


def test_a_session_that_is_dropped_is_freed() -> None:
    """Its threads and its memory, at once: nothing waits for a collection of garbage."""
    session = load(built(MODEL, profiles=[Profile({"x": ((1, WIDTH), (16, WIDTH), (200, WIDTH))})]))
    session.run([np.ones((3, WIDTH), np.float32)])
    assert isinstance(session, CpuSession)
    freed: list[int] = []
    for part in (session._free[0], session._free[0].table, session._shared):
        finalize(part, freed.append, len(freed))
    del session, part
    assert len(freed) == 3


def test_outputs_whose_size_depends_on_data_take_no_buffer() -> None:
    from onnx import TensorProto, helper

    model = as_model(
        [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)],
        {"x": [3, 4]}, {"y": [None, None]},
    )  # fmt: skip
    session = load(built(model))
    with pytest.raises(InputError, match="output y takes no buffer: its size depends on the data"):
        session.run([np.ones((3, 4), np.float32)], out={"y": np.empty((2, 12), np.float32)})
    with pytest.raises(InputError, match="unknown outputs in out: z") as caught:
        session.run([np.ones((3, 4), np.float32)], out={"z": np.empty((2, 12), np.float32)})
    assert caught.value.fix == "the outputs are y"
