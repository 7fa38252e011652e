"""Removes what does nothing: identity casts, reshapes, transposes and arithmetic, chains of them, and duplicates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bessemer.ir.fold import attr_text
from bessemer.ir.graph import Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions

DIGITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}  # binary ones of a float
VIEWS = ("reshape", "transpose", "expand", "slice")
READ = 1 << 22  # elements of constants that are looked at


def _cast(e: Editor, n: Node) -> str | None:
    """Casts to the own type; a cast of a cast where the first loses nothing."""
    x = n.inputs[0]
    if e.type(x).dtype == n.attrs["to"]:
        return x
    inner = e.producer(x, "cast")
    if inner is not None and _widens(e, inner):
        return e.emit("cast", (inner.inputs[0],), {**n.attrs}, like=(n,))
    return None


def _widens(e: Editor, cast: Node) -> bool:
    """Whether a cast keeps every value: to a wider type of the same kind, or from a small int to a wide float."""
    a, b = e.type(cast.inputs[0]).dtype, e.type(cast.outputs[0]).dtype
    if a.kind == "b":
        return True
    if a.kind == b.kind:
        return a.bits <= b.bits and {a.name, b.name} != {"f16", "bf16"}
    return a.is_int and b.is_float and a.bits < DIGITS[b.name]


def _reshape(e: Editor, n: Node) -> str | None:
    x = n.inputs[0]
    if e.type(x).shape == e.type(n.outputs[0]).shape:
        return x
    inner = e.producer(x, "reshape")
    if inner is not None:
        return e.emit("reshape", (inner.inputs[0],), n.attrs, like=(n,))
    return _reshape_of_shifted(e, n)


def _reshape_of_shifted(e: Editor, n: Node) -> str | None:
    """reshape(view + number) -> reshape(view) + number: kernels compute the sum, and views stay together."""
    inner = e.producer(n.inputs[0])
    if inner is None or inner.op not in ("add", "mul") or e.only_user(n.inputs[0]) is None:
        return None
    for k in (0, 1):
        view, number = e.producer(inner.inputs[k]), inner.inputs[1 - k]
        if view is None or view.op not in ("reshape", "slice") or e.scalar(number) is None:
            continue
        if e.type(number).rank == 0 and e.type(inner.inputs[k]) == e.type(n.inputs[0]):
            moved = e.emit("reshape", (inner.inputs[k],), n.attrs, like=(n,))
            return e.emit(inner.op, (moved, number), like=(inner, n))
    return None


def _transpose(e: Editor, n: Node) -> str | None:
    """Identity permutations, chains, and permutations that only move axes of size one (a reshape)."""
    x, perm = n.inputs[0], n.attrs["perm"]
    assert isinstance(perm, tuple)
    if perm == tuple(range(len(perm))):
        return x
    inner = e.producer(x, "transpose")
    if inner is not None:
        first = inner.attrs["perm"]
        assert isinstance(first, tuple)
        return e.emit("transpose", (inner.inputs[0],), {"perm": tuple(first[p] for p in perm)}, like=(n, inner))  # type: ignore[index]
    shape = e.type(x).shape
    regrouped = e.producer(x, "reshape")
    if regrouped is not None and _swaps_last(perm):
        before = e.type(regrouped.inputs[0]).shape
        if len(before) >= 2 and before[-2:] == shape[-2:] and e.producer(regrouped.inputs[0], "transpose") is not None:
            rank = len(before)
            swap = {"perm": (*range(rank - 2), rank - 1, rank - 2)}
            swapped = e.emit("transpose", (regrouped.inputs[0],), swap, like=(n,))
            return e.emit("reshape", (swapped,), {"shape": e.type(n.outputs[0]).shape}, like=(regrouped,))
    moved = [p for p in perm if shape[p] != 1]  # type: ignore[index]
    if moved == sorted(moved):  # type: ignore[type-var]
        return e.emit("reshape", (x,), {"shape": e.type(n.outputs[0]).shape}, like=(n,))
    return None


def _swaps_last(perm: tuple[object, ...]) -> bool:
    """Whether only the last two axes change places."""
    rank = len(perm)
    return rank >= 2 and perm == (*range(rank - 2), rank - 1, rank - 2)


def _neutral(value: float, sides: tuple[int, ...]) -> Callable[[Editor, Node], str | None]:
    """x op value -> x, where the constant may stand on one of `sides`."""

    def rule(e: Editor, n: Node) -> str | None:
        for side in sides:
            kept = n.inputs[1 - side]
            if e.scalar(n.inputs[side]) == value and e.type(kept) == e.type(n.outputs[0]):
                return kept
        return None

    return rule


def _expand(e: Editor, n: Node) -> str | None:
    return n.inputs[0] if e.type(n.inputs[0]).shape == e.type(n.outputs[0]).shape else None


def _slice(e: Editor, n: Node) -> str | None:
    same = e.type(n.inputs[0]).shape == e.type(n.outputs[0]).shape
    return n.inputs[0] if same and all(s == 1 for s in n.attrs["steps"]) else None  # type: ignore[union-attr]


def _concat(e: Editor, n: Node) -> str | None:
    return n.inputs[0] if len(n.inputs) == 1 else None


def _pow(e: Editor, n: Node) -> str | None:
    """Squares, cubes and roots without pow. Of what may be below zero it is no root: pow(-inf, 0.5) is inf."""
    x, exponent = n.inputs[0], e.scalar(n.inputs[1])
    if e.type(x) != e.type(n.outputs[0]) or not e.type(x).dtype.is_float:
        return None
    if exponent == 2.0:
        return e.emit("mul", (x, x), like=(n,))
    if exponent == 3.0:
        return e.emit("mul", (e.emit("mul", (x, x), like=(n,)), x), like=(n,))
    if exponent == 0.5 and _from_zero(e, x):
        return e.emit("sqrt", (x,), like=(n,))
    return x if exponent == 1.0 else None


def _from_zero(e: Editor, value: str) -> bool:
    """Whether no element is below zero, for how it was computed: lengths, deviations, and what was clipped."""
    while (node := e.producer(value)) is not None:
        numbers = {i: s for i in node.inputs if i and (s := e.scalar(i)) is not None}
        square = node.op == "mul" and node.inputs[0] == node.inputs[1]
        if square or node.op in ("abs", "exp", "relu") or (node.op == "max" and any(s >= 0 for s in numbers.values())):
            return True
        kind = node.attrs["kind"] if node.op == "reduce" else ""
        if kind in ("l1", "l2", "sum_square"):
            return True
        rest = [i for i in node.inputs if i not in numbers]
        moved = node.op in ("add", "mul", "div", "max") and all(s > 0 for s in numbers.values())
        if len(rest) != 1 or not (moved or kind in ("sum", "mean", "max") or node.op in VIEWS):
            return False
        value = rest[0]
    return False


def _sub(e: Editor, n: Node) -> str | None:
    """x - 0 -> x; x - c -> x + (-c), so that constants are only ever added."""
    same = _neutral(0.0, (1,))(e, n)
    if same is not None or e.constant_of(n.inputs[1]) is None or not e.type(n.inputs[1]).dtype.is_float:
        return same
    return e.emit("add", (n.inputs[0], e.emit("neg", (n.inputs[1],), like=(n,))), like=(n,))


def _add(e: Editor, n: Node) -> str | None:
    """x + 0 -> x; (x + c) + d -> x + (c + d) where that changes no more than the last digit or two."""
    same = _neutral(0.0, (0, 1))(e, n)
    if same is not None or not e.type(n.outputs[0]).dtype.is_float:
        return same
    for k in (0, 1):
        inner, second = e.producer(n.inputs[1 - k], "add"), n.inputs[k]
        if inner is None or e.constant_of(second) is None or e.only_user(inner.outputs[0]) is None:
            continue
        for j in (0, 1):
            first, x = inner.inputs[j], inner.inputs[1 - j]
            if e.constant_of(first) is None or e.constant_of(x) is not None or e.type(x) != e.type(n.outputs[0]):
                continue
            if _joins(e, first, second):
                return e.emit("add", (x, e.emit("add", (first, second), like=(n,))), like=(inner, n))
    return None


def _joins(e: Editor, c: str, d: str) -> bool:
    """Whether c + d may stand for adding c, then d. Biases may.

    What a model adds and takes off again may not: x + 1.5 * 2^23 - 1.5 * 2^23 rounds x to integers, and x + 1 - 1 tells
    what of x was in the sum. Nor may large numbers, which may overflow together where x would have kept them apart."""
    counts = (e.type(c).numel, e.type(d).numel)
    if not all(isinstance(n, int) and 0 < n <= READ for n in counts):
        return False
    first, second = e.array(c), e.array(d)
    assert first is not None and second is not None
    largest = max(float(np.abs(v).max()) for v in (first, second))  # a NaN in either fails what follows
    if not largest <= 2.0 ** (DIGITS[e.type(c).dtype.name] // 2):
        return False
    return float(np.abs(first.astype(np.float64) + second).max()) >= largest / 16


RULES: Mapping[str, Callable[[Editor, Node], str | None]] = {
    "cast": _cast,
    "reshape": _reshape,
    "transpose": _transpose,
    "expand": _expand,
    "slice": _slice,
    "concat": _concat,
    "pow": _pow,
    "add": _add,
    "sub": _sub,
    "mul": _neutral(1.0, (0, 1)),
    "div": _neutral(1.0, (1,)),
}


def simplify(e: Editor, options: PassOptions) -> None:
    """Apply RULES, then merge equal nodes."""
    for node in e.nodes():
        rule = RULES.get(node.op)
        new = rule(e, node) if rule is not None else None
        if new is not None:
            e.replace(node.outputs[0], new)
    _merge_equal(e)


def _merge_equal(e: Editor) -> None:
    seen: dict[tuple[object, ...], Node] = {}
    for node in e.nodes():
        op = OPS.get(node.op)
        if op.random or op.fusion is Fusion.CONTROL or not e.alive(node):
            continue
        key = (node.op, _contents(e, node), tuple((k, attr_text(v)) for k, v in sorted(node.attrs.items())))
        first = seen.setdefault(key, node)
        if first is not node and all(e.type(a) == e.type(b) for a, b in zip(node.outputs, first.outputs) if a and b):
            for old, new in zip(node.outputs, first.outputs):
                e.replace(old, new)


def _contents(e: Editor, node: Node) -> tuple[object, ...]:
    """The inputs, constants by what they hold: exporters write the same number many times."""
    constants = (e.constant_of(i) if i else None for i in node.inputs)
    return tuple(i if c is None else (c.type, c.key, c.transforms) for i, c in zip(node.inputs, constants))


PASS = Pass("simplify", simplify, repeat=True)
