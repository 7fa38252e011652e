"""Bodies of the ops that ONNX itself defines as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from bessemer.core.errors import InvalidModel
from bessemer.frontend.opsets import OpVersion
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ONNX_DTYPES

_CODES = {dtype: code for code, dtype in ONNX_DTYPES.items()}


def of_schema(
    version: OpVersion, opset: int, node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto],
    types: Sequence[TensorType | None],
) -> onnx.FunctionProto:  # fmt: skip
    """The function body of `version` for a node with these attributes and input types."""
    function, schema = onnx.FunctionProto(), version.schema
    if schema.has_context_dependent_function:
        resolved = onnx.NodeProto()
        resolved.CopyFrom(node)
        del resolved.attribute[:]
        resolved.attribute.extend(attributes.values())
        at = _newest(schema.context_dependent_function_opset_versions, opset)
        shown = [_type_proto(t).SerializeToString() for t in types]
        body = schema.get_context_dependent_function_with_opset_version(at, resolved.SerializeToString(), shown)
    else:
        body = schema.get_function_with_opset_version(_newest(schema.function_opset_versions, opset))
    function.ParseFromString(body)
    if not function.node:
        raise InvalidModel(f"ONNX has no function body of {version} for inputs ({', '.join(map(str, types))})")
    return function


def schema_defaults(version: OpVersion) -> dict[str, onnx.AttributeProto]:
    """Defaults of the schema's attributes."""
    defaults = {name: a.default_value for name, a in version.schema.attributes.items()}
    return {name: value for name, value in defaults.items() if value and value.type}


def _newest(versions: Sequence[int], opset: int) -> int:
    return max((v for v in versions if v <= opset), default=min(versions))


def _type_proto(t: TensorType | None) -> onnx.TypeProto:
    if t is None:
        return onnx.TypeProto()
    shape = [d if isinstance(d, int) else str(d) for d in t.shape]
    return helper.make_tensor_type_proto(_CODES[t.dtype], shape)
