"""Reads the text form of dims."""

from __future__ import annotations

import ast
from functools import lru_cache

from bessemer.core.dim import FUNCTIONS, Dim, DimExpr, sym
from bessemer.core.errors import ShapeError

TEXT_LIMIT = 1 << 14  # characters of an expression
TERMS_LIMIT = 1 << 8  # terms of a sum or product


@lru_cache(maxsize=4096)
def parse(text: str) -> Dim:
    """The dim that `str` wrote; ValueError for anything else, however long, deep or wide."""
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"a dimension expression of {len(text)} characters, {TEXT_LIMIT} are allowed")
    try:
        return _parse(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, MemoryError, RecursionError, ZeroDivisionError, ShapeError):
        raise ValueError(f"not a dimension expression: {text!r}") from None


def _parse(node: ast.expr, text: str) -> Dim:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return sym(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -1 * _parse(operand, text)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
            a, b = _parse(left, text), _parse(right, text)
            if _terms(a) * _terms(b) > TERMS_LIMIT:
                raise ValueError(f"a dimension expression of too many terms: {text[:80]!r}...")
            return a + b if isinstance(op, ast.Add) else a - b if isinstance(op, ast.Sub) else a * b
        case ast.Call(func=ast.Name(id=fn), args=[a, b], keywords=[]) if fn in FUNCTIONS:
            return FUNCTIONS[fn](_parse(a, text), _parse(b, text))
    raise ValueError(f"not a dimension expression: {text!r}")


def _terms(d: Dim) -> int:
    return len(d.terms) if isinstance(d, DimExpr) else 1
