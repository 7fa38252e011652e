"""GELU in all of the exporters' spellings.

    erf form   x * 0.5 * (1 + erf(x / sqrt(2)))         in any order and grouping of the three factors
    tanh form  x * 0.5 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))
    sigmoid    not GELU: x * sigmoid(1.702 x) is left alone (it is another function)
"""

from __future__ import annotations

import math

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions
from bessemer.passes.fusion.match import close, scaled, sides, with_scalar

BEFORE = """
graph "gelu"(%x: f32[2,8]) -> (%y) {
  %root: f32[] = constant 1.4142135
  %one: f32[] = constant 1.0
  %half: f32[] = constant 0.5
  %scaled: f32[2,8] = div(%x, %root)
  %error: f32[2,8] = erf(%scaled)
  %shifted: f32[2,8] = add(%error, %one)
  %product: f32[2,8] = mul(%x, %shifted)
  %y: f32[2,8] = mul(%product, %half)
}
"""
AFTER = """
graph "gelu"(%x: f32[2,8]) -> (%v0) {
  %v0: f32[2,8] = gelu(%x) {approximate = "none"}
}
"""


def fuse_gelu(e: Editor, options: PassOptions) -> None:
    """Find `1 + erf(...)` or `1 + tanh(...)` and look at what it is multiplied with."""
    for node in e.nodes():
        if node.op in ("erf", "tanh") and e.alive(node):
            _fuse(e, node)


def _fuse(e: Editor, inner: Node) -> None:
    plus = e.only_user(inner.outputs[0])
    if plus is None or plus.op != "add":
        return
    one = with_scalar(e, plus)
    argument = _erf_argument(e, inner) if inner.op == "erf" else _tanh_argument(e, inner)
    if one is None or not close(one[1], 1.0) or argument is None:
        return
    for product in _products(e, plus.outputs[0]):
        rest = _other_factors(e, product, plus.outputs[0])
        if rest is None:
            continue
        value, factor = rest
        if value == argument and close(factor, 0.5) and e.type(product.outputs[0]) == e.type(argument):
            kind = "none" if inner.op == "erf" else "tanh"
            new = e.emit("gelu", (argument,), {"approximate": kind}, like=(inner, plus, product))
            e.replace(product.outputs[0], new)
            return


def _erf_argument(e: Editor, erf: Node) -> str | None:
    """x of erf(x / sqrt(2))."""
    value, factor, _ = scaled(e, erf.inputs[0])
    return value if close(factor, math.sqrt(0.5)) else None


def _tanh_argument(e: Editor, tanh: Node) -> str | None:
    """x of tanh(sqrt(2/pi) * (x + 0.044715 x^3)), also written sqrt(2/pi) * x * (1 + 0.044715 x^2)."""
    value, factor, _ = scaled(e, tanh.inputs[0])
    if not close(factor, math.sqrt(2 / math.pi)):
        return None
    node = e.producer(value)
    if node is None:
        return None
    if node.op == "add":
        for x, cubic in sides(node):
            base, coefficient, _ = scaled(e, cubic)
            if close(coefficient, 0.044715) and _power(e, base, x) == 3:
                return x
    if node.op == "mul":
        for x, polynomial in sides(node):
            plus = e.producer(polynomial, "add")
            found = with_scalar(e, plus) if plus is not None else None
            if found is None or not close(found[1], 1.0):
                continue
            base, coefficient, _ = scaled(e, found[0])
            if close(coefficient, 0.044715) and _power(e, base, x) == 2:
                return x
    return None


def _power(e: Editor, value: str, x: str) -> int:
    """n where `value` is x^n written with mul or pow; 0 otherwise."""
    if value == x:
        return 1
    node = e.producer(value)
    if node is not None and node.op == "mul":
        powers = [_power(e, i, x) for i in node.inputs]
        return sum(powers) if all(powers) else 0
    if node is not None and node.op == "pow" and node.inputs[0] == x:
        exponent = e.scalar(node.inputs[1])
        return int(exponent) if exponent in (2.0, 3.0) else 0
    return 0


def _products(e: Editor, value: str) -> list[Node]:
    """The outermost multiplications that `value` alone flows into: candidates for the end of the pattern."""
    out: list[Node] = []
    while True:
        node = e.only_user(value)
        if node is None or node.op != "mul":
            return out[::-1]
        out.append(node)
        value = node.outputs[0]


def _other_factors(e: Editor, product: Node, known: str) -> tuple[str, float] | None:
    """The factors of `product` besides `known`: one value and a constant."""
    values, factor, stack = [], 1.0, list(product.inputs)
    while stack:
        value = stack.pop()
        scalar = e.scalar(value)
        node = e.producer(value, "mul")
        if value == known:
            continue
        if scalar is not None:
            factor *= scalar
        elif node is not None and (known in _leaves(e, value) or any(e.scalar(i) is not None for i in node.inputs)):
            stack.extend(node.inputs)
        else:
            values.append(value)
    return (values[0], factor) if len(values) == 1 else None


def _leaves(e: Editor, value: str) -> set[str]:
    node = e.producer(value, "mul")
    return {value} if node is None else {value}.union(*(_leaves(e, i) for i in node.inputs))


PASS = Pass("fuse_gelu", fuse_gelu)
