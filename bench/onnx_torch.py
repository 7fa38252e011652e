"""An ONNX graph as a torch module, op by op: the peer of models that have no torch source.

    module = torch_module(path, feeds, torch.float16)     # a torch.fx.GraphModule for the shapes of `feeds`, on the CPU
    outputs = module.cuda()(*arrays)                      # a tuple, in the order of the graph's outputs

Ops run as the graph has them: one torch call each, nothing is fused or rewritten, so softmax(QK)V stays three calls.
What depends on shapes and constants alone is computed here, once. All floats have the one type that was asked for.
"""

# mypy: disallow-any-unimported=False

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx

from bench.torch_ops import OPS, Static


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
            self._keep(node, fn(attrs, shape))
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
