"""Whether the sizes agree that a model takes to be equal; see plan/equalities.py for which those are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bessemer.core.dim import evaluate, operands, symbols
from bessemer.core.errors import ShapeError
from bessemer.engine.program import Equality


def check_equalities(equalities: Iterable[Equality], env: Mapping[str, int]) -> None:
    """ShapeError where sizes differ that the model takes to be equal; of those that are known."""
    for e in equalities:
        names = symbols(e.left) | symbols(e.right)
        if not names <= env.keys():
            continue
        left, right = evaluate(e.left, env), evaluate(e.right, env)
        if left != right and not (e.or_one and left == 1):
            at = ", ".join(f"{name} = {env[name]}" for name in sorted(names))
            said, fix = _broken(e, left, right)
            raise ShapeError(
                f"the model does not run at this shape: at {at}, {said}", where=f"ONNX nodes {e.nodes}", fix=fix
            )


def _broken(e: Equality, left: int, right: int) -> tuple[str, str]:
    """What differs, and the fix. That the greater of two sizes is one of them bounds the other (see ops/bounds.py)."""
    if e.or_one:
        return f"{e.left} is {left} and must be 1 or {right}", "give sizes that can be broadcast"
    lesser = [d for d in operands("max", e.left) if d != e.right]
    if len(lesser) == len(operands("max", e.left)):
        if isinstance(e.left, int) or isinstance(e.right, int):
            size, value, wanted = (e.right, right, left) if isinstance(e.left, int) else (e.left, left, right)
            return f"{size} is {value} and must be {wanted}", "give sizes at which it is"
        return f"{e.left} is {left} and {e.right} is {right}", "give sizes at which these two are equal"
    if isinstance(e.right, int):
        return f"{lesser[0]} is {left} and must be at most {right}", "give smaller sizes"
    least = f"{left}" if isinstance(lesser[0], int) else f"{left} ({lesser[0]})"
    return f"{e.right} is {right} and must be at least {least}", "give sizes at which this one is as large"
