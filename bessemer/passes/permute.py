"""How ops compute the same thing on transposed data: with which attributes, and which operands are transposed.

`perm` is the permutation that makes the physical tensor from the logical one: physical axis k is logical axis perm[k].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bessemer.ir.graph import Attr, Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor

Perm = tuple[int, ...]
Permute = Callable[[Node, Perm], Mapping[str, Attr] | None]


def flexible(e: Editor, node: Node, rank: int) -> bool:
    """Whether `node` can run on permuted rank-`rank` data."""
    if len(node.outputs) != 1 or e.type(node.outputs[0]).rank != rank:
        return False
    if OPS.get(node.op).fusion is Fusion.POINTWISE:
        return True
    rule = RULES.get(node.op)
    return rule is not None and rule(node, tuple(range(rank))) is not None


def data_operands(e: Editor, node: Node, rank: int) -> Sequence[int]:
    """Which operands are tensors to be permuted (the others are parameters)."""
    if OPS.get(node.op).fusion is Fusion.POINTWISE or node.op == "concat":
        return range(len(node.inputs))
    return (0,)


def attrs_permuted(node: Node, perm: Perm) -> Mapping[str, Attr]:
    """The attributes of `node` on permuted data."""
    if OPS.get(node.op).fusion is Fusion.POINTWISE:
        return node.attrs
    attrs = RULES[node.op](node, perm)
    assert attrs is not None
    return attrs


def _axis(node: Node, perm: Perm) -> Mapping[str, Attr]:
    axis = node.attrs["axis"]
    assert isinstance(axis, int)
    return {**node.attrs, "axis": perm.index(axis)}


def _reduce(node: Node, perm: Perm) -> Mapping[str, Attr] | None:
    axes = node.attrs["axes"]
    assert isinstance(axes, tuple)
    if not node.attrs["keepdims"]:
        return None
    return {**node.attrs, "axes": tuple(sorted(perm.index(a) for a in axes))}


def _per_axis(*names: str) -> Permute:
    def rule(node: Node, perm: Perm) -> Mapping[str, Attr]:
        out = dict(node.attrs)
        for name in names:
            values = node.attrs[name]
            assert isinstance(values, tuple)
            out[name] = tuple(values[p] for p in perm)
        return out

    return rule


def _pad(node: Node, perm: Perm) -> Mapping[str, Attr]:
    pads = node.attrs["pads"]
    assert isinstance(pads, tuple)
    rank = len(perm)
    begins, ends = [pads[p] for p in perm], [pads[rank + p] for p in perm]
    return {**node.attrs, "pads": (*begins, *ends)}


RULES: Mapping[str, Permute] = {
    "concat": _axis,
    "softmax": _axis,
    "reduce": _reduce,
    "slice": _per_axis("starts", "sizes", "steps"),
    "expand": _per_axis("shape"),
    "pad": _pad,
}
