"""The right answer to a Problem, in numpy: what every candidate kernel is screened against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree, scalar
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, InferContext
from bessemer.kernels.base import Problem
from bessemer.kernels.row_sums import finished
from bessemer.ops.row_sums import RUN, sums_in_numpy

TOLERANCE = {"f64": 1e-9, "f32": 1e-4, "f16": 5e-3, "bf16": 3e-2}  # relative error of the norm
CANCELLED = 0.01  # of what is added up: where less is left, its rounding is seen in what is left
CERTAIN = scalar.Doubt()


def typical_env(problem: Problem) -> dict[str, int]:
    """Symbol values at the opt shape."""
    return {name: r.typical for name, r in problem.ranges}


def random_inputs(problem: Problem, env: Mapping[str, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Fresh random operands as stored (bf16 as bits): normal floats, small integers, coin flips, sums of normal rows.

    Integers that index another operand stay inside it.
    """
    limits, sums = index_limits(problem, env), finished(problem)
    return [
        _sums(o.type, env, rng) if k == sums else _random(o.type, env, rng, _fan_in(problem, k), limits.get(k, 2))
        for k, o in enumerate(problem.operands)
    ]


def index_limits(problem: Problem, env: Mapping[str, int]) -> dict[int, int]:
    """For operands that are read to index others: the least size that their values index."""
    out: dict[int, int] = {}
    roots = [e for e in (problem.epilogue, problem.body.expr if problem.body is not None else None) if e is not None]
    for load in (n for root in roots for n in exprtree.walk(root) if isinstance(n, ex.Load)):
        for index, size in zip(load.index, problem.operands[load.operand].type.shape):
            for inner in (n for n in exprtree.walk(index) if isinstance(n, ex.Load)):
                out[inner.operand] = max(1, min(out.get(inner.operand, 2**31), evaluate(size, env)))
    return out


def _fan_in(problem: Problem, k: int) -> int:
    """Weights of long sums are scaled so that results stay near one, in half precision too.

    A recurrent cell with larger weights would be chaotic, and amplify the rounding of a right kernel.
    """
    if problem.op in ("lstm", "gru") and k in (1, 2):
        return problem.typical(problem.operands[k].type.shape[-1])
    if k != 1 or problem.op not in ("matmul", "conv", "conv_transpose"):
        return 1
    shape = [problem.typical(d) for d in problem.operands[1].type.shape]
    if problem.op == "matmul":
        return shape[-1] if problem.attr("transpose_b") else shape[-2]
    return int(np.prod(shape[1:])) if problem.op == "conv" else shape[0] * int(np.prod(shape[2:]))


def _random(
    t: TensorType, env: Mapping[str, int], rng: np.random.Generator, fan_in: int, limit: int
) -> np.ndarray:
    shape = tuple(evaluate(d, env) for d in t.shape)
    if t.dtype.is_float:
        values = rng.standard_normal(shape, np.float32) / np.float32(max(1, fan_in) ** 0.5)
        return stored(values, t.dtype)
    if t.dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    return np.asarray(rng.integers(0, min(limit, 100), shape), t.dtype.numpy)


