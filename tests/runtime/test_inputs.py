"""Arrays of other libraries are read where they lie; what cannot be read, or does not fit into memory, is said."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bessemer.core.errors import DeviceError, InputError
from bessemer.frontend.profile import Profile
from bessemer.runtime.bindings import as_array
from bessemer.runtime.session import load
from tests.runtime.networks import WIDTH, as_model, built, expected, perceptron

ROOT = Path(__file__).parents[2]


class Capsuled:
    """An array that offers DLPack alone, on a device of choice."""

    def __init__(self, array: np.ndarray, kind: int = 1) -> None:
        self.array, self.kind = array, kind

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_contiguous_arrays_are_not_copied() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert as_array(x) is x
    assert address(as_array(Capsuled(x))) == address(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert address(as_array(frozen)) == address(frozen)
    assert address(as_array(memoryview(x))) == address(x)
    turned = as_array(x.T)
    assert turned.flags.c_contiguous and np.array_equal(turned, x.T)


@pytest.mark.torch
def test_torch_tensors_are_not_copied() -> None:
    import torch

    for dtype in (torch.float32, torch.int64, torch.bool, torch.float16, torch.bfloat16):
        t = torch.arange(6).reshape(2, 3).to(dtype)
        found = as_array(t)
        assert address(found) == t.data_ptr() and found.shape == (2, 3)
        back = torch.from_numpy(found.copy())
        assert torch.equal(back.view(dtype) if dtype == torch.bfloat16 else back, t)
    part = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)[1:, ::2]
    assert torch.equal(torch.from_numpy(as_array(part).copy()).view(torch.bfloat16), part)
    with pytest.raises(InputError, match="requires_grad|require gradient"):
        as_array(torch.zeros(3, requires_grad=True))


@pytest.mark.torch
def test_a_run_on_torch_tensors() -> None:
    import torch

    model = perceptron()
    session = load(built(model))
    x = torch.randn(5, WIDTH)
    np.testing.assert_allclose(session.run({"x": x})["y"], expected(model, x.numpy()), rtol=1e-3, atol=1e-5)


def test_buffers_that_share_memory_are_refused() -> None:
    """Steps write an output while others still read: in the buffer of an input the numbers would be wrong."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    model = as_model(nodes, {"x": ["n", 4]}, {"y": ["n", 4], "z": ["n", 4]}, [])
    memory = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    x, y, z = memory[:4], memory[4:8], memory[8:12]
    with load(built(model)) as session:
        for out, message in (
            ({"y": x}, "the out buffer for output y shares memory with that of input x"),
            ({"z": memory[3:7]}, "the out buffer for output z shares memory with that of input x"),
            ({"y": y, "z": memory[7:11]}, "the out buffer for output z shares memory with that of output y"),
        ):
            with pytest.raises(InputError, match=message) as caught:
                session.run([x], out=out)
            assert caught.value.fix == "give it memory of its own"
        with pytest.raises(InputError, match="out was given as ndarray"):
            session.run([x], out=y)  # type: ignore[arg-type]
        session.run([x], out={"y": y, "z": z})
        np.testing.assert_array_equal(y, np.maximum(x, 0))
        np.testing.assert_array_equal(z, -x)


def test_scalars_of_any_library() -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    with load(built(as_model(nodes, {"x": []}, {"y": []}, []))) as session:
        for scalar in (np.float32(2), np.array(2, np.float32), Capsuled(np.array(2, np.float32))):
            assert session.run([scalar])["y"] == 4


