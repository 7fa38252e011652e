"""A problem with inputs and the answer: what candidate kernels are screened with.

The answer is numpy's, which would take minutes at large batches. So where one axis only numbers independent parts (the
images of a batch, the rows of a product), the inputs repeat along it, with an odd period that no tile has: the answer
is computed for one period. A kernel's output is compared with it there, and with itself everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.dtype import DType
from bessemer.core.errors import BessemerError
from bessemer.ir import expr as ex
from bessemer.ir import exprtree, scalar
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Problem
from bessemer.tune import oracle
from bessemer.tune.model import flops
from bessemer.tune.task import NoCase

FLOPS, ELEMENTS = 5e8, 2e6  # what takes more, or has larger tensors, is computed for one period
LEAST = 3  # parts of a period
Reads = Mapping[int, int]  # operand -> its axis that goes along


@dataclass(frozen=True)
class Case:
    """Inputs as stored, and the outputs of one period along `axis` as numbers (`period` None: all of them)."""

    env: Mapping[str, int]
    inputs: Sequence[np.ndarray]
    wanted: Sequence[np.ndarray]
    dtypes: Sequence[DType]  # of the outputs
    axis: int = 0
    period: int | None = None
    rounded: Sequence[DType] = ()  # to what the outputs were rounded on the way
    doubt: Callable[[], scalar.Doubt] = scalar.Doubt  # asked for where an output is off: it takes another evaluation

    def wrong(self, k: int, got: np.ndarray) -> str | None:
        """What is wrong with output `k` (as stored); None where it is within the tolerance of the coarsest dtype that
        it was rounded to: sums in another order go to another side."""
        exact = self.dtypes[k].name not in oracle.TOLERANCE
        dtypes = (self.dtypes[k],) if exact else (self.dtypes[k], *self.rounded)
        limit = max(oracle.TOLERANCE.get(d.name, 0.0) for d in dtypes)
        if self.error(k, got) <= limit:
            return None
        error = self.error(k, got, self.doubt())
        if error <= limit:
            return None
        return f"wrong result: relative error {error:.2e} of output {k}, allowed {limit:g}"

    def error(self, k: int, got: np.ndarray, known: scalar.Doubt = oracle.CERTAIN) -> float:
        """How far output `k` (as stored) is off, see oracle.error_of."""
        want, dtype = self.wanted[k], self.dtypes[k]
        if self.period is None:
            return oracle.error_of(got, want, dtype, known)
        parts = np.moveaxis(got, self.axis, 0)
        if known.defined is not None or not _repeats(parts.view(f"u{got.dtype.itemsize}"), self.period):
            size, defined = parts.shape[0], known.defined
            if defined is not None:
                defined = _repeated(defined, self.axis, size)
            known = scalar.Doubt(known.addend * (size / self.period) ** 0.5, defined)
            return oracle.error_of(got, _repeated(want, self.axis, size), dtype, known)
        return oracle.error_of(parts[: self.period], np.moveaxis(want, self.axis, 0), dtype, known)


def case_of(problem: Problem, rng: np.random.Generator) -> Case:
    """Fresh random inputs at the opt shape, and the answer; NoCase where there is none."""
    try:
        return _made(problem, oracle.typical_env(problem), rng)
    except (BessemerError, MemoryError, TypeError, ValueError) as error:
        raise NoCase(f"no case can be made of it at its opt shape: {error or 'out of memory'}") from error


def _made(problem: Problem, env: Mapping[str, int], rng: np.random.Generator) -> Case:
    oracle.check_sizes(problem, env)
    found = _independent(problem)
    dtypes, rounded = [t.dtype for t in problem.outputs], tuple(dict.fromkeys(_rounded(problem)))
    size = problem.typical(problem.outputs[0].shape[found[0]]) if found is not None else 0
    largest = max(problem.typical(t.numel) for t in (*(o.type for o in problem.operands), *problem.outputs))
    share = min(FLOPS / max(1, flops(problem)), ELEMENTS / max(1, largest))
    period = max(LEAST, int(size * share)) | 1
    if found is None or 2 * period > size:
        inputs = oracle.random_inputs(problem, env, rng)
        wanted = oracle.answer(problem, inputs, env)
        return Case(env, inputs, wanted, dtypes, rounded=rounded, doubt=lambda: oracle.doubt(problem, inputs, env))
    axis, reads = found
    small = _shortened(problem, axis, reads, period)
    few = oracle.random_inputs(small, env, rng)
    wanted, inputs = oracle.answer(small, few, env), list(few)
    for k, along in reads.items():
        inputs[k] = _repeated(few[k], along, evaluate(problem.operands[k].type.shape[along], env))
    return Case(env, inputs, wanted, dtypes, axis, period, rounded, lambda: oracle.doubt(small, few, env))


def _rounded(problem: Problem) -> Iterator[DType]:
    """The dtypes of what is computed on the way to the outputs."""
    for root in (problem.epilogue, problem.body.expr if problem.body is not None else None):
        for node in exprtree.walk(root) if root is not None else ():
            if isinstance(node, (ex.Cast, ex.Call, ex.Acc)):
                yield node.dtype


def _repeats(parts: np.ndarray, period: int) -> bool:
    """Whether all that follows the first period is the same again, bit by bit."""
    return all(
        np.array_equal(parts[k : k + period], parts[: min(period, len(parts) - k)])
        for k in range(period, len(parts), period)
    )


def _repeated(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    return np.asarray(np.take(array, np.arange(size) % array.shape[axis], axis))


def _independent(problem: Problem) -> tuple[int, Reads] | None:
    """An axis of the output whose parts do not depend on each other, and the operands that go along with it."""
    if problem.body is not None:
        shape = problem.body.shape
        axes = {k: reads for k in range(len(shape)) if (reads := _direct(problem.body.expr, k)) is not None}
        return max(axes.items(), key=lambda item: problem.typical(shape[item[0]]), default=None)
    found = _of_anchor(problem)
    if found is None or problem.epilogue is None:
        return found
    axis, reads = found
    more = _direct(problem.epilogue, axis)
    return None if more is None or reads.keys() & more.keys() else (axis, {**reads, **more})


def _of_anchor(problem: Problem) -> tuple[int, Reads] | None:
    """The axis along which the anchor works part by part; None for ops that are not known to."""
    if len(problem.outputs) != 1 + problem.sums:
        return None
    shapes, out = [o.type.shape for o in problem.operands[: problem.anchors]], problem.outputs[0].shape
    match problem.op:
        case "conv" | "conv_transpose" | "pool":
            return 0, {0: 0}
        case "matmul" if len(shapes[0]) >= 2:
            return len(out) - 2, {0: len(shapes[0]) - (1 if problem.attr("transpose_a") else 2)}
        case "layer_norm" if problem.attr("mode") == "layer" and problem.attr("axis") > 0:
            return 0, {0: 0}
        case "softmax" if problem.attr("axis") > 0:
            return 0, {0: 0}
        case "attention" if all(len(s) < len(out) or s[0] in (out[0], 1) for s in shapes):
            return 0, {k: 0 for k, s in enumerate(shapes) if len(s) == len(out) and s[0] != 1}
    return None


def _direct(e: ex.Expr, axis: int) -> Reads | None:
    """The operands that are loaded at the output's coordinate `axis`, with the place of that index; None where the
    coordinate is used for anything else, or an operand is read both along with it and otherwise."""
    here = ex.Axis(f"i{axis}")
    if e == here:
        return None
    places: dict[int, set[int | None]] = {}
    for node in exprtree.walk(e):
        if isinstance(node, ex.Load):
            at = [k for k, index in enumerate(node.index) if index == here]
            places.setdefault(node.operand, set()).update(at or [None])
        elif here in exprtree.children(node):
            return None
    if any(len(seen) > 1 for seen in places.values()):
        return None
    return {operand: place for operand, seen in places.items() for place in seen if place is not None}


def _shortened(problem: Problem, axis: int, reads: Reads, period: int) -> Problem:
    """The problem with `period` parts."""

    def cut(t: TensorType, at: int) -> TensorType:
        return TensorType(t.dtype, (*t.shape[:at], period, *t.shape[at + 1 :]))

    body, result = problem.body, problem.result
    return replace(
        problem,
        operands=tuple(
            replace(o, type=cut(o.type, reads[k])) if k in reads else o for k, o in enumerate(problem.operands)
        ),
        outputs=tuple(cut(t, axis) for t in problem.outputs),
        result=None if result is None else cut(result, axis),
        body=None if body is None else replace(body, shape=(*body.shape[:axis], period, *body.shape[axis + 1 :])),
    )
