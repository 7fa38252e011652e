"""Problems and expected outputs from the samples of ops."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.fold import evaluate
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, InferContext, Sample
from bessemer.kernels.base import Operand, Problem

ROUNDING = {"f16": 2e-3, "bf16": 1e-2}  # relative error of the norm


@dataclass(frozen=True)
class Asked:
    """A problem, its arrays as stored, and its outputs as numbers."""

    label: str
    problem: Problem
    arrays: list[np.ndarray]
    wanted: list[np.ndarray]
    tolerance: float


def samples(name: str, seed: int) -> Iterator[tuple[str, Sample]]:
    op = OPS.get(name)
    assert op.samples is not None
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    for k, sample in enumerate(op.samples(rng)):
        yield f"{name} sample {k} {sample.note}", sample


def _context(sample: Sample) -> InferContext:
    types = tuple(None if a is None else TensorType(dt.from_numpy(a.dtype), a.shape) for a in sample.inputs)
    return InferContext(types, sample.attrs, {}, sample.inputs)


def groups(name: str, seed: int) -> Iterator[Asked]:
    """The samples of an op with a compute definition, as groups. (An absent input is an operand nobody reads.)"""
    op = OPS.get(name)
    assert op.compute is not None
    for label, sample in samples(name, seed):
        ctx = _context(sample)
        (out,) = op.infer(ctx)
        (wanted,) = evaluate(op, sample.inputs, ctx.types, sample.attrs, (out,))
        operands = tuple(Operand(t or TensorType(dt.f32, (1,))) for t in ctx.types)
        arrays = [np.zeros(1, np.float32) if a is None else a for a in sample.inputs]
        problem = Problem("group", operands, (out,), body=op.compute(ctx))
        tolerance = max(sample.tolerance, ROUNDING.get(out.dtype.name, 0))
        yield Asked(label, problem, arrays, [_numbers(wanted, out.dtype)], tolerance)


def anchors(name: str, seed: int, dtype: DType = dt.f32) -> Iterator[Asked]:
    """The samples of a template op, its f32 operands stored as `dtype`; weights of recurrent cells are constants."""
    op = OPS.get(name)
    for label, sample in samples(name, seed):
        stored = [_stored(a, dtype) for a in sample.inputs if a is not None]
        values = [_numbers(a, dtype) if a.dtype == dtype.numpy else a for a in stored]
        ctx = _context(replace(sample, inputs=tuple(values)))
        outs = op.infer(ctx)
        wanted = [np.asarray(a) for a in op.reference(values, sample.attrs)]
        types = [TensorType(dtype if t.dtype == dt.f32 else t.dtype, t.shape) for t in ctx.types if t]
        constant = (1, 2) if name in ("lstm", "gru") else ()
        operands = tuple(Operand(t, k in constant) for k, t in enumerate(types))
        results = tuple(TensorType(dtype if t.dtype == dt.f32 else t.dtype, t.shape) for t in outs)
        attrs = tuple(sorted(sample.attrs.items()))
        problem = Problem(name, operands, results, attrs, len(operands), results[0])
        tolerance = max(sample.tolerance, ROUNDING.get(dtype.name, 0))
        yield Asked(f"{label} {dtype}", problem, stored, wanted, tolerance)


def with_epilogue(asked: Asked, seed: int) -> Asked:
    """`asked` with max(2 * result + row vector, same-shape operand) behind it, in f32."""
    rng, out = np.random.default_rng(seed), asked.problem.outputs[0]
    row = rng.standard_normal(out.shape[-1]).astype(np.float32)
    same = rng.standard_normal(out.shape).astype(np.float32)
    n, axes = len(asked.arrays), ex.out_axes(out.rank)
    e = ex.call("mul", ex.cast(ex.Acc(out.dtype), dt.f32), ex.lit(2.0, dt.f32))
    e = ex.call("add", e, ex.load(n, (axes[-1],), dt.f32))
    e = ex.cast(ex.call("max", e, ex.load(n + 1, axes, dt.f32)), out.dtype)
    extra = (Operand(TensorType(dt.f32, row.shape)), Operand(TensorType(dt.f32, out.shape)))
    problem = replace(asked.problem, operands=(*asked.problem.operands, *extra), epilogue=e)
    wanted = np.maximum(2 * asked.wanted[0].astype(np.float64) + row, same)
    return Asked(f"{asked.label} with epilogue", problem, [*asked.arrays, row, same], [wanted], asked.tolerance)


def _stored(a: np.ndarray, dtype: DType) -> np.ndarray:
    if a.dtype != np.float32:
        return a
    return dt.to_bf16(a) if dtype == dt.bf16 else a.astype(dtype.numpy)


def _numbers(a: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype == dt.bf16:
        return dt.from_bf16(a)
    return a.astype(np.float32) if a.dtype == np.float16 else a


def check(got: np.ndarray, wanted: np.ndarray, tolerance: float, label: str) -> None:
    """Integers are equal; of floats what is not finite agrees, and the rest to a relative error of the norm."""
    assert got.shape == wanted.shape, label
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted, err_msg=label)
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.where(finite, 0, got), np.where(finite, 0, wanted), err_msg=label)
    exact = wanted[finite].astype(np.float64)
    error = np.linalg.norm(got[finite].astype(np.float64) - exact)
    assert error <= tolerance * (np.linalg.norm(exact) + 1e-6), f"{label}: error {error}"
