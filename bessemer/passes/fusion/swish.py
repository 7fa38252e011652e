"""SiLU and hard swish: x * sigmoid(x), x * hard_sigmoid(x), x * clip(x + 3, 0, 6) / 6 in any grouping."""

from __future__ import annotations

from bessemer.ir.graph import Node
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions
from bessemer.passes.fusion.match import close, scaled, sides, with_scalar

BEFORE = """
graph "swish"(%x: f32[2,8]) -> (%y) {
  %three: f32[] = constant 3.0
  %zero: f32[] = constant 0.0
  %six: f32[] = constant 6.0
  %shifted: f32[2,8] = add(%x, %three)
  %low: f32[2,8] = max(%shifted, %zero)
  %clipped: f32[2,8] = min(%low, %six)
  %gate: f32[2,8] = div(%clipped, %six)
  %y: f32[2,8] = mul(%x, %gate)
}
"""
AFTER = """
graph "swish"(%x: f32[2,8]) -> (%v0) {
  %v0: f32[2,8] = hard_swish(%x)
}
"""


def fuse_swish(e: Editor, options: PassOptions) -> None:
    """Look at every product of two tensors of floats: integers are divided to integers."""
    for node in e.nodes():
        floats = node.op == "mul" and e.alive(node) and e.type(node.outputs[0]).dtype.is_float
        if floats and e.type(node.inputs[0]) == e.type(node.inputs[1]):
            for x, gate in sides(node):
                if _fuse(e, node, x, gate):
                    break


def _fuse(e: Editor, product: Node, x: str, gate: str) -> bool:
    node = e.producer(gate)
    if node is None:
        return False
    if node.op == "sigmoid" and node.inputs[0] == x:
        e.replace(product.outputs[0], e.emit("silu", (x,), like=(node, product)))
        return True
    if node.op == "hard_sigmoid" and node.inputs[0] == x:
        if close(float(node.attrs["alpha"]), 1 / 6) and close(float(node.attrs["beta"]), 0.5):  # type: ignore[arg-type]
            e.replace(product.outputs[0], e.emit("hard_swish", (x,), like=(node, product)))
            return True
        return False
    source, factor, nodes = scaled(e, gate)
    if not _is_relu6_of_shifted(e, source, x):
        return False
    if close(factor, 1 / 6):
        e.replace(product.outputs[0], e.emit("hard_swish", (x,), like=(*nodes, product)))
        return True
    return _scaled_after(e, product, x) if close(factor, 1.0) else False


def _scaled_after(e: Editor, product: Node, x: str) -> bool:
    """x * relu6(x + 3), divided by 6 afterwards."""
    after = e.only_user(product.outputs[0])
    if after is None or after.op not in ("mul", "div") or e.type(after.outputs[0]) != e.type(x):
        return False
    other = next((i for i in after.inputs if i != product.outputs[0]), None)
    scalar = e.scalar(other) if other is not None else None
    divided = after.op == "div" and after.inputs[0] == product.outputs[0] and close(scalar, 6.0)
    if not divided and not (after.op == "mul" and close(scalar, 1 / 6)):
        return False
    e.replace(after.outputs[0], e.emit("hard_swish", (x,), like=(product, after)))
    return True


def _is_relu6_of_shifted(e: Editor, value: str, x: str) -> bool:
    """clip(x + 3, 0, 6), as min(max(...)) in either order."""
    bounds: dict[str, float] = {}
    while len(bounds) < 2:
        node = e.producer(value)
        if node is not None and node.op == "relu" and "max" not in bounds:
            bounds["max"], value = 0.0, node.inputs[0]
            continue
        if node is None or node.op not in ("min", "max") or node.op in bounds:
            return False
        found = with_scalar(e, node)
        if found is None:
            return False
        value, bounds[node.op] = found
    add = e.producer(value, "add")
    shifted = with_scalar(e, add) if add is not None else None
    return shifted is not None and shifted[0] == x and close(shifted[1], 3.0) and bounds == {"max": 0.0, "min": 6.0}


PASS = Pass("fuse_swish", fuse_swish)
