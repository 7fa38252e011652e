"""Random graphs of 6x6 matrices, grown from lists of steps that hypothesis draws."""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.ir.graph import Graph
from tests.graphs import G

STEPS = ("relu", "exp_small", "add", "mul", "sub_row", "transpose", "matmul", "reduce", "center", "slice", "pad",
         "concat", "softmax", "cast", "where", "reshape", "max")  # fmt: skip


def grown(choices: list[tuple[str, int]]) -> Graph:
    """A graph of 6x6 matrices: each step reads an earlier value or two."""
    g = G()
    values = [g.input(6, 6), g.input(6, 6, name="y")]
    for k, (step, pick) in enumerate(choices):
        a, b = values[pick % len(values)], values[(pick // 7) % len(values)]
        match step:
            case "exp_small":
                out = g.exp(g.mul(a, 0.1))
            case "add" | "mul" | "max":
                out = getattr(g, step)(a, b)
            case "sub_row":
                out = g.sub(a, g.reduce(b, "max", 1))
            case "transpose":
                out = g.transpose(a, perm=(1, 0))
            case "matmul":
                out = g.mul(g.matmul(a, b), 0.1)
            case "reduce":
                out = g.add(g.reduce(a, ("sum", "mean", "min")[k % 3], k % 2), b)
            case "center":
                out = g.sub(a, g.reduce(a, "mean", 0))
            case "slice":
                out = g.pad(
                    g.slice(a, starts=(5, 1), sizes=(3, 5), steps=(-2, 1)), 0.5, pads=(1, 0, 2, 1), mode="constant"
                )
            case "pad":
                out = g.slice(
                    g.pad(a, 0.5, pads=(2, 1, 0, 1), mode="constant"), starts=(0, 0), sizes=(6, 6), steps=(1, 1)
                )
            case "concat":
                half = [g.slice(v, starts=(0, k % 3), sizes=(6, 3), steps=(1, 1)) for v in (a, b)]
                out = g.concat(*half, axis=1)
            case "softmax":
                out = g.softmax(a, axis=1, log=False)
            case "cast":
                out = g.cast(g.cast(g.mul(a, 3.0), to=dt.i32), to=dt.f32)
            case "where":
                out = g.where(g.lt(*values[:2]), a, b)
            case "reshape":
                out = g.reshape(g.relu(g.reshape(a, shape=(4, 9))), shape=(6, 6))
            case _:
                out = g.relu(a)
        values.append(out)
    return g.done(*dict.fromkeys((values[-1], values[len(values) // 2])))
