"""What fp16 cannot hold is kept in fp16 times a power of two, where the ops around it can undo that at no cost.

A value v that becomes too large is stored as v * 2^-k, which is exact but for the rounding to 16 bits. `ranges` gives
the exponents. Readers and writers know:

- convolutions and products with a weight take the stored operand, and what is left of both powers goes into the weight;
- normalisations do not see the scale of what they read, once epsilon has it too;
- views, transposes and pools keep it;
- pointwise ops, and others that have compute definitions, are computed in fp32 on v: the products with 2^k and 2^-k
  around them are part of the kernels that load and store.

A node for which none of that holds stays in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import PassOptions
from bessemer.passes.rounding import low_weight

PRODUCTS = frozenset({"conv", "conv_transpose", "matmul"})
NORMS = frozenset({"layer_norm", "group_norm"})
KEEPING = frozenset({"reshape", "transpose", "slice", "pool"})
SMALLEST_WEIGHTS = 2.0**-14  # root mean square: their rounding is then no coarser than that of usual weights


@dataclass
class Exponents:
    """The power of two by which each value is stored, found node by node in order."""

    e: Editor
    options: PassOptions
    of: dict[str, int] = field(default_factory=dict)

    def __call__(self, value: str) -> int:
        return self.of.get(value, self.options.exponents.get(value, 0))

    def takes(self, node: Node, wide: Sequence[str]) -> bool:
        """Whether `node`, of whose values `wide` do not fit, can read and write what is stored instead."""
        fused = OPS.get(node.op).fusion in (Fusion.POINTWISE, Fusion.INJECTIVE) and node.op not in KEEPING
        weight = node.inputs[1] if node.op in PRODUCTS else None
        loose = [v for v in wide if v not in self.options.exponents and v != weight]
        if len(node.outputs) != 1 or any(not fused or v in node.outputs for v in loose):
            return False
        if node.op in KEEPING:
            return self._takes_keeping(node)
        if node.op in PRODUCTS:
            return self._takes_product(node)
        if node.op in NORMS:
            return node.outputs[0] not in self.options.wide
        return fused

    def _takes_keeping(self, node: Node) -> bool:
        if node.op == "pool" and node.attrs["kind"] not in ("avg", "max"):
            return False
        self.of[node.outputs[0]] = self(node.inputs[0])
        return True

    def _takes_product(self, node: Node) -> bool:
        weight = self.e.constant_of(node.inputs[1]) if len(node.inputs) == 2 else None
        if weight is None or weight.type.dtype != dt.f32:
            return False
        array, power = weight.load().reshape(-1), 2.0 ** self.folded(node)
        peak = float(max(array.max(initial=0), -array.min(initial=0))) * power
        size = math.sqrt(float(np.dot(array, array)) / max(1, array.size)) * power
        return peak < float(np.finfo(np.float16).max) and (size >= SMALLEST_WEIGHTS or peak == 0)

    def folded(self, node: Node) -> int:
        """The exponent of the power of two that goes into the weight of `node`."""
        return self(node.inputs[0]) - self(node.outputs[0])


@dataclass
class Storage:
    """Rewrites the nodes that `Exponents` takes. `stored` tells of a value in fp32 what 16 bits hold of it."""

    e: Editor
    low: DType
    exponents: Exponents
    stored: dict[str, tuple[str, int]] = field(default_factory=dict)

    def rewrite(self, node: Node) -> None:
        """Let `node` read and write stored values; its readers see their products with powers of two."""
        (out,) = node.outputs
        k = self.exponents(out)
        if node.op in KEEPING:
            x, k = self.loaded(node.inputs[0], node)
            new = self.e.emit(node.op, (x, *node.inputs[1:]), node.attrs, like=(node,))
            self._publish(out, new, k, node)
        elif node.op in PRODUCTS:
            self._product(node, k)
        elif node.op in NORMS:
            x, held = self.loaded(node.inputs[0], node)
            epsilon = node.attrs["epsilon"]
            assert isinstance(epsilon, float)
            attrs = {**node.attrs, "epsilon": math.ldexp(epsilon, -2 * held)}
            self._publish(out, self.e.emit(node.op, (x, *node.inputs[1:]), attrs, like=(node,)), 0, node)
        elif not self._joins_reader(out):
            new = self.e.emit(node.op, node.inputs, node.attrs, like=(node,))
            self._publish(out, self._to_low(new, k, node), k, node)

    def loaded(self, value: str, node: Node) -> tuple[str, int]:
        """What 16 bits hold of `value`, and the exponent."""
        if value not in self.stored:
            k = self.exponents(value)
            self.stored[value] = self._to_low(value, k, node), k
        return self.stored[value]

    def _product(self, node: Node, k: int) -> None:
        e = self.e
        x, held = self.loaded(node.inputs[0], node)
        weight = node.inputs[1]
        if held != k:
            weight = e.emit("mul", (weight, self._power(held - k)), like=(node,))
        inputs = (x, low_weight(e, node, weight, self.low))
        self._publish(node.outputs[0], e.emit(node.op, inputs, node.attrs, like=(node,)), k, node)

    def _joins_reader(self, value: str) -> bool:
        """Whether `value` is computed by the kernel that reads it, and never stored."""
        reader = self.e.only_user(value)
        return reader is not None and OPS.get(reader.op).fusion is Fusion.POINTWISE

    def _publish(self, old: str, low: str, k: int, node: Node) -> None:
        """Let the readers of `old` read what `low` stands for."""
        e = self.e
        new = e.emit("cast", (low,), {"to": dt.f32}, like=(node,))
        if k:
            new = e.emit("mul", (new, self._power(k)), like=(node,))
        self.stored[new] = low, k
        e.replace(old, new)

    def _to_low(self, value: str, k: int, node: Node) -> str:
        if k:
            value = self.e.emit("mul", (value, self._power(-k)), like=(node,))
        return self.e.emit("cast", (value,), {"to": self.low}, like=(node,))

    def _power(self, k: int) -> str:
        return self.e.constant(np.array(2.0**k, np.float32), hint="power")
