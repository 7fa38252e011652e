"""Random numbers, drawn on the host. A node with a seed draws the same numbers in every run; their values are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register


def _generator(seed: float | None) -> np.random.Generator:
    return np.random.default_rng(None if seed is None else np.array([seed]).view(np.uint64))


def _as(values: np.ndarray, dtype: DType) -> np.ndarray:
    return values.astype(np.float32 if dtype == dt.bf16 else dtype.numpy)


def _random_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    return (TensorType(ctx.attr("dtype"), tuple(ctx.attr("shape"))),)


def _random_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """kind "normal": a is the mean, b the deviation; kind "uniform": numbers in [a, b)."""
    rng, shape = _generator(attrs["seed"]), tuple(attrs["shape"])
    draw = rng.normal if attrs["kind"] == "normal" else rng.uniform
    return (_as(np.asarray(draw(attrs["a"], attrs["b"], shape)), attrs["dtype"]),)


def _random_samples(rng: np.random.Generator) -> Sequence[Sample]:
    attrs: dict[str, Attr] = {"shape": (3, 4), "dtype": dt.f32, "a": -1.0, "b": 2.0, "seed": 7.0}
    return (Sample((), {**attrs, "kind": "normal"}), Sample((), {**attrs, "kind": "uniform"}))


register(OpDef("random", _random_infer, _random_reference, Fusion.HOST, samples=_random_samples, random=True))

# ONNX name: (kind, (attribute and default of a), (of b))
_ONNX = {
    "RandomNormal": ("normal", ("mean", 0.0), ("scale", 1.0)),
    "RandomUniform": ("uniform", ("low", 0.0), ("high", 1.0)),
}


def _importer(kind: str, a: tuple[str, float], b: tuple[str, float], like: bool) -> Callable[[ImportContext], Values]:
    def importer(ctx: ImportContext) -> Values:
        shape = ctx.shape(ctx.input(0)) if like else tuple(ctx.attr("shape"))
        dtype = ctx.dtype_attr("dtype", ctx.dtype(ctx.input(0)) if like else dt.f32)
        return ctx.emit(
            "random", kind=kind, shape=shape, dtype=dtype, a=ctx.attr(*a), b=ctx.attr(*b), seed=ctx.attr("seed", None)
        )

    return importer


for _name, _spec in _ONNX.items():
    onnx_op(_name, since=(1, 22))(_importer(*_spec, like=False))
    onnx_op(f"{_name}Like", since=(1, 22))(_importer(*_spec, like=True))


# -- bernoulli ----------------------------------------------------------------------------------------------------


def _bernoulli_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    return (TensorType(ctx.attr("dtype"), ctx.type(0).shape),)


def _bernoulli_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (probability,) = inputs
    assert probability is not None
    return (_as(_generator(attrs["seed"]).uniform(size=probability.shape) < probability, attrs["dtype"]),)


def _bernoulli_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.uniform(size=(3, 4)).astype(np.float32),), {"dtype": dt.f32, "seed": 3.0}),)


register(
    OpDef("bernoulli", _bernoulli_infer, _bernoulli_reference, Fusion.HOST, samples=_bernoulli_samples, random=True)
)


@onnx_op("Bernoulli", since=(15, 22))
def _bernoulli(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    return ctx.emit("bernoulli", x, dtype=ctx.dtype_attr("dtype", ctx.dtype(x)), seed=ctx.attr("seed", None))


# -- multinomial --------------------------------------------------------------------------------------------------


def _multinomial_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    if x.rank != 2:
        raise ValueError(f"the log-probabilities must be a matrix, not {x}")
    return (TensorType(ctx.attr("dtype"), (x.shape[0], ctx.attr("count"))),)


def _multinomial_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The greatest of log-probability plus Gumbel noise is a draw from the distribution."""
    (logits,) = inputs
    assert logits is not None
    noise = _generator(attrs["seed"]).gumbel(size=(logits.shape[0], attrs["count"], logits.shape[1]))
    return (_as(np.argmax(logits[:, None, :] + noise, -1), attrs["dtype"]),)


def _multinomial_samples(rng: np.random.Generator) -> Sequence[Sample]:
    return (Sample((rng.standard_normal((2, 5)).astype(np.float32),), {"count": 6, "dtype": dt.i32, "seed": 1.0}),)


register(
    OpDef(
        "multinomial", _multinomial_infer, _multinomial_reference, Fusion.HOST,
        samples=_multinomial_samples, random=True,
    )
)  # fmt: skip


@onnx_op("Multinomial", since=(7, 22))
def _multinomial(ctx: ImportContext) -> Values:
    dtype, seed = ctx.dtype_attr("dtype", dt.i32), ctx.attr("seed", None)
    return ctx.emit("multinomial", ctx.input(0), count=ctx.attr("sample_size", 1), dtype=dtype, seed=seed)
