"""Which value of the ONNX model a tensor of an engine stands for.

Fusions and layouts give tensors names of their own. What a step computed is known from the ONNX nodes that it stands
for: where a node belongs to several steps, the last of them has its result. So a step that writes one tensor has, in
it, the output of one of the nodes that it finishes. It may also have that of a node that a later step belongs to, which
then only moves it; or a part of such a node's result, which stands for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from bessemer.engine.program import Program

CHANNELS_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}  # by rank


@dataclass(frozen=True)
class Match:
    """A tensor of an engine and the ONNX values that it may stand for. Of the first kind it stands for one; else it may
    stand for one of the second kind."""

    tensor: str
    step: int
    values: tuple[str, ...]
    others: tuple[str, ...] = ()


def matches(program: Program, model: onnx.ModelProto) -> list[Match]:
    """For every tensor that a step writes: the outputs by their names, the others in the order of the steps."""
    nodes = {(n.name or f"{n.op_type}_{k}"): tuple(o for o in n.output if o) for k, n in enumerate(model.graph.node)}
    named = {o for outputs in nodes.values() for o in outputs}
    bound = {program.tensors[n].offset: program.tensors[n].name for n in program.outputs}
    finished: dict[str, int] = {}
    for k, step in enumerate(program.steps):
        finished.update(dict.fromkeys(_top_level(step.origin, nodes), k))
    found: dict[str, Match] = {}
    for k, step in enumerate(program.steps):
        origin = _top_level(step.origin, nodes)
        ended = tuple(o for node in origin if finished[node] == k for o in nodes[node])
        others = tuple(o for node in origin if finished[node] > k for o in nodes[node])
        for n in step.writes:
            t = program.tensors[n]
            sure = bound[t.offset] if t.space == "output" else t.name if t.name in named else None
            found.pop(t.name, None)  # several launches may write one tensor: the last completes it
            match = Match(t.name, k, ended, others) if sure is None else Match(t.name, k, (sure,))
            if match.values or match.others:
                found[t.name] = match
    return list(found.values())


def _top_level(origin: Iterable[str], nodes: Mapping[str, object]) -> list[str]:
    """The model's own nodes among `origin`: one inside a function or a nested graph is its outermost node."""
    out: dict[str, None] = {}
    for name in origin:
        while name not in nodes and "/" in name:
            name = name.rpartition("/")[0]
        if name in nodes:
            out[name] = None
    return list(out)


def as_stored(value: np.ndarray, shape: tuple[int, ...]) -> Iterable[np.ndarray]:
    """`value` in every way in which a tensor of this shape may hold it: as it is, channels last, reshaped."""
    if value.shape == shape:
        yield value
    order = CHANNELS_LAST.get(value.ndim)
    if order is not None and tuple(value.shape[k] for k in order) == shape:
        yield value.transpose(order)
    if value.size == np.prod(shape, dtype=int) and value.shape != shape:
        yield value.reshape(shape)
