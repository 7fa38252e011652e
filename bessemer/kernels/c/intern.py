"""Expressions as graphs: equal parts as one object, parts replaced by identity, boolean parts folded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bessemer.ir import expr as ex
from bessemer.ir import exprtree


class Interner:
    """Makes equal sub-expressions one object, across all expressions that are passed to it."""

    def __init__(self) -> None:
        self._known: dict[object, ex.Expr] = {}

    def __call__(self, e: ex.Expr) -> ex.Expr:
        return exprtree.rewrite(e, lambda n: self._known.setdefault(_key(n), n))


def _key(n: ex.Expr) -> object:
    ids = tuple(id(c) for c in exprtree.children(n))
    match n:
        case ex.Lit(value=value, dtype=dtype):
            return ("lit", repr(value), dtype)
        case ex.Load(operand=operand, dtype=dtype):
            return ("load", operand, dtype, ids)
        case ex.Call(fn=fn):
            return ("call", fn, ids)
        case ex.Select():
            return ("select", ids)
        case ex.Cast(dtype=dtype):
            return ("cast", dtype, ids)
        case ex.Reduce(kind=kind, axes=axes, acc=acc):
            return ("reduce", kind, axes, acc, ids)
    return n


def replaced(e: ex.Expr, new: Mapping[int, ex.Expr]) -> ex.Expr:
    """`e` with nodes replaced, found by their id; what becomes constant among conditions is folded."""
    memo: dict[int, ex.Expr] = {}

    def go(node: ex.Expr) -> ex.Expr:
        if id(node) in new:
            return new[id(node)]
        if id(node) not in memo:
            memo[id(node)] = _folded(_rebuilt(node, tuple(go(c) for c in exprtree.children(node))))
        return memo[id(node)]

    return go(e)


def _rebuilt(e: ex.Expr, new: tuple[ex.Expr, ...]) -> ex.Expr:
    if all(a is b for a, b in zip(exprtree.children(e), new, strict=True)):
        return e
    match e:
        case ex.Load():
            return replace(e, index=new)
        case ex.Call():
            return ex.call(e.fn, *new)
        case ex.Select():
            return ex.Select(*new)
        case ex.Cast():
            return ex.Cast(new[0], e.dtype)
    assert isinstance(e, ex.Reduce)
    return replace(e, body=new[0])


def _folded(e: ex.Expr) -> ex.Expr:
    match e:
        case ex.Select(cond=ex.Lit(value=value)):
            return e.a if value else e.b
        case ex.Call(fn="not", args=(ex.Lit(value=value),)):
            return ex.Lit(not value, e.dtype)
        case ex.Call(fn="and" | "or" as fn, args=(a, b)):
            for one, other in ((a, b), (b, a)):
                if isinstance(one, ex.Lit) and other.dtype == e.dtype:
                    return other if bool(one.value) == (fn == "and") else ex.Lit(fn == "or", e.dtype)
    return e
