"""Tensors of a model as lazy constants: nothing is decoded before it is used, and external data are memory-mapped."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.core.errors import InvalidModel
from bessemer.frontend.wire import Slices
from bessemer.ir.graph import Constant, TensorType
from bessemer.ir.importer import ONNX_DTYPES, ONNX_NAMES, Refusal

LARGEST = 2**46  # bytes of one tensor
DENSE_LIMIT = 2**31  # bytes of a sparse tensor once dense

# TensorProto's typed fields: what each dtype is stored in, and the numpy type of that field.
_FIELDS = {
    **dict.fromkeys((dt.i32, dt.i16, dt.i8, dt.u16, dt.u8, dt.bool_, dt.f16, dt.bf16), ("int32_data", np.int32)),
    **dict.fromkeys(dt.NARROW, ("int32_data", np.int32)),
    dt.f32: ("float_data", np.float32), dt.c64: ("float_data", np.float32), dt.i64: ("int64_data", np.int64),
    dt.f64: ("double_data", np.float64), dt.c128: ("double_data", np.float64),
    dt.u32: ("uint64_data", np.uint64), dt.u64: ("uint64_data", np.uint64),
}  # fmt: skip


class Weights:
    """Reads the tensors of one model.

    `folder` holds its external data; files are mapped once. `slices` are the large weights that were not parsed.
    """

    def __init__(self, folder: Path | None, slices: Slices | None = None) -> None:
        self._folder, self._slices = folder, slices or Slices()
        self._maps: dict[Path, memoryview] = {}

    def constant(self, tensor: onnx.TensorProto) -> Constant:
        """`tensor` as a constant; InvalidModel where its data and shape disagree, Refusal for a type without dtype."""
        type_ = tensor_type(tensor)
        load = self._loader(tensor, type_)
        return Constant(type_, load, _key(load(), type_))

    def array(self, tensor: onnx.TensorProto) -> tuple[np.ndarray, DType]:
        """The array of `tensor` (bf16 as bits) and its dtype."""
        type_ = tensor_type(tensor)
        return self._loader(tensor, type_)(), type_.dtype

    def sparse(self, tensor: onnx.SparseTensorProto) -> Constant:
        """A sparse tensor as a dense constant."""
        values, dtype = self.array(tensor.values)
        indices, _ = self.array(tensor.indices)
        name = tensor.values.name
        shape = _shape(name, tensor.dims, dtype)
        numel = math.prod(shape)
        if numel * dtype.itemsize > DENSE_LIMIT:
            raise Refusal(f"a sparse tensor of shape {shape} is too large to be made dense")
        count = values.size
        if indices.shape == (count, len(shape)) and len(shape) != 1:
            if (indices < 0).any() or (indices >= np.array(shape)).any():
                raise InvalidModel(f"sparse tensor {name!r}: an index lies outside shape {shape}")
            indices = indices @ np.array([math.prod(shape[k + 1 :]) for k in range(len(shape))], np.int64)
        indices = indices.reshape(-1)
        if indices.size != count or (count and not 0 <= int(indices.min()) <= int(indices.max()) < numel):
            raise InvalidModel(f"sparse tensor {name!r}: its {count} values do not fit its indices in shape {shape}")
        type_ = TensorType(dtype, shape)

        def load() -> np.ndarray:
            dense = np.zeros(numel, dtype.numpy)
            dense[indices] = values.reshape(-1)
            return dense.reshape(shape)

        return Constant(type_, load, _key(load(), type_))

    # -- where the bytes are --------------------------------------------------------------------------------------

    def _loader(self, tensor: onnx.TensorProto, type_: TensorType) -> Callable[[], np.ndarray]:
        dtype, shape, name = type_.dtype, tuple(int(d) for d in tensor.dims), tensor.name
        nbytes = -(-math.prod(shape) * dtype.bits // 8) if dtype.kind == "n" else math.prod(shape) * dtype.itemsize
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external = self._external(tensor, nbytes)
            return lambda: _decode(external, dtype, shape)
        view = self._slices.find(tensor.doc_string)
        if view is not None or tensor.HasField("raw_data"):
            length = len(tensor.raw_data) if view is None else len(view)
            if length != nbytes:
                raise InvalidModel(f"tensor {name!r} of type {type_} holds {length} bytes, not {nbytes}")
            return lambda: _decode(tensor.raw_data if view is None else view, dtype, shape)
        field, stored = _FIELDS[dtype]
        per_element = 2 if dtype.kind == "c" else 1
        count, needed = len(getattr(tensor, field)), math.prod(shape) * per_element
        if dtype.kind == "n":
            needed = nbytes
        if count != needed:
            raise InvalidModel(f"tensor {name!r} of type {type_} holds {count} values in {field}, not {needed}")
        return lambda: _from_field(np.array(getattr(tensor, field), stored), dtype, shape)

    def _external(self, tensor: onnx.TensorProto, nbytes: int) -> memoryview:
        entries = {e.key: e.value for e in tensor.external_data}
        where = f"tensor {tensor.name!r}"
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or nbytes)
        except ValueError:
            raise InvalidModel(f"offset or length of external data is no number: {entries}", where=where) from None
        path = self._path(entries.get("location", ""), where)
        if length != nbytes:
            raise InvalidModel(f"external data are {length} bytes, its type needs {nbytes}", where=where)
        view = self._map(path, where)
        if offset < 0 or offset + length > len(view):
            raise InvalidModel(
                f"external data at {offset}, {length} bytes, lie outside {path.name} ({len(view)} bytes)",
                where=where,
                fix="the file is truncated or belongs to another model; copy it again",
            )
        return view[offset : offset + length]

    def _path(self, location: str, where: str) -> Path:
        """The external file: inside the model's folder, symbolic links followed."""
        if self._folder is None:
            raise InvalidModel(
                f"its data are in the file {location!r}, and where that is is not known",
                where=where,
                fix="pass the model's path instead of its bytes, or load it with its external data",
            )
        parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
        outside = not location or "\0" in location or ".." in parts
        outside = outside or PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
        folder = Path(os.path.realpath(self._folder))
        path = folder if outside else Path(os.path.realpath(folder / location))
        if outside or not path.is_relative_to(folder):
            raise InvalidModel(
                f"external data {location!r} lie outside the model's folder",
                where=where,
                fix="put the data file beside the model, under a relative name without '..' or links out of the folder",
            )
        if not path.is_file():
            raise InvalidModel(
                f"external data file {location!r} is missing", where=where, fix=f"put it into {self._folder}"
            )
        return path

    def _map(self, path: Path, where: str) -> memoryview:
        if path not in self._maps:
            try:
                with path.open("rb") as file:
                    empty = os.fstat(file.fileno()).st_size == 0
                    data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise InvalidModel(f"cannot read external data {path.name}: {error.strerror}", where=where) from error
            self._maps[path] = memoryview(data)
        return self._maps[path]


