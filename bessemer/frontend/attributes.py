"""Attributes of ONNX nodes: references resolved, checked against the op's schema, and as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx

from bessemer.core.dtype import DType
from bessemer.core.errors import InvalidModel
from bessemer.frontend.opsets import OpVersion
from bessemer.frontend.scope import Scope
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ONNX_DTYPES, ONNX_NAMES, Refusal

A: TypeAlias = onnx.AttributeProto
_TYPE_NAMES = {dtype: f"tensor({ONNX_NAMES[code]})" for code, dtype in ONNX_DTYPES.items()}
_FIELDS = {A.FLOAT: "f", A.INT: "i", A.STRING: "s", A.TENSOR: "t", A.GRAPH: "g", A.SPARSE_TENSOR: "sparse_tensor",
           A.TYPE_PROTO: "tp"}  # fmt: skip
_LISTS = {A.FLOATS: "floats", A.INTS: "ints", A.STRINGS: "strings", A.TENSORS: "tensors", A.GRAPHS: "graphs"}


def resolved(scope: Scope, node: onnx.NodeProto, label: str) -> dict[str, A]:
    """The attributes of `node` by name, references to the enclosing function's attributes replaced."""
    out: dict[str, A] = {}
    for attribute in node.attribute:
        if not attribute.name or attribute.name in out:
            raise InvalidModel(f"attribute {attribute.name!r} is given twice or has no name", where=label)
        if attribute.ref_attr_name:
            if scope.attributes is None:
                raise InvalidModel(f"attribute {attribute.name} refers to a function's, outside any", where=label)
            bound = scope.attributes.get(attribute.ref_attr_name)
            if bound is None:
                continue  # optional, and the caller does not give it
            attribute, name = A(), attribute.name
            attribute.CopyFrom(bound)
            attribute.name = name
        out[attribute.name] = attribute
    return out


def check(
    attributes: Mapping[str, A], version: OpVersion, inputs: Sequence[TensorType | None], n_outputs: int, label: str
) -> None:
    """Hold a node against its ONNX schema: inputs and their types, number of outputs, attribute names and kinds."""
    schema, n_inputs = version.schema, len(inputs)
    if not schema.min_input <= n_inputs <= schema.max_input:
        raise InvalidModel(
            f"{schema.name} has {n_inputs} inputs; it takes {schema.min_input} to {schema.max_input}", where=label
        )
    if n_outputs > schema.max_output:
        raise InvalidModel(f"{schema.name} has {n_outputs} outputs; it gives at most {schema.max_output}", where=label)
    for name, attribute in attributes.items():
        expected = schema.attributes.get(name)
        if expected is None:
            raise InvalidModel(f"{schema.name}-{schema.since_version} has no attribute {name}", where=label)
        if kind_of(attribute) != int(expected.type):
            raise InvalidModel(
                f"attribute {name} is of kind {A.AttributeType.Name(kind_of(attribute))}, not {expected.type.name}",
                where=label,
            )
    missing = [name for name, a in schema.attributes.items() if a.required and name not in attributes]
    if missing:
        raise InvalidModel(f"{schema.name} lacks the attribute {', '.join(missing)}", where=label)
    _check_types(version, inputs, label)


def _check_types(version: OpVersion, inputs: Sequence[TensorType | None], label: str) -> None:
    """Every input is of a type that the schema allows; those of one type variable are of one type."""
    variables: dict[str, tuple[int, DType]] = {}
    for k, type_ in enumerate(inputs):
        if type_ is None:
            continue
        formal = version.formal_inputs[min(k, len(version.formal_inputs) - 1)]
        if _TYPE_NAMES[type_.dtype] not in formal.types:
            raise InvalidModel(f"{version} takes no {type_.dtype} as input {k} ({formal.name})", where=label)
        first, dtype = variables.setdefault(formal.variable or f"input {k}", (k, type_.dtype))
        if dtype != type_.dtype:
            raise InvalidModel(
                f"{version} has input {first} of {dtype} and input {k} of {type_.dtype}; they must be equal",
                where=label,
            )


def kind_of(attribute: A) -> int:
    """AttributeProto.type, found from the field that is set where an old exporter leaves it out."""
    if attribute.type != A.UNDEFINED:
        return int(attribute.type)
    for kind, field in _FIELDS.items():
        if attribute.HasField(field):
            return int(kind)
    return int(next((k for k, field in _LISTS.items() if getattr(attribute, field)), A.INTS))


def python_values(scope: Scope, attributes: Mapping[str, A]) -> tuple[dict[str, Any], dict[str, DType]]:
    """Values by name (tensors as arrays, graphs as GraphProtos, lists as tuples), and the dtypes of the tensors."""
    values: dict[str, Any] = {}
    dtypes: dict[str, DType] = {}
    for name, attribute in attributes.items():
        kind = kind_of(attribute)
        if kind in _LISTS:
            items = tuple(getattr(attribute, _LISTS[kind]))
            values[name] = tuple(_one(scope, kind - 5, v)[0] for v in items)
        elif kind in _FIELDS:
            values[name], dtype = _one(scope, kind, getattr(attribute, _FIELDS[kind]))
            if dtype is not None:
                dtypes[name] = dtype
        else:
            raise Refusal(f"attribute {name} is of kind {kind}")
    return values, dtypes


def _one(scope: Scope, kind: int, value: Any) -> tuple[Any, DType | None]:
    if kind == A.STRING:
        return value.decode("utf-8", "replace"), None
    if kind == A.TENSOR:
        return scope.weights.array(value)
    return value, None
