"""Layer norms between products are taken apart: the product ahead adds up its rows, those behind normalise.

    x = a @ v + r;  y = layer_norm(x) * g + h;  z = y @ w + b;  q = c @ u + y

    sums = run_sums(x)
    z = normalize_rows(x @ (g w), sums, column sums of g w) + (b + h w)
    q = c @ u + (normalize_rows(x, sums) g + h)

What normalises a row shifts and scales it, so it may come behind the product: (x - m) / s @ w = (x @ w - m sum(w)) / s,
and no kernel is left where the norm was. It needs kernels for products that add up rows and finish the sums of others,
so it is one of two ways to lower a graph, of which the builder takes the faster one. All is in 16 bits but the sums and
`normalize_rows`; such kernels do not round in between.
"""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Attr, Node
from bessemer.ir.rewrite import Editor
from bessemer.ops.row_sums import RUN
from bessemer.passes.base import Pass, PassOptions

BEFORE = """
graph "norms"(%a: f16[4,8], %r: f16[4,128]) -> (%z) {
  %v: f16[8,128] = constant "normal:1"
  %w: f16[128,8] = constant "normal:2"
  %b: f16[8] = constant "normal:3"
  %g: f32[128] = constant "normal:4"
  %h: f32[128] = constant "normal:5"
  %p: f16[4,128] = matmul(%a, %v) {transpose_a = false, transpose_b = false}
  %x: f16[4,128] = add(%p, %r)
  %y: f16[4,128] = layer_norm(%x, %g, %h)
    {axis = 1, epsilon = 0.0009765625, mode = "layer", has_scale = true, has_bias = true}
  %t: f16[4,8] = matmul(%y, %w) {transpose_a = false, transpose_b = false}
  %z: f16[4,8] = add(%t, %b)
}
"""
AFTER = """
graph "norms"(%a: f16[4,8], %r: f16[4,128]) -> (%v6) {
  %c0: f16[8,128]
  %c1: f16[128,8]
  %c2: f16[8]
  %c3: f16[8]
  %v0: f16[4,128] = matmul(%a, %c0) {transpose_a = false, transpose_b = false}
  %v1: f16[4,128] = add(%v0, %r)
  %v2: f32[4,2,2] = run_sums(%v1)
  %v3: f16[4,8] = matmul(%v1, %c1) {transpose_a = false, transpose_b = false}
  %v4: f32[4,8] = normalize_rows(%v3, %v2, %c2) {size = 128, epsilon = 0.0009765625}
  %v5: f16[4,8] = cast(%v4) {to = f16}
  %v6: f16[4,8] = add(%v5, %c3)
}
"""
LOW = (dt.f16, dt.bf16)
ROWS = 2 * RUN  # rows are of a multiple of this: their sums are copied in units of 16 bytes


def normalize_readers(e: Editor, options: PassOptions) -> None:
    """Look at every norm."""
    for node in e.nodes():
        if node.op == "layer_norm" and e.alive(node) and _between_products(e, node):
            _take_apart(e, node)


def _between_products(e: Editor, norm: Node) -> bool:
    x, y = e.type(norm.inputs[0]), norm.outputs[0]
    size = x.shape[-1]
    if norm.attrs["mode"] != "layer" or norm.attrs["axis"] != x.rank - 1 or x.dtype not in LOW or y in e.outputs:
        return False
    if not isinstance(size, int) or size % ROWS or not _ends_product(e, norm.inputs[0]):
        return False
    if any(e.constant_of(i) is None or e.type(i).shape != (size,) for i in norm.inputs[1:]):
        return False
    return all(_normalises(e, user, y) for user in e.users(y))


def _is_product(e: Editor, node: Node | None) -> bool:
    """Whether `node` is a product with constant weights of 16 bits."""
    if node is None or node.op != "matmul" or node.attrs["transpose_a"]:
        return False
    return e.constant_of(node.inputs[1]) is not None and e.type(node.outputs[0]).dtype in LOW


def _ends_product(e: Editor, value: str) -> bool:
    """Whether `value` is a product, or one with something added."""
    node = e.producer(value)
    if node is not None and node.op == "add":
        return any(e.only_user(i) is not None and _ends_product(e, i) for i in node.inputs)
    return _is_product(e, node)


def _normalises(e: Editor, user: Node, value: str) -> bool:
    """Whether `user` can read the rows before they are normalised."""
    if user.op == "reshape":
        (out,) = user.outputs
        rows = e.type(out).rank > 1 and e.type(out).shape[-1] == e.type(value).shape[-1] and out not in e.outputs
        return rows and all(_is_product(e, u) and u.inputs[0] == out for u in e.users(out))
    if user.op == "add":
        others = [i for i in user.inputs if i != value]
        return len(others) == 1 and e.type(others[0]) == e.type(value) and _ends_product(e, others[0])
    return _is_product(e, user) and user.inputs[0] == value


def _take_apart(e: Editor, norm: Node) -> None:
    x, y = norm.inputs[0], norm.outputs[0]
    sums = e.emit("run_sums", (x,), like=(norm,))
    for user in e.users(y):
        if user.op == "reshape":
            (out,) = user.outputs
            shape = e.type(out).shape
            rows = e.emit("reshape", (x,), {"shape": shape}, like=(user,))
            regrouped = e.emit("reshape", (sums,), {"shape": (*shape[:-1], *e.type(sums).shape[-2:])}, like=(user,))
            for product in e.users(out):
                _behind_product(e, norm, product, rows, regrouped)
        elif user.op == "matmul":
            _behind_product(e, norm, user, x, sums)
        else:
            _in_place(e, norm, user, sums)