def test_what_to_do_with_bfloat16_is_right() -> None:
    """A cast of numbers to the dtype that bf16 is carried in would make other numbers of them."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    with load(built(as_model(nodes, {"x": [3]}, {"y": [3]}, []))) as session:
        with pytest.raises(InputError, match="the engine takes f32") as caught:
            session.run([np.ones(3, np.uint16)])
    assert "if it is bfloat16, widen that first" in str(caught.value.fix)
    info = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [3])
    graph = helper.make_graph(nodes, "same", [info], [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with load(built(model)) as session, pytest.raises(InputError, match="as uint16 bits") as caught:
        session.run([np.ones(3, np.float32)])
    assert caught.value.fix == "give the bits of bfloat16: array.astype(ml_dtypes.bfloat16).view('uint16')"


def test_bfloat16_arrays_are_taken_as_what_they_are() -> None:
    """Of ml_dtypes, without a copy; what comes back are the bits."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["n", 3]) for name in "xy")
    graph = helper.make_graph(nodes, "less", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    numbers = np.random.default_rng(0).standard_normal((4, 6)).astype(ml_dtypes.bfloat16)
    with load(built(model)) as session:
        for given in (numbers[:, :3].copy(), numbers[:, ::2], numbers[:2, :3].copy(order="F")):
            found = session.run([given])["y"]
            assert found.dtype == np.uint16
            assert np.array_equal(found.view(ml_dtypes.bfloat16), -given)
            assert np.array_equal(session.run([np.ascontiguousarray(given).view(np.uint16)])["y"], found)
        kept = numbers[:, :3].copy()
        assert address(session.signature.taken(0, as_array(kept))) == address(kept)
        with pytest.raises(InputError, match="has dtype float8_e5m2, the engine takes bf16"):
            session.run([kept.astype(ml_dtypes.float8_e5m2)])
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    for dtype in (np.float32, np.uint16):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        x, y = (helper.make_tensor_value_info(name, kind, [4, 3]) for name in "xy")
        graph = helper.make_graph(nodes, "same", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        with load(built(model)) as session, pytest.raises(InputError, match="has dtype bfloat16") as caught:
            session.run([kept])
        assert caught.value.fix == f"convert it: array.astype('{np.dtype(dtype)}')"


def test_outputs_are_written_into_buffers_of_any_library() -> None:
    model = perceptron()
    session, x = load(built(model)), np.random.default_rng(0).standard_normal((5, WIDTH)).astype(np.float32)
    plain = session.run([x])["y"]
    y = np.full_like(plain, np.nan)
    buffer = Capsuled(y)
    assert session.run([x], out={"y": buffer})["y"] is buffer
    assert np.array_equal(y, plain)
    frozen = np.zeros_like(y)
    frozen.flags.writeable = False
    short = Capsuled(y[:4].copy())
    for wrong, message in (
        (short, r"is float32 \[4, 96\], needed is float32 \[5, 96\]"), (Capsuled(y, kind=2), "on a GPU"),
        (frozen, "writable"), ([1.0], "list is no array"), (None, "NoneType is no array"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            session.run([x], out={"y": wrong})


@pytest.mark.torch
def test_outputs_are_written_into_torch_tensors() -> None:
    import torch

    model = perceptron()
    session, x, y = load(built(model)), torch.randn(5, WIDTH), torch.empty(5, WIDTH)
    assert session.run([x], out={"y": y})["y"] is y
    np.testing.assert_allclose(y.numpy(), expected(model, x.numpy()), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("feeds", [None, np.zeros((2, WIDTH), np.float32), "x", 3])
def test_inputs_that_are_neither_named_nor_listed(feeds: Any) -> None:
    with pytest.raises(InputError, match="inputs were given as") as caught:
        load(built(perceptron(layers=1))).run(feeds)
    assert "{name: array}" in str(caught.value.fix)


def test_what_is_no_engine_and_what_is_no_number_is_said() -> None:
    engine = built(perceptron(layers=1))
    most = engine.manifest["target"]["threads"]
    for source in (None, 5):
        with pytest.raises(InputError, match=f"an engine was given as {type(source).__name__}") as caught:
            load(source)  # type: ignore[arg-type]
        assert caught.value.fix == "give a path, the bytes of a file, or an Engine"
    for threads in (1.5, "2", 0, -1):
        with pytest.raises(InputError, match=f"{threads!r} threads were asked for") as caught:
            load(engine, threads=threads)  # type: ignore[arg-type]
        assert caught.value.fix == f"give a whole number from 1 to {most}"
    with pytest.raises(InputError, match="threads were asked for") as caught:
        load(engine, threads=most + 1)
    assert caught.value.fix == f"build it with threads={most + 1}"
    with load(engine) as session:
        for runs in (0, -1, 1.5, "2", None):
            with pytest.raises(InputError, match=f"{runs!r} runs were asked for") as caught:
                session.profile([np.ones((2, WIDTH), np.float32)], runs)  # type: ignore[arg-type]
            assert caught.value.fix == "give a whole number, 1 or more"
        assert len(session.profile([np.ones((2, WIDTH), np.float32)], 1)) == len(engine.program.steps)


def test_arrays_on_a_gpu_say_what_to_do() -> None:
    class OnGpu:
        __cuda_array_interface__ = {"data": (4096, False), "shape": (2,), "typestr": "<f4", "version": 3}

    for array in (Capsuled(np.zeros(3), kind=2), OnGpu()):
        with pytest.raises(InputError, match="is on a GPU, the engine runs on the CPU") as caught:
            as_array(array)
        assert caught.value.fix and ".cpu()" in caught.value.fix


@pytest.mark.parametrize("value", [None, "text", object(), [[1], [2, 3]], {"a": 1}])
def test_what_is_no_array_is_said(value: Any) -> None:
    session = load(built(perceptron(layers=1)))
    with pytest.raises(InputError):
        session.run({"x": value})


# -- too little memory ------------------------------------------------------------------------------------------------

STARVED = """
import resource, sys
import numpy as np
from bessemer.core.errors import DeviceError
from bessemer.runtime.session import load

session = load(sys.argv[1], threads=1)
x = np.ones((100_000, 96), np.float32)  # the arena is made in the first run, the output in each
if sys.argv[2] == "output":
    session.run([x[:1]])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20), -1))
try:
    session.run([x])
except DeviceError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print(session.run([x])["y"].shape)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("what", ["arena", "output"])
def test_too_little_memory_is_said_with_the_fix(tmp_path: Path, what: str) -> None:
    assert resource.RLIMIT_AS
    engine = built(perceptron(), profiles=[Profile({"x": ((1, WIDTH), (16, WIDTH), (100_000, WIDTH))})])
    path = engine.save(tmp_path / "net.engine")
    command = [sys.executable, "-c", STARVED, str(path), what]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said, shape = done.stdout.rsplit("\n", 2)[0:2]
    nbytes = 4 * WIDTH * 100_000 if what == "output" else engine.memory["arena"] + 64
    assert f"{nbytes} bytes of memory could not be allocated" in said
    assert "fix: free memory, run a smaller batch, or build with a smaller profile" in said
    assert shape == "(100000, 96)", "the session works again once there is memory"


@pytest.mark.parametrize("op,size", [("Pad", 2**61), ("Tile", 2**62), ("Expand", 2**50)])
def test_huge_sizes_cost_a_build_nothing(op: str, size: int) -> None:
    """What is only read in parts is never stored."""
    amount = np.array([size, size] if op == "Pad" else [size])
    model = as_model(
        [helper.make_node(op, ["x", "n"], ["h"]), helper.make_node("ReduceMax", ["h"], ["y"], keepdims=0)],
        {"x": [1]}, {"y": []}, [numpy_helper.from_array(amount, "n")],
    )  # fmt: skip
    assert built(model).memory["arena"] < 1 << 20


def test_a_huge_result_is_said_when_it_is_asked_for() -> None:
    model = as_model(
        [helper.make_node("ConstantOfShape", ["n"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
        {"x": [1]}, {"y": [2**31, 2**31]}, [numpy_helper.from_array(np.array([2**31, 2**31]), "n")],
    )  # fmt: skip
    session = load(built(model))
    with pytest.raises(DeviceError, match=f"{4 << 62} bytes of memory could not be allocated"):
        session.run([np.ones(1, np.float32)])
