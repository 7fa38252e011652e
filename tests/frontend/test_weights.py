"""Initializers: every element type and way of storing it, sparse ones, and external data with its attacks."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bessemer.core.errors import InvalidModel, UnsupportedModel
from bessemer.frontend.onnx import import_model
from bessemer.frontend.weights import Weights
from bessemer.ir.importer import ONNX_DTYPES, ONNX_NAMES, Refusal
from tests.frontend.models import model, node, tensor, value

RNG = np.random.default_rng(0)
WHOLE = [code for code, dtype in sorted(ONNX_DTYPES.items()) if dtype.kind != "n"]


def _array(code: int, shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    dtype = ONNX_DTYPES[code]
    bits = RNG.integers(0, 2, (*shape, dtype.itemsize), np.uint8)
    if dtype.kind == "b":
        return RNG.random(shape) < 0.5
    return bits.reshape(-1).view(dtype.numpy).reshape(shape)


@pytest.mark.parametrize("code", WHOLE, ids=[ONNX_NAMES[c] for c in WHOLE])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "field"])
def test_every_element_type_is_decoded(code: int, raw: bool):
    expected = _array(code)
    if raw:
        proto = TensorProto(name="w", data_type=code, dims=expected.shape, raw_data=expected.tobytes())
    else:
        flat = expected.reshape(-1)
        flat = flat.view(np.uint16) if ONNX_NAMES[code] == "float16" else flat
        if expected.dtype.kind == "c":
            flat = flat.view(np.float32 if code == TensorProto.COMPLEX64 else np.float64)
        field = {1: "float_data", 14: "float_data", 7: "int64_data", 11: "double_data", 15: "double_data",
                 12: "uint64_data", 13: "uint64_data"}.get(code, "int32_data")  # fmt: skip
        proto = TensorProto(name="w", data_type=code, dims=expected.shape)
        getattr(proto, field).extend(map(int, flat) if expected.dtype.kind == "b" else flat.tolist())
    constant = Weights(None).constant(proto)
    got = constant.load()
    assert constant.type.dtype == ONNX_DTYPES[code] and got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def test_equal_content_has_an_equal_key_however_it_is_stored():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw = Weights(None).constant(numpy_helper.from_array(array, "a"))
    field = Weights(None).constant(helper.make_tensor("b", TensorProto.FLOAT, (2, 3), array.ravel()))
    assert raw.key == field.key
    assert raw.key != Weights(None).constant(numpy_helper.from_array(array.T, "a")).key


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "field"])
def test_narrow_types_are_unpacked_one_value_per_byte(raw: bool):
    values = {"int4": [-8, -1, 0, 7, 3], "uint4": [15, 0, 9, 1, 2], "int2": [-2, -1, 0, 1, 1], "uint2": [3, 2, 1, 0, 3]}
    for name, expected in values.items():
        code = next(c for c, n in ONNX_NAMES.items() if n == name)
        bits = int(name[-1])
        whole = sum((v & ((1 << bits) - 1)) << (bits * k) for k, v in enumerate(expected))
        packed = whole.to_bytes(-(-5 * bits // 8), "little")
        stored = {"raw_data": packed} if raw else {"int32_data": list(packed)}
        constant = Weights(None).constant(TensorProto(name="w", data_type=code, dims=[5], **stored))
        assert constant.load().tolist() == expected and constant.load().dtype.itemsize == 1


def test_strings_are_refused_by_name():
    with pytest.raises(Refusal, match="element type string is not supported"):
        Weights(None).constant(TensorProto(name="w", data_type=TensorProto.STRING, dims=[1]))


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (TensorProto(name="w", data_type=1, dims=[3], raw_data=b"1234"), "holds 4 bytes, not 12"),
        (TensorProto(name="w", data_type=1, dims=[3], float_data=[1.0]), "holds 1 values in float_data, not 3"),
        (TensorProto(name="w", data_type=1, dims=[-3], raw_data=b""), "impossible shape"),
        (TensorProto(name="w", data_type=1, dims=[2**40, 2**40], raw_data=b""), "impossible shape"),
        (TensorProto(name="w", data_type=1, dims=[2**62, 4], raw_data=b""), "impossible shape"),
        (TensorProto(name="w", data_type=1, dims=[2**30]), "holds 0 values"),
    ],
)
def test_data_that_do_not_fit_their_shape_are_invalid(proto: TensorProto, message: str):
    with pytest.raises(InvalidModel, match=message):
        Weights(None).constant(proto)


def _sparse(indices: np.ndarray, dims: list[int]) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "i"), dims)


def test_sparse_tensors_become_dense():
    expected = np.zeros((3, 4), np.float32)
    expected[0, 1], expected[2, 3] = 1, 2
    for indices in (np.array([1, 11]), np.array([[0, 1], [2, 3]])):
        assert np.array_equal(Weights(None).sparse(_sparse(indices, [3, 4])).load(), expected)


@pytest.mark.parametrize("indices", [[1, 12], [-1, 2], [1]])
def test_sparse_indices_outside_the_shape_are_invalid(indices: list[int]):
    with pytest.raises(InvalidModel):
        Weights(None).sparse(_sparse(np.array(indices), [3, 4]))


def test_a_sparse_tensor_too_large_to_be_dense_is_refused():
    with pytest.raises(Refusal, match="too large"):
        Weights(None).sparse(_sparse(np.array([1, 11]), [2**20, 2**20]))


def test_an_initializer_that_is_an_input_is_a_constant_unless_the_user_names_it():
    weight = tensor("w", np.ones(2, np.float32))
    overridable = model([node("Add", ["x", "w"], ["y"])], [value("x", [2]), value("w", [2])], ["y"], [weight])
    assert import_model(overridable).inputs == ("x",)
    assert import_model(overridable, shapes={"w": (2,)}).inputs == ("x", "w")


def test_unused_initializers_are_never_looked_at():
    unused = TensorProto(name="strings", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])
    graph = import_model(model([node("Relu", ["x"], ["y"])], [value("x", [2])], ["y"], [unused]))
    assert "strings" not in graph.constants


def test_an_initializer_of_an_unsupported_type_is_reported_with_its_reader():
    strange = TensorProto(name="w", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"b"])
    with pytest.raises(UnsupportedModel, match="initializer 'w': element type string is not supported"):
        import_model(model([node("Add", ["x", "w"], ["y"], name="sum")], [value("x", [2])], ["y"], [strange]))


# -- external data ------------------------------------------------------------------------------------------------


def _external(folder: Path, location: str, *, offset: object = None, length: object = None) -> Path:
    """A model in `folder` whose weight w (4 floats) lies at `location`."""
    weight = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": offset, "length": length}
    for key, entry in entries.items():
        if entry is not None:
            weight.external_data.add(key=key, value=str(entry))
    path = folder / "model.onnx"
    proto = model([node("Add", ["x", "w"], ["y"])], [value("x", [4])], ["y"], [weight])
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_are_mapped_with_offset_and_length(tmp_path: Path):
    data = np.arange(8, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"pad!" + data.tobytes())
    graph = import_model(_external(tmp_path, "sub/w.bin", offset=8, length=16))
    (constant,) = graph.constants.values()
    assert np.array_equal(constant.load(), data[1:5])
    assert not constant.load().flags.writeable


@pytest.mark.parametrize(
    "location", ["../w.bin", "sub/../../w.bin", "/etc/hostname", "..\\w.bin", "C:\\w.bin", "", "a\0b"]
)
def test_external_data_outside_the_folder_are_refused(tmp_path: Path, location: str):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16))
    with pytest.raises(InvalidModel, match="outside the model's folder"):
        import_model(_external(folder, location))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    os.symlink(tmp_path / "secret", folder / "w.bin")
    with pytest.raises(InvalidModel, match="outside the model's folder"):
        import_model(_external(folder, "w.bin"))


@pytest.mark.parametrize(
    ("content", "extra", "message"),
    [
        (None, {}, "is missing"),
        (bytes(8), {}, "lie outside w.bin \\(8 bytes\\)"),
        (b"", {}, "lie outside w.bin \\(0 bytes\\)"),
        (bytes(16), {"offset": 4}, "lie outside"),
        (bytes(16), {"offset": -4}, "lie outside"),
        (bytes(64), {"length": 32}, "external data are 32 bytes, its type needs 16"),
        (bytes(16), {"offset": "x"}, "is no number"),
    ],
)
def test_missing_or_short_external_data_name_the_tensor(tmp_path: Path, content: bytes | None, extra, message: str):
    if content is not None:
        (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(InvalidModel, match=message) as error:
        import_model(_external(tmp_path, "w.bin", **extra))
    assert "'w'" in str(error.value)


def test_external_data_of_a_model_given_as_bytes_say_what_to_do(tmp_path: Path):
    path = _external(tmp_path, "w.bin")
    with pytest.raises(InvalidModel, match="pass the model's path"):
        import_model(path.read_bytes())


def test_a_weight_is_not_copied_while_importing(tmp_path: Path):
    size = 1 << 20
    (tmp_path / "w.bin").write_bytes(bytes(4 * size))
    weight = TensorProto(name="w", data_type=1, dims=[size], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(model([node("Add", ["x", "w"], ["y"])], [value("x", [size])], ["y"], [weight]).SerializeToString())
    (constant,) = import_model(path).constants.values()
    assert constant.load().base is not None and math.prod(constant.load().shape) == size
