"""Which value of the ONNX model a tensor of an engine stands for.

Fusions and layouts give tensors names of their own. What a step computed is known from the ONNX nodes that it stands
for: where a node belongs to several steps, the last of them has its result. So a step that writes one tensor has, in
it, the output of one of the nodes that it finishes. It may also have that of a node that a later step belongs to, which
then only moves it; or a part of such a node's result, or a value that rewriting moved (a product before the scale that
its weights took in), which stands for nothing. That is seen by what is made of it: where it is right, so was this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from bessemer.engine.program import Program, Tensor

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_AXES = 5  # of arrays that are looked at in other orders of their axes


@dataclass(frozen=True)
class Match:
    """A tensor of an engine and the ONNX values that it may stand for: surely the one that `values` holds, one of them
    where they are several or `sure` is false, and where none of them, perhaps one of `others`.

    `readers` are the tensors that are made of it."""

    tensor: str
    step: int
    values: tuple[str, ...]
    others: tuple[str, ...]
    sure: bool
    readers: tuple[str, ...]


def matches(program: Program, model: ModelProto) -> list[Match]:
    """For every tensor that a step writes, in the order of the steps."""
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
            names = (ended, others) if sure is None else ((sure,), ())
            if any(names):
                found[t.name] = Match(t.name, k, *names, sure is not None, _readers(program, k, t))
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


def _readers(program: Program, step: int, tensor: Tensor) -> tuple[str, ...]:
    """What later steps make of what `step` wrote into this place, until another value is written there."""
    place = (tensor.space, tensor.offset)

    def there(numbers: Iterable[int]) -> bool:
        return any((program.tensors[n].space, program.tensors[n].offset) == place for n in numbers)

    out: dict[str, None] = {}
    for later in program.steps[step + 1 :]:
        if there(later.reads):
            out.update(dict.fromkeys(program.tensors[n].name for n in later.writes))
        if there(later.writes):
            break
    return tuple(out)


def as_stored(value: np.ndarray, shape: tuple[int, ...], sure: bool) -> Iterator[np.ndarray]:
    """`value` in every way in which a tensor of this shape may hold it: as it is, its axes in another order, reshaped.

    A tensor that surely stands for it holds it as it is where the shape agrees."""
    if value.shape == shape and (sure or value.ndim > MOST_AXES):
        yield value
        return
    if value.ndim == len(shape) and value.ndim <= MOST_AXES:
        for order in permutations(range(value.ndim)):  # the first is the order that it has
            if tuple(value.shape[k] for k in order) == shape:
                yield value.transpose(order)
    if value.size == np.prod(shape, dtype=int) and value.shape != shape:
        yield value.reshape(shape)
