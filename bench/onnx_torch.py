"""An ONNX graph as a torch module, op by op: the peer of models that have no torch source.

    module = torch_module(path, feeds, torch.float16)     # a torch.fx.GraphModule for the shapes of `feeds`, on the CPU
    outputs = module.cuda()(*arrays)                      # a tuple, in the order of the graph's outputs

Ops run as the graph has them: one torch call each, nothing is fused or rewritten, so softmax(QK)V stays three calls.
What depends on shapes and constants alone is computed here, once. All floats have the one type that was asked for.
"""

# mypy: disallow-any-unimported=False

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx
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


class _Builder:
    """Values by name: a tensor (static: everything about it is known) or an fx node with the meta tensor it gives."""

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], dtype: torch.dtype) -> None:
        self.model, self.graph, self.root, self.dtype = model, fx.Graph(), torch.nn.Module(), dtype
        self.static: dict[str, Tensor] = {}
        self.dynamic: dict[str, tuple[fx.Node, Tensor]] = {}
        self.stored: dict[str, fx.Node] = {}
        for k, (name, array) in enumerate(feeds.items()):
            self.dynamic[name] = (self.graph.placeholder(f"input_{k}"), self._typed(torch.from_numpy(array)).to("meta"))
        for w in model.graph.initializer:
            self.static[w.name] = torch.from_numpy(np.array(numpy_helper.to_array(w)))

    def _typed(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value

    def module(self) -> fx.GraphModule:
        for node in self.model.graph.node:
            self._node(node)
        self.graph.output(tuple(self._value(o.name)[0] for o in self.model.graph.output))
        return fx.GraphModule(self.root, self.graph)

    def _node(self, node: onnx.NodeProto) -> None:
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Cast":
            to = torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(attrs["to"]))).dtype
            attrs["to"] = self.dtype if to.is_floating_point else to
        if node.op_type == "Constant":
            self.static[node.output[0]] = torch.from_numpy(np.array(numpy_helper.to_array(attrs["value"])))
            return
        if node.op_type not in OPS:
            raise NotImplementedError(f"{node.op_type} ({node.name})")
        fn, fixed = OPS[node.op_type]
        names = list(node.input)
        python = {k: self._python(n) for k, n in enumerate(names) if k in fixed}
        if node.op_type == "Shape":
            shape = self.dynamic[names[0]][1] if names[0] in self.dynamic else self.static[names[0]]
            self._keep(node, _shape(attrs, shape))
        elif all(n in self.static or not n for n in names):
            given = [python[k] if k in python else self.static.get(n) for k, n in enumerate(names)]
            self._keep(node, fn(attrs, *given))
        else:
            values = [(python[k],) * 2 if k in python else self._value(n) for k, n in enumerate(names)]
            meta = fn(attrs, *(v[1] for v in values))
            self._call(node, self.graph.call_function(fn, (attrs, *(v[0] for v in values))), meta)

    def _keep(self, node: onnx.NodeProto, result: Tensor | Sequence[Tensor]) -> None:
        for name, value in zip(node.output, [result] if isinstance(result, Tensor) else result):
            self.static[name] = value

    def _call(self, node: onnx.NodeProto, call: fx.Node, meta: Tensor | Sequence[Tensor]) -> None:
        if isinstance(meta, Tensor):
            self.dynamic[node.output[0]] = (call, meta)
            return
        for k, name in enumerate(node.output):
            part = self.graph.call_function(_item, (call, k))
            self.dynamic[name] = (part, meta[k])

    def _python(self, name: str) -> Static:
        if not name:
            return None
        if name not in self.static:
            raise NotImplementedError(f"{name} is not a constant, and the op needs its value")
        found: Static = self.static[name].tolist()
        return found

    def _value(self, name: str) -> tuple[fx.Node | None, Tensor | None]:
        """The fx node and meta tensor of a value; a static one becomes a buffer of the module."""
        if not name:
            return None, None
        if name in self.dynamic:
            return self.dynamic[name]
        value = self._typed(self.static[name])
        if name not in self.stored:
            attribute = f"value_{len(self.stored)}"
            self.root.register_buffer(attribute, value)
            self.stored[name] = self.graph.get_attr(attribute)
        return self.stored[name], value.to("meta")


def _item(values: Sequence[Tensor], k: int) -> Tensor:
    return values[k]


def torch_module(path: Path, feeds: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    """The model at `path` for the shapes of `feeds`, on the CPU; NotImplementedError names what is missing.

    It takes the inputs in the order of `feeds`, floats as `dtype`, and gives a tuple of the outputs."""
    return _Builder(onnx.load(str(path)), feeds, dtype).module().eval()
