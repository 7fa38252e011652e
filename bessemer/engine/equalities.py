"""Whether the sizes agree that a model takes to be equal; see plan/equalities.py for which those are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bessemer.core.dim import evaluate, symbols
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
            differ = f"must be 1 or {right}" if e.or_one else f"{e.right} is {right}"
            raise ShapeError(
                f"the model does not run at this shape: at {at}, {e.left} is {left} and {differ}",
                where=f"ONNX nodes {e.nodes}",
                fix="give sizes that can be broadcast" if e.or_one else "give sizes at which these two are equal",
            )
