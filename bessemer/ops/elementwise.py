"""How a pointwise op is declared: a numpy function, a scalar expression and the samples, given in one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register
from bessemer.ops.broadcasting import broadcast_index, broadcast_shapes

Numpy = Callable[..., Any]
Scalar = Callable[..., ex.Expr]
OutDType = Callable[[Sequence[DType], Mapping[str, Attr]], DType]
SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (((3, 1, 5), (4, 1), (5,)), ((7,), (7,), (7,)), ((), (2, 3), ()))


def same_as_first(dtypes: Sequence[DType], attrs: Mapping[str, Attr]) -> DType:
    """The dtype of the first operand; ValueError where another differs."""
    if any(d != dtypes[0] for d in dtypes):
        raise ValueError(f"operands have different dtypes: {', '.join(map(str, dtypes))}")
    return dtypes[0]


def boolean(dtypes: Sequence[DType], attrs: Mapping[str, Attr]) -> DType:
    """bool, for comparisons of operands of one dtype."""
    same_as_first(dtypes, attrs)
    return dt.bool_


def register_pointwise(
    name: str,
    arity: int,
    reference: Numpy,
    scalar: Scalar,
    samples: Callable[[np.random.Generator], Sequence[Sample]],
    *,
    out: OutDType = same_as_first,
    symbolic: bool = False,
) -> OpDef:
    """Register a pointwise op of `arity` broadcast operands.

    `reference(*arrays, attrs)` and `scalar(*expressions, attrs)` both give the result in the dtype of `out`.
    """

    def infer(ctx: InferContext) -> tuple[TensorType, ...]:
        types = [ctx.type(k) for k in range(arity)]
        dtype = out([t.dtype for t in types], ctx.attrs)
        return (TensorType(dtype, broadcast_shapes([t.shape for t in types], ctx.ranges)),)

    def run(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
        return (np.asarray(reference(*inputs, attrs)),)

    def compute(ctx: InferContext) -> ex.ComputeDef:
        (result,) = infer(ctx)
        axes = ex.out_axes(result.rank)
        loads = [
            ex.load(k, broadcast_index(ctx.type(k).shape, result.shape, axes, ctx.ranges), ctx.type(k).dtype)
            for k in range(arity)
        ]
        return ex.ComputeDef(result.shape, result.dtype, scalar(*loads, ctx.attrs))

    return register(OpDef(name, infer, run, Fusion.POINTWISE, compute=compute, samples=samples, symbolic=symbolic))


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DRAWS: dict[str, Draw] = {
    # a value alone is not so far out that a function of it is little more than its rounding (GELU of -5)
    "real": lambda rng, shape: rng.standard_normal(shape) * 2 if shape else rng.uniform(-2, 2, shape),
    "positive": lambda rng, shape: rng.uniform(0.05, 9, shape),
    "unit": lambda rng, shape: rng.uniform(-0.98, 0.98, shape),
    "above one": lambda rng, shape: rng.uniform(1.01, 9, shape),
    "halves": lambda rng, shape: rng.integers(-9, 10, shape) / 2,
    "special": lambda rng, shape: rng.choice([-np.inf, np.inf, np.nan, 0.0, 1.5], shape),
    "small": lambda rng, shape: rng.integers(-9, 10, shape),
    "natural": lambda rng, shape: rng.integers(1, 9, shape),
    "bits": lambda rng, shape: rng.integers(0, 256, shape),
    "truth": lambda rng, shape: rng.integers(0, 2, shape),
}


def draw_samples(
    draws: Sequence[str], dtypes: Sequence[str], attrs: Mapping[str, Attr] | None = None
) -> Callable[[np.random.Generator], Sequence[Sample]]:
    """Samples of one op, operand `k` drawn from DRAWS[draws[k]]: each dtype; broadcast, equal and rank-0 shapes."""

    def samples(rng: np.random.Generator) -> Sequence[Sample]:
        found = []
        for name in dtypes:
            for shapes in SHAPES if name == dtypes[0] else SHAPES[:1]:
                arrays = [DRAWS[d](rng, s).astype(dt.parse(name).numpy) for d, s in zip(draws, shapes)]
                found.append(Sample(tuple(arrays), dict(attrs or {}), note=name))
        return found

    return samples
