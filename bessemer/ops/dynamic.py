"""Parameters that are data: what is needed of them before the host forms (`*_dynamic`) can be emitted."""

from __future__ import annotations

from bessemer.ir.importer import ImportContext
from bessemer.ir.opdef import InferContext


def vector(ctx: ImportContext, k: int) -> str:
    """Input `k`, refused where it is no vector of known length: the rank of the result would be unknown."""
    value = ctx.input(k)
    shape = ctx.shape(value)
    if len(shape) != 1 or not isinstance(shape[0], int):
        ctx.unsupported(f"input {k} is {ctx.type(value)}; without a known length the rank of the result is unknown")
    return value


def length(ctx: InferContext, k: int) -> int:
    """The length of vector operand `k`; ValueError where it is not known."""
    t = ctx.type(k)
    if t.rank != 1 or not isinstance(t.shape[0], int):
        raise ValueError(f"operand {k} must be a vector of known length, not {t}")
    return t.shape[0]