def _attrs(e: Editor, norm: Node) -> dict[str, Attr]:
    size = e.type(norm.inputs[0]).shape[-1]
    assert isinstance(size, int)
    return {"size": size, "epsilon": norm.attrs["epsilon"]}


def _affine(norm: Node) -> tuple[str, str]:
    """The scale and the shift of a norm, "" for what it has not."""
    given = list(norm.inputs[1:])
    scale = given.pop(0) if norm.attrs["has_scale"] else ""
    return scale, given.pop(0) if norm.attrs["has_bias"] else ""


def _behind_product(e: Editor, norm: Node, product: Node, rows: str, sums: str) -> None:
    scale, shift = _affine(norm)
    low, axis = e.type(rows).dtype, -1 if product.attrs["transpose_b"] else -2
    weight = e.emit("cast", (product.inputs[1],), {"to": dt.f32}, like=(product,))
    scaled = e.emit("mul", (weight, _along(e, norm, weight, axis, scale)), like=(norm, product)) if scale else weight
    scaled = e.emit("cast", (scaled,), {"to": low}, like=(norm, product))
    own = _summed(e, norm, e.emit("cast", (scaled,), {"to": dt.f32}, like=(norm,)), axis)
    own = e.emit("cast", (own,), {"to": low}, like=(norm,))
    inner = e.emit("matmul", (rows, scaled), product.attrs, like=(product,))
    result = e.emit("normalize_rows", (inner, sums, own), _attrs(e, norm), like=(norm, product))
    end, bias = product.outputs[0], ""
    after = e.only_user(end)
    if after is not None and after.op == "add":
        other = next(i for i in after.inputs if i != end)
        if e.constant_of(other) is not None and e.type(after.outputs[0]) == e.type(end):
            bias, end = other, after.outputs[0]
    if shift:
        moved = e.emit("mul", (weight, _along(e, norm, weight, axis, shift)), like=(norm, product))
        bias = _total(e, norm, _summed(e, norm, moved, axis), bias, low)
    result = e.emit("cast", (result,), {"to": low}, like=(norm, product))
    e.replace(end, e.emit("add", (result, bias), like=(norm, product)) if bias else result)


def _along(e: Editor, norm: Node, weight: str, axis: int, vector: str) -> str:
    """`vector` along `axis` of a weight, in f32."""
    shape = [1] * e.type(weight).rank
    shape[axis] = -1
    size = e.type(vector).shape[0]
    wide = e.emit("cast", (vector,), {"to": dt.f32}, like=(norm,)) if e.type(vector).dtype != dt.f32 else vector
    return e.emit("reshape", (wide,), {"shape": tuple(size if d == -1 else d for d in shape)}, like=(norm,))


def _summed(e: Editor, norm: Node, weight: str, axis: int) -> str:
    """The sums of a weight [..., k, n] over k: [n], or [..., 1, n] of stacked weights."""
    t = e.type(weight)
    attrs: dict[str, Attr] = {"kind": "sum", "axes": (t.rank + axis,), "keepdims": False}
    total = e.emit("reduce", (weight,), attrs, like=(norm,))
    if t.rank == 2:
        return total
    shape = e.type(total).shape
    return e.emit("reshape", (total,), {"shape": (*shape[:-1], 1, shape[-1])}, like=(norm,))


def _total(e: Editor, norm: Node, vector: str, bias: str, low: DType) -> str:
    """`vector`, in f32, with a bias of 16 bits if there is one, in 16 bits."""
    if bias:
        vector = e.emit("add", (vector, e.emit("cast", (bias,), {"to": dt.f32}, like=(norm,))), like=(norm,))
    return e.emit("cast", (vector,), {"to": low}, like=(norm,))


def _in_place(e: Editor, norm: Node, add: Node, sums: str) -> None:
    """The norm's value where `add` reads it. Its shift goes into the bias of the product."""
    x, y = norm.inputs[0], norm.outputs[0]
    low, (scale, shift) = e.type(x).dtype, _affine(norm)
    result = e.emit("normalize_rows", (x, sums), _attrs(e, norm), like=(norm,))
    result = e.emit("cast", (result,), {"to": low}, like=(norm,))
    if scale:
        result = e.emit("mul", (result, e.emit("cast", (scale,), {"to": low}, like=(norm,))), like=(norm,))
    if shift:
        found = _biased(e, next(i for i in add.inputs if i != y))
        if found is not None:
            biased, bias = found
            e.update(biased, inputs=tuple(_total(e, norm, shift, i, low) if i == bias else i for i in biased.inputs))
        else:
            result = e.emit("add", (result, e.emit("cast", (shift,), {"to": low}, like=(norm,))), like=(norm,))
    e.update(add, inputs=tuple(result if i == y else i for i in add.inputs))


def _biased(e: Editor, value: str) -> tuple[Node, str] | None:
    """The sum of a product and a constant of its columns that `value` is, and the constant."""
    node = e.producer(value, "add")
    bias = next((i for i in node.inputs if e.constant_of(i) is not None), None) if node is not None else None
    if node is None or bias is None or e.type(bias).shape != e.type(value).shape[-1:]:
        return None
    return node, bias


PASS = Pass("normalize_readers", normalize_readers)