def tensor_type(tensor: onnx.TensorProto) -> TensorType:
    """The type of `tensor`; Refusal for element types without a dtype."""
    dtype = ONNX_DTYPES.get(tensor.data_type)
    if dtype is None:
        raise Refusal(f"element type {ONNX_NAMES.get(tensor.data_type, tensor.data_type)} is not supported")
    return TensorType(dtype, _shape(tensor.name, tensor.dims, dtype))


def _shape(name: str, dims: object, dtype: DType) -> tuple[int, ...]:
    shape = tuple(int(d) for d in dims)  # type: ignore[attr-defined]
    if any(d < 0 for d in shape) or math.prod(shape) * dtype.itemsize > LARGEST:
        raise InvalidModel(f"tensor {name!r} has the impossible shape {shape}")
    return shape


def _decode(data: bytes | memoryview, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.kind == "n":
        return _unpacked(np.frombuffer(data, np.uint8), dtype, shape)
    stored = np.dtype(np.uint8) if dtype == dt.bool_ else dtype.numpy.newbyteorder("<")
    array: np.ndarray = np.frombuffer(data, stored).reshape(shape)
    return array.astype(np.bool_) if dtype == dt.bool_ else array


def _unpacked(data: np.ndarray, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """One value per byte of what ONNX packs (the first in the low bits); signed ones with their sign extended."""
    per_byte = 8 // dtype.bits
    shifts = np.arange(per_byte, dtype=np.uint8) * dtype.bits
    bits = (data[:, None] >> shifts & ((1 << dtype.bits) - 1)).reshape(-1)[: math.prod(shape)]
    if dtype in (dt.i4, dt.i2):
        bits = (bits ^ (1 << dtype.bits - 1)).astype(np.int8) - np.int8(1 << dtype.bits - 1)
    return bits.astype(dtype.numpy).reshape(shape)


def _from_field(values: np.ndarray, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of a typed field as elements: 16-bit floats are bits in int32, complex numbers are pairs."""
    if dtype.kind == "n":
        return _unpacked(values.astype(np.uint8), dtype, shape)
    if dtype in (dt.f16, dt.bf16):
        values = values.astype(np.uint16)
        return values.view(dtype.numpy).reshape(shape)
    converted: np.ndarray = values.view(dtype.numpy) if dtype.kind == "c" else values.astype(dtype.numpy)
    return converted.reshape(shape)


def _key(array: np.ndarray, type_: TensorType) -> str:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    return canon.digest(canon.digest(content) + str(type_))
