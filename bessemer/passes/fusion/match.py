"""Small questions that patterns ask about a node's neighbourhood."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor


def sides(node: Node) -> Iterator[tuple[str, str]]:
    """Both ways to read a commutative node's two operands."""
    a, b = node.inputs
    yield a, b
    yield b, a


def with_scalar(e: Editor, node: Node) -> tuple[str, float] | None:
    """(operand, constant) of a commutative node with one one-element constant operand."""
    for value, constant in sides(node):
        scalar = e.scalar(constant)
        if scalar is not None:
            return value, scalar
    return None


def close(a: float | None, b: float, tolerance: float = 1e-4) -> bool:
    """Whether `a` is `b` as far as exporters' roundings go."""
    return a is not None and math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)


def scaled(e: Editor, value: str) -> tuple[str, float, list[Node]]:
    """`value` as (source, factor, nodes) through any chain of multiplications and divisions by constants.

    Of floats alone: integers are divided to integers, and 2 * (x / 2) is not x."""
    factor = 1.0
    nodes: list[Node] = []
    if not e.type(value).dtype.is_float:
        return value, factor, nodes
    while True:
        node = e.producer(value)
        if node is None or node.op not in ("mul", "div") or e.type(value) != e.type(node.inputs[0]):
            mul = node is not None and node.op == "mul" and e.type(value) == e.type(node.inputs[1])
            if not mul or node is None or e.scalar(node.inputs[0]) is None:
                return value, factor, nodes
        assert node is not None
        if node.op == "div":
            scalar = e.scalar(node.inputs[1])
            if not scalar:
                return value, factor, nodes
            value, factor = node.inputs[0], factor / scalar
        else:
            found = with_scalar(e, node)
            if found is None:
                return value, factor, nodes
            value, factor = found[0], factor * found[1]
        nodes.append(node)
