"""Attributes that are sizes: what each may be, and how many of them a sliding window takes.

ONNX's schemas give names and kinds of attributes alone. What reads them later relies on these limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bessemer.core.errors import InvalidModel
from bessemer.ir.graph import TensorType

LARGEST = 2**31 - 1
_LEAST = {
    "strides": 1, "dilations": 1, "kernel_shape": 1, "group": 1, "offset_group": 1, "num_groups": 1, "blocksize": 1,
    "hidden_size": 1, "num_heads": 1, "q_num_heads": 1, "kv_num_heads": 1, "pads": -LARGEST, "output_padding": 0,
}  # fmt: skip
_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "DeformConv": 1, "QLinearConv": 3}  # which input they are
_POOLS = ("MaxPool", "AveragePool", "LpPool", "MaxUnpool")
_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
_EACH_AXIS = {"strides": 1, "dilations": 1, "kernel_shape": 1, "output_padding": 1, "pads": 2}


def check_sizes(op: str, values: Mapping[str, Any], inputs: Sequence[TensorType | None]) -> None:
    """InvalidModel where a size is impossible, or there are more or fewer of them than the data have spatial axes."""
    for name, least in _LEAST.items():
        given = values.get(name, ())
        sizes = [v for v in (given if isinstance(given, tuple) else (given,)) if isinstance(v, int)]
        wrong = next((v for v in sizes if not least <= v <= LARGEST), None)
        if wrong is not None:
            raise InvalidModel(f"attribute {name} holds {wrong}; it is {least} to {LARGEST}")
    if (op in _WEIGHTS or op in _POOLS) and inputs and inputs[0] is not None:
        _check_window(op, values, inputs, inputs[0].rank - 2)


def _check_window(op: str, values: Mapping[str, Any], inputs: Sequence[TensorType | None], axes: int) -> None:
    for name, each in _EACH_AXIS.items():
        if name in values and len(values[name]) != each * axes:
            raise InvalidModel(
                f"attribute {name} holds {len(values[name])} numbers; data of {axes} spatial axes take {each * axes}"
            )
    if values.get("auto_pad", "NOTSET") not in _AUTO_PADS:
        raise InvalidModel(f"auto_pad is {values['auto_pad']!r}, and not one of {', '.join(_AUTO_PADS)}")
    number = _WEIGHTS.get(op, len(inputs))
    weights = inputs[number] if number < len(inputs) else None
    kernel = values.get("kernel_shape")
    if weights is not None and kernel is not None:
        shape = weights.shape[2:]
        if len(shape) != len(kernel) or any(isinstance(d, int) and d != k for d, k in zip(shape, kernel)):
            raise InvalidModel(f"kernel_shape is {list(kernel)}, and the weights are {weights}")


def check_result(type_: TensorType) -> None:
    """InvalidModel where a node leaves less than nothing of its data: padding or a kernel that does not fit."""
    if any(isinstance(d, int) and d < 0 for d in type_.shape):
        raise InvalidModel(f"its result would be {type_}", fix="check its attributes against the sizes of its inputs")
