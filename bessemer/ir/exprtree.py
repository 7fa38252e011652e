"""Scalar expressions as trees: their nodes, replacing them, what they load and reduce, and their spelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from bessemer.core import dtype as dt
from bessemer.ir.expr import Acc, Axis, Call, Cast, Expr, Lit, Load, Reduce, Select, Size, call, cast


def children(e: Expr) -> tuple[Expr, ...]:
    """Direct sub-expressions."""
    match e:
        case Load():
            return e.index
        case Call():
            return e.args
        case Select():
            return (e.cond, e.a, e.b)
        case Cast():
            return (e.arg,)
        case Reduce():
            return (e.body,)
    return ()


def walk(e: Expr, inside: Callable[[Expr], bool] = lambda node: True) -> Iterator[Expr]:
    """Every node, each shared node once; of those that `inside` does not let in, the node alone."""
    seen: set[int] = set()
    stack = [e]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if inside(node):
            stack.extend(children(node))


def rewrite(e: Expr, fn: Callable[[Expr], Expr | None]) -> Expr:
    """Bottom-up rewriting: `fn` gives the replacement of a node, or None to keep it. Shared nodes stay shared."""
    memo: dict[int, Expr] = {}

    def go(node: Expr) -> Expr:
        if id(node) in memo:
            return memo[id(node)]
        new = _with_children(node, tuple(go(c) for c in children(node)))
        out = fn(new) or new
        memo[id(node)] = out
        return out

    return go(e)


def _with_children(e: Expr, new: tuple[Expr, ...]) -> Expr:
    if all(a is b for a, b in zip(children(e), new, strict=True)):
        return e
    match e:
        case Load():
            return replace(e, index=new)
        case Call():
            return call(e.fn, *new)
        case Select():
            return Select(*new)
        case Cast():
            return cast(new[0], e.dtype)
        case Reduce():
            return replace(e, body=new[0])
    return e


def substitute_axes(e: Expr, env: Mapping[str, Expr]) -> Expr:
    """`e` with loop variables replaced."""
    return rewrite(e, lambda n: env.get(n.name) if isinstance(n, Axis) else None)


def rename_axes(e: Expr, names: Mapping[str, str]) -> Expr:
    """`e` with reduction variables renamed, in their Reduce and in its body."""

    def step(n: Expr) -> Expr | None:
        if isinstance(n, Axis) and n.name in names:
            return Axis(names[n.name])
        if isinstance(n, Reduce) and any(name in names for name, _ in n.axes):
            return replace(n, axes=tuple((names.get(name, name), size) for name, size in n.axes))
        return None

    return rewrite(e, step)


def operands(e: Expr) -> tuple[int, ...]:
    """Operand numbers that `e` loads from, sorted."""
    return tuple(sorted({n.operand for n in walk(e) if isinstance(n, Load)}))


def reductions(e: Expr) -> tuple[Reduce, ...]:
    """All reductions in `e`."""
    return tuple(n for n in walk(e) if isinstance(n, Reduce))


def text(e: Expr) -> str:
    """A compact, stable spelling; equal expressions have equal text. Used in Problems' keys and in dumps."""
    match e:
        case Lit():
            return f"{e.value}:{e.dtype}" if e.dtype != dt.i64 else str(e.value)
        case Size():
            return f"<{e.dim}>"
        case Axis():
            return e.name
        case Load():
            return f"%{e.operand}[{','.join(text(i) for i in e.index)}]:{e.dtype}"
        case Acc():
            return f"acc:{e.dtype}"
        case Call():
            return f"{e.fn}({','.join(text(a) for a in e.args)})"
        case Select():
            return f"select({text(e.cond)},{text(e.a)},{text(e.b)})"
        case Cast():
            return f"{e.dtype}({text(e.arg)})"
        case Reduce():
            axes = ",".join(f"{name}<{size}" for name, size in e.axes)
            return f"{e.kind}[{axes}]:{e.acc}({text(e.body)})"
    raise TypeError(f"not an expression: {e!r}")
