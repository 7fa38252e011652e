"""Attributes that are one of a few words, where importers tell them apart by one of these. ONNX's schemas name them in
prose alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bessemer.core.errors import InvalidModel

_REDUCTIONS, _LOSSES = ("none", "add", "mul", "max", "min"), ("none", "sum", "mean")
_DIRECTIONS = ("forward", "reverse", "bidirectional")
_SCALINGS = ("nearest", "linear", "bilinear", "cubic", "bicubic")
_CHOICES = {
    ("BitShift", "direction"): ("LEFT", "RIGHT"),
    ("Cast", "round_mode"): ("up", "down", "nearest"),
    ("DepthToSpace", "mode"): ("DCR", "CRD"),
    ("GRU", "direction"): _DIRECTIONS,
    ("Gelu", "approximate"): ("none", "tanh"),
    ("LSTM", "direction"): _DIRECTIONS,
    ("NegativeLogLikelihoodLoss", "reduction"): _LOSSES,
    ("RNN", "direction"): _DIRECTIONS,
    ("Resize", "coordinate_transformation_mode"): (
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
        "tf_half_pixel_for_nn",
    ),
    ("Resize", "keep_aspect_ratio_policy"): ("stretch", "not_larger", "not_smaller"),
    ("Resize", "mode"): _SCALINGS,
    ("Resize", "nearest_mode"): ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    ("RoiAlign", "coordinate_transformation_mode"): ("half_pixel", "output_half_pixel"),
    ("RoiAlign", "mode"): ("avg", "max"),
    ("ScatterElements", "reduction"): _REDUCTIONS,
    ("ScatterND", "reduction"): _REDUCTIONS,
    ("SoftmaxCrossEntropyLoss", "reduction"): _LOSSES,
    ("TensorScatter", "mode"): ("linear", "circular"),
    ("Upsample", "mode"): _SCALINGS,
}  # fmt: skip


def check_choices(op: str, values: Mapping[str, Any]) -> None:
    """InvalidModel where an attribute is none of the words that it may be."""
    for name, given in values.items():
        allowed = _CHOICES.get((op, name))
        if allowed is not None and given not in allowed:
            raise InvalidModel(f"attribute {name} is {given!r}, and not one of {', '.join(allowed)}")