def _sums(t: TensorType, env: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """Sums of rows that are not centred."""
    *rows, runs, _ = (evaluate(d, env) for d in t.shape)
    return sums_in_numpy(rng.standard_normal((*rows, runs * RUN), np.float32) + np.float32(0.1))


def stored(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Float values in their storage form."""
    return dt.to_bf16(values) if dtype == dt.bf16 else np.asarray(values, dtype.numpy)


def as_values(array: np.ndarray, dtype: DType) -> np.ndarray:
    """A stored array as numbers."""
    return dt.from_bf16(array) if dtype == dt.bf16 else array


def outputs_in(
    problem: Problem, memory: Sequence[np.ndarray], env: Mapping[str, int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs where they lie in `memory`, the bytes of what each is written to; and the bytes beside the columns
    that output 0 takes of a wider tensor."""
    outputs = [
        m.view(t.dtype.numpy).reshape([evaluate(d, env) for d in t.shape])
        for m, t in zip(memory, problem.written, strict=True)
    ]
    if problem.into is None:
        return outputs, []
    whole, start = outputs[0], problem.into.start
    end = start + evaluate(problem.outputs[0].shape[-1], env)
    rows = memory[0].reshape(-1, problem.into.width * whole.itemsize)
    beside = [rows[:, : start * whole.itemsize], rows[:, end * whole.itemsize :]]
    return [whole[..., start:end], *outputs[1:]], beside


def check_sizes(problem: Problem, env: Mapping[str, int]) -> None:
    """ValueError where the operands of an anchor do not go together: a model may run at other shapes only."""
    if problem.body is None:
        operands = (o.type for o in problem.operands[: problem.anchors])
        types = tuple(TensorType(t.dtype, tuple(evaluate(d, env) for d in t.shape)) for t in operands)
        OPS.get(problem.op).infer(InferContext(types, _attrs(problem, env), {}))


def answer(problem: Problem, inputs: Sequence[np.ndarray], env: Mapping[str, int]) -> list[np.ndarray]:
    """Outputs as numbers (bf16 and f16 as float32 or wider, unrounded where the sum is)."""
    values, dtype, shape = _values(problem, inputs), _wide(problem.outputs[0].dtype), _shape(problem, env)
    if problem.body is not None:
        return [scalar.evaluate(problem.body.expr, shape, dtype, values, env)]
    results = _of_anchor(problem, values, env)
    if problem.epilogue is not None:
        results = [scalar.evaluate(problem.epilogue, shape, dtype, values, env, acc=results[0])]
    return [*results, sums_in_numpy(results[0])] if problem.sums else results


def doubt(problem: Problem, inputs: Sequence[np.ndarray], env: Mapping[str, int]) -> scalar.Doubt:
    """How far the answer can be held against a kernel's: for what expressions say, sums of an anchor aside."""
    values, shape = _values(problem, inputs), _shape(problem, env)
    if problem.body is not None:
        return scalar.doubt(problem.body.expr, shape, values, env)
    if problem.epilogue is None:
        return CERTAIN
    return scalar.doubt(problem.epilogue, shape, values, env, _of_anchor(problem, values, env)[0])


def _values(problem: Problem, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    values = [as_values(a, o.type.dtype) for a, o in zip(inputs, problem.operands, strict=True)]
    return [v.astype(np.float32) if v.dtype == np.float16 else v for v in values]


def _shape(problem: Problem, env: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, env) for d in problem.outputs[0].shape)


def _of_anchor(problem: Problem, values: list[np.ndarray], env: Mapping[str, int]) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return list(OPS.get(problem.op).reference(values[: problem.anchors], _attrs(problem, env)))


def _attrs(problem: Problem, env: Mapping[str, int]) -> dict[str, Any]:
    return {k: _static(v, env) for k, v in problem.attrs}


def _wide(dtype: DType) -> DType:
    return dt.f32 if dtype in (dt.f16, dt.bf16) else dtype


def _static(value: object, env: Mapping[str, int]) -> object:
    from bessemer.core.dim import DimExpr

    if isinstance(value, tuple):
        return tuple(_static(v, env) for v in value)
    return evaluate(value, env) if isinstance(value, DimExpr) else value


def error_of(got: np.ndarray, want: np.ndarray, dtype: DType, known: scalar.Doubt = CERTAIN) -> float:
    """Relative error of the norm for floats (inf where NaNs differ), share of unequal elements for others.

    Elements that are not defined do not count, and norms are not below `CANCELLED` times that of an addend."""
    values = as_values(got, dtype)
    if known.defined is not None:
        values = np.where(known.defined, values, want)
    if not dtype.is_float:
        return float(np.mean(values != want)) if values.size else 0.0
    x, y = values.astype(np.float64), want.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):  # equal infinities
        difference = np.where(same, 0.0, x - y)
    norm = max(float(np.linalg.norm(np.where(np.isfinite(y), y, 0.0))), CANCELLED * known.addend)
    error = float(np.linalg.norm(difference)) / norm if norm else float(np.linalg.norm(difference))
    return float("inf") if np.isnan(error) else error
