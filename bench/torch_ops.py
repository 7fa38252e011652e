"""ONNX ops as torch computes them: one function for each, of its attributes and operands.

Operands that a function takes as Python values are constants of the graph. NotImplementedError says what is missing.
"""

# mypy: disallow-any-unimported=False

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

Attrs = Mapping[str, Any]
Static = list[Any] | int | float | None  # the value of an operand that must be known: as Python has it
OPS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {}  # function(attrs, *operands), the static operands


def op(name: str, *static: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function of an op; `static` are the operands that it takes as Python values."""

    def wrap(fn: Callable[..., Any]) -> Callable[..., Any]:
        OPS[name] = (fn, static)
        return fn

    return wrap


def _plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attrs, *operands: fn(*operands)


for _name, _fn in {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow, "Sqrt": torch.sqrt,
    "Log": torch.log, "Sin": torch.sin, "Cos": torch.cos, "Erf": torch.erf, "Relu": torch.relu,
    "Sigmoid": torch.sigmoid, "Reciprocal": torch.reciprocal, "MatMul": torch.matmul, "Equal": torch.eq,
    "Where": torch.where,
}.items():  # fmt: skip
    OPS[_name] = (_plain(_fn), ())


@op("Clip", 1, 2)
def _clip(attrs: Attrs, x: Tensor, low: Static = None, high: Static = None) -> Tensor:
    return torch.clamp(x, low, high)


@op("HardSigmoid")
def _hard_sigmoid(attrs: Attrs, x: Tensor) -> Tensor:
    return torch.clamp(attrs.get("alpha", 0.2) * x + attrs.get("beta", 0.5), 0.0, 1.0)


@op("Softmax")
def _softmax(attrs: Attrs, x: Tensor) -> Tensor:
    return torch.softmax(x, attrs.get("axis", -1))


@op("Cast")
def _cast(attrs: Attrs, x: Tensor) -> Tensor:
    return x.to(attrs["to"])


def _padding(attrs: Attrs, rank: int) -> list[int]:
    pads = attrs.get("pads", [0] * 2 * rank)
    if pads[:rank] != pads[rank:] or attrs.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise NotImplementedError(f"padding {pads}, auto_pad {attrs.get('auto_pad')}")
    return list(pads[:rank])


@op("Conv")
def _conv(attrs: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    one, convolve = [1] * rank, (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(
        x, w, b, attrs.get("strides", one), _padding(attrs, rank), attrs.get("dilations", one), attrs.get("group", 1)
    )


@op("ConvTranspose")
def _conv_transpose(attrs: Attrs, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return F.conv_transpose2d(
        x, w, b, attrs.get("strides", [1, 1]), _padding(attrs, 2), attrs.get("output_padding", [0, 0]),
        attrs.get("group", 1), attrs.get("dilations", [1, 1]),
    )  # fmt: skip


@op("Gemm")
def _gemm(attrs: Attrs, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    if attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0 or attrs.get("transA", 0):
        raise NotImplementedError(f"Gemm with {dict(attrs)}")
    return F.linear(a, b if attrs.get("transB", 0) else b.t(), c)


@op("BatchNormalization")
def _batch_norm(attrs: Attrs, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, shift, eps=attrs.get("epsilon", 1e-5))


@op("InstanceNormalization")
def _instance_norm(attrs: Attrs, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=shift, eps=attrs.get("epsilon", 1e-5))


@op("LayerNormalization")
def _layer_norm(attrs: Attrs, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, x.shape[attrs.get("axis", -1) :], scale, shift, attrs.get("epsilon", 1e-5))


@op("GlobalAveragePool")
def _global_average(attrs: Attrs, x: Tensor) -> Tensor:
    return torch.mean(x, tuple(range(2, x.dim())), keepdim=True)


@op("AveragePool")
def _average_pool(attrs: Attrs, x: Tensor) -> Tensor:
    kernel = attrs["kernel_shape"]
    return F.avg_pool2d(
        x, kernel, attrs.get("strides", [1, 1]), _padding(attrs, 2), bool(attrs.get("ceil_mode", 0)),
        bool(attrs.get("count_include_pad", 0)),
    )  # fmt: skip


@op("MaxPool")
def _max_pool(attrs: Attrs, x: Tensor) -> Tensor:
    return F.max_pool2d(
        x, attrs["kernel_shape"], attrs.get("strides", [1, 1]), _padding(attrs, 2), attrs.get("dilations", [1, 1]),
        bool(attrs.get("ceil_mode", 0)),
    )  # fmt: skip


@op("Resize", 1, 2, 3)
def _resize(attrs: Attrs, x: Tensor, roi: Static = None, scales: Static = None, sizes: Static = None) -> Tensor:
    how = attrs["mode"], attrs["coordinate_transformation_mode"], attrs["nearest_mode"]
    if how != (b"nearest", b"asymmetric", b"floor") or not isinstance(scales, list) or sizes:
        raise NotImplementedError(f"Resize {how} to {sizes}")
    return F.interpolate(x, scale_factor=scales[2:], mode="nearest")


@op("ReduceMean", 1)
def _reduce_mean(attrs: Attrs, x: Tensor, axes: Static = None) -> Tensor:
    return torch.mean(x, axes or attrs["axes"], bool(attrs.get("keepdims", 1)))


@op("Einsum")
def _einsum(attrs: Attrs, *operands: Tensor) -> Tensor:
    return torch.einsum(attrs["equation"].decode(), *operands)


@op("Reshape", 1)
def _reshape(attrs: Attrs, x: Tensor, shape: Static = None) -> Tensor:
    assert isinstance(shape, list)
    kept = attrs.get("allowzero", 0)
    return torch.reshape(x, [x.shape[k] if d == 0 and not kept else d for k, d in enumerate(shape)])


@op("Flatten")
def _flatten(attrs: Attrs, x: Tensor) -> Tensor:
    axis = attrs.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@op("Transpose")
def _transpose(attrs: Attrs, x: Tensor) -> Tensor:
    return x.permute(attrs.get("perm", list(reversed(range(x.dim())))))


@op("Unsqueeze", 1)
def _unsqueeze(attrs: Attrs, x: Tensor, axes: Static = None) -> Tensor:
    for axis in sorted(axes or attrs["axes"]):  # type: ignore[arg-type]
        x = torch.unsqueeze(x, axis)
    return x


@op("Squeeze", 1)
def _squeeze(attrs: Attrs, x: Tensor, axes: Static = None) -> Tensor:
    chosen = axes or attrs.get("axes")
    return torch.squeeze(x, tuple(chosen)) if chosen else torch.squeeze(x)  # type: ignore[arg-type]


@op("Concat")
def _concat(attrs: Attrs, *operands: Tensor) -> Tensor:
    return torch.cat(operands, attrs["axis"])


@op("Split", 1)
def _split(attrs: Attrs, x: Tensor, sizes: Static = None) -> tuple[Tensor, ...]:
    axis, parts = attrs.get("axis", 0), sizes or attrs.get("split")
    parted: tuple[Tensor, ...] = torch.split(x, parts or -(-x.shape[axis] // attrs["num_outputs"]), axis)
    return parted


@op("Slice", 1, 2, 3, 4)
def _slice(attrs: Attrs, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    for k, (start, end) in enumerate(zip(starts, ends)):
        axis, step = axes[k] if axes else k, steps[k] if steps else 1
        if step < 1:
            raise NotImplementedError("Slice with a negative step")
        x = x[(*([slice(None)] * (axis % x.dim())), slice(start, end, step))]
    return x


@op("Gather")
def _gather(attrs: Attrs, x: Tensor, indices: Tensor) -> Tensor:
    axis = attrs.get("axis", 0)
    if axis == 0 and x.is_floating_point():
        return F.embedding(indices, x)
    return torch.index_select(x, axis, indices.reshape(-1)).reshape(
        (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    )


@op("Expand", 1)
def _expand(attrs: Attrs, x: Tensor, shape: Static = None) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape))


@op("ConstantOfShape", 0)
def _constant_of_shape(attrs: Attrs, shape: Static = None) -> Tensor:
    value = torch.from_numpy(np.array(numpy_helper.to_array(attrs["value"]))) if "value" in attrs else torch.zeros(1)
    return value.expand(shape)


@op("Shape")
def _shape(attrs: Attrs, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[attrs.get("start", 0) : attrs.get("end")], dtype=torch.int64)
