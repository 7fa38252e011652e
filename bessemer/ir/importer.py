"""How an op family imports ONNX nodes: `@onnx_op` functions over an `ImportContext`.

    @onnx_op("LeakyRelu", since=(6, 16))
    def leaky_relu(ctx: ImportContext) -> Values:
        return ctx.emit("leaky_relu", ctx.input(0), alpha=ctx.attr("alpha", 0.01))

`since` lists the exact since_versions that the function covers; an unlisted one is refused by name. A node without an
importer is inlined where ONNX (or the model) defines it as a function, else refused. All refusals are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.core.interval import Ranges
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Attr, Graph, TensorType

Values = str | Sequence[str]


# TensorProto.DataType, by number, so that this file needs no onnx.
ONNX_NAMES: dict[int, str] = dict(
    enumerate(
        "undefined float uint8 int8 uint16 int16 int32 int64 string bool float16 double uint32 uint64 complex64 "
        "complex128 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4 float4e2m1 float8e8m0 "
        "uint2 int2".split()
    )
)
ONNX_DTYPES: dict[int, DType] = {
    1: dt.f32, 2: dt.u8, 3: dt.i8, 4: dt.u16, 5: dt.i16, 6: dt.i32, 7: dt.i64, 9: dt.bool_, 10: dt.f16, 11: dt.f64,
    12: dt.u32, 13: dt.u64, 14: dt.c64, 15: dt.c128, 16: dt.bf16, 17: dt.f8e4m3fn, 18: dt.f8e4m3fnuz, 19: dt.f8e5m2,
    20: dt.f8e5m2fnuz, 21: dt.u4, 22: dt.i4, 23: dt.f4e2m1, 24: dt.f8e8m0, 25: dt.u2, 26: dt.i2,
}  # fmt: skip


class Refusal(Exception):
    """Raised by importers through `ImportContext.unsupported`; collected by the frontend."""


class _Required:
    pass


REQUIRED = _Required()


class SubgraphImporter(Protocol):
    """Imports a GraphProto attribute as a Graph, given the types of its formal inputs (None: as declared)."""

    def __call__(self, proto: Any, input_types: Sequence[TensorType] | None) -> Graph: ...


@dataclass
class ImportContext:
    """One ONNX node being imported."""

    op_type: str
    domain: str
    since: int  # the op's since_version under the model's opset
    name: str  # of the ONNX node (never empty: "Relu_12" where the model gives none)
    inputs: tuple[str | None, ...]  # IR values; None for an absent optional input
    output_names: tuple[str, ...]  # ONNX names; "" where an output is not asked for
    attributes: dict[str, Any]  # int, float, str, tuple, np.ndarray (tensors), GraphProto
    builder: GraphBuilder
    import_subgraph: SubgraphImporter
    inline_subgraph: Callable[[Any], tuple[str, ...]]  # imports a GraphProto without inputs into this graph
    tensor_dtypes: Mapping[str, DType] = field(default_factory=dict)  # of tensor attributes (bf16 is carried as bits)

    # -- inputs and attributes
    def has(self, k: int) -> bool:
        """Whether input `k` is given."""
        return k < len(self.inputs) and self.inputs[k] is not None

    def input(self, k: int) -> str:
        """Required input `k`."""
        value = self.inputs[k] if k < len(self.inputs) else None
        if value is None:
            raise Refusal(f"input {k} is missing")
        return value

    def attr(self, name: str, default: Any = REQUIRED) -> Any:
        """Attribute `name` (lists as tuples), or `default`."""
        if name in self.attributes:
            return self.attributes[name]
        if default is REQUIRED:
            self.unsupported(f"attribute {name} is missing")
        return default

    def dtype_attr(self, name: str, default: DType | None = None) -> DType:
        """The attribute `name`, a TensorProto element type, as a DType; `default` where it is absent."""
        if name not in self.attributes and default is not None:
            return default
        code = self.attr(name)
        if code not in ONNX_DTYPES:
            self.unsupported(f"attribute {name} asks for element type {ONNX_NAMES.get(code, code)}")
        return ONNX_DTYPES[code]

    def subgraph(self, name: str, input_types: Sequence[TensorType] | None = None) -> Graph:
        """The graph attribute `name`, imported."""
        return self.import_subgraph(self.attr(name), input_types)

    @property
    def n_outputs(self) -> int:
        """How many outputs the node asks for (trailing empty names not counted)."""
        names = list(self.output_names)
        while names and not names[-1]:
            names.pop()
        return len(names)

    def wants(self, k: int) -> bool:
        """Whether output `k` is asked for."""
        return k < len(self.output_names) and bool(self.output_names[k])

    # -- what is known of values
    @property
    def ranges(self) -> Ranges:
        return self.builder.ranges

    def type(self, value: str) -> TensorType:
        return self.builder.type(value)

    def dtype(self, value: str) -> DType:
        return self.builder.type(value).dtype

    def shape(self, value: str) -> tuple[Dim, ...]:
        return self.builder.type(value).shape

    def rank(self, value: str) -> int:
        return len(self.shape(value))

    def value(self, value: str) -> np.ndarray | None:
        """The array of a constant, else None."""
        return self.builder.value(value)

    def dims(self, value: str) -> tuple[Dim, ...] | None:
        """A known integer vector or scalar as (symbolic) dims, else None."""
        return self.builder.dims(value)

    def ints(self, value: str) -> tuple[int, ...] | None:
        """A known constant integer vector or scalar, else None."""
        dims = self.dims(value)
        if dims is None or not all(isinstance(d, int) for d in dims):
            return None
        return tuple(d for d in dims if isinstance(d, int))

    def axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the front; refused where it is out of range."""
        if not -rank <= axis < max(rank, 1):
            self.unsupported(f"axis {axis} is out of range for rank {rank}")
        return axis + rank if axis < 0 else axis

    # -- emitting
    def emit(self, op: str, *inputs: str | None, **attrs: Attr) -> str:
        """Emit a node and return its first output."""
        return self.emit_all(op, *inputs, **attrs)[0]

    def emit_all(self, op: str, *inputs: str | None, **attrs: Attr) -> tuple[str, ...]:
        """Emit a node and return all its outputs."""
        hints = [f"{name}~{op}" if name else "" for name in self.output_names]
        return self.builder.emit(op, inputs, attrs, names=hints, origin=(self.name,))

    def const(self, value: Any, dtype: DType) -> str:
        """A constant array or scalar of `dtype` (bf16: given as floats)."""
        array = dt.to_bf16(np.asarray(value)) if dtype == dt.bf16 else np.asarray(value, dtype.numpy)
        return self.builder.constant(array, dtype)

    def cast(self, value: str, dtype: DType) -> str:
        """`value` as `dtype`; itself where it already is."""
        return value if self.dtype(value) == dtype else self.emit("cast", value, to=dtype)

    def unsupported(self, reason: str) -> Any:
        """Refuse this node; the reason is reported with its name."""
        raise Refusal(reason)


Importer = Callable[[ImportContext], Values]
IMPORTERS: dict[tuple[str, str, int], Importer] = {}


def onnx_op(name: str, *, since: Sequence[int], domain: str = "") -> Callable[[Importer], Importer]:
    """Register the importer of `domain`.`name` for exactly these since_versions."""

    def wrap(fn: Importer) -> Importer:
        for version in since:
            key = (domain, name, version)
            if key in IMPORTERS:
                raise RuntimeError(f"ONNX importer {key} is registered twice")
            IMPORTERS[key] = fn
        return fn

    return wrap
