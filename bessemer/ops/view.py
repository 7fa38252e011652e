"""Ops that only rename bytes (reshape), and known integers (dims)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate, floordiv, product
from bessemer.core.interval import bounds, compare
from bessemer.ir import expr as ex
from bessemer.ir.graph import Attr, TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register

MAX_RANK = 32  # of a shape that is known at run time only


def _reshape_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, shape = ctx.type(0), tuple(ctx.attr("shape"))
    equal, _ = compare(x.numel, product(shape), ctx.ranges)
    if equal is False:
        raise ValueError(f"cannot reshape {x} to [{', '.join(str(d) for d in shape)}]: element counts differ")
    return (TensorType(x.dtype, shape),)


def _reshape_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    shape: tuple[int, ...] = tuple(attrs["shape"])  # type: ignore[arg-type]
    return (x.reshape(shape),)


def _reshape_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    return (Sample((x,), {"shape": (6, 4)}), Sample((x,), {"shape": (24,)}), Sample((x[:1, :1, :1],), {"shape": ()}))


def _reshape_taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    yield ctx.type(0).numel, product(ctx.attr("shape"))


register(
    OpDef(
        "reshape", _reshape_infer, _reshape_reference, Fusion.VIEW, samples=_reshape_samples, symbolic=True,
        taken=_reshape_taken,
    )
)  # fmt: skip


def _dims_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    return (TensorType(ctx.attr("dtype"), tuple(ctx.attr("shape"))),)


def _dims_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]) -> tuple[np.ndarray, ...]:
    dtype, values, shape = attrs["dtype"], attrs["values"], attrs["shape"]
    assert isinstance(dtype, dt.DType) and isinstance(values, tuple) and isinstance(shape, tuple)
    return (np.array(values, dtype.numpy).reshape(shape),)  # type: ignore[arg-type]


def _dims_compute(ctx: InferContext) -> ex.ComputeDef:
    shape, values, dtype = ctx.attr("shape"), ctx.attr("values"), ctx.attr("dtype")
    axes = ex.out_axes(len(shape))
    flat: ex.Expr = ex.lit(0, dt.i64)
    for size, axis in zip(shape, axes):
        flat = ex.call("add", ex.call("mul", flat, ex.idx(size)), axis)
    out: ex.Expr = ex.idx(values[-1])
    for k in range(len(values) - 2, -1, -1):
        out = ex.Select(ex.call("eq", flat, ex.lit(k, dt.i64)), ex.idx(values[k]), out)
    return ex.ComputeDef(shape, dtype, ex.cast(out, dtype))


def _dims_samples(rng: np.random.Generator) -> Sequence[Sample]:
    values = tuple(int(v) for v in rng.integers(-9, 99, 6))
    return (
        Sample((), {"values": values, "shape": (2, 3), "dtype": dt.i64}),
        Sample((), {"values": values[:1], "shape": (), "dtype": dt.i32}),
    )


register(OpDef("dims", _dims_infer, _dims_reference, Fusion.INJECTIVE, compute=_dims_compute, samples=_dims_samples))


def resolve_reshape(shape: tuple[Dim, ...], wanted: Sequence[Dim], allow_zero: bool) -> tuple[Dim, ...]:
    """ONNX Reshape's target with 0 (copy) and -1 (infer) resolved; ValueError where that is impossible."""
    out: list[Dim] = [shape[k] if d == 0 and not allow_zero else d for k, d in enumerate(wanted)]
    if -1 in out:
        k = out.index(-1)
        rest = product(d for j, d in enumerate(out) if j != k)
        out[k] = floordiv(product(shape), rest) if rest != 0 else 0
    return tuple(out)


@onnx_op("Reshape", since=(5, 13, 14, 19, 21, 23, 24, 25))
def _reshape(ctx: ImportContext) -> Values:
    x, wanted = ctx.input(0), ctx.dims(ctx.input(1))
    allow_zero = bool(ctx.attr("allowzero", 0))
    if wanted is None:
        return ctx.emit("reshape_dynamic", x, ctx.input(1), allow_zero=allow_zero)
    return ctx.emit("reshape", x, shape=resolve_reshape(ctx.shape(x), wanted, allow_zero))


@onnx_op("Flatten", since=(1, 9, 11, 13, 21, 23, 24, 25))
def _flatten(ctx: ImportContext) -> Values:
    x = ctx.input(0)
    shape = ctx.shape(x)
    axis = ctx.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return ctx.emit("reshape", x, shape=(product(shape[:axis]), product(shape[axis:])))


@onnx_op("Shape", since=(1, 13, 15, 19, 21, 23, 24, 25))
def _shape(ctx: ImportContext) -> Values:
    shape = ctx.shape(ctx.input(0))
    picked = shape[slice(ctx.attr("start", 0), ctx.attr("end", None))]
    return ctx.builder.dims_value(np.array(picked, dtype=object).reshape(len(picked)), name=ctx.output_names[0])


@onnx_op("Size", since=(1, 13, 19, 21, 23, 24, 25))
def _size(ctx: ImportContext) -> Values:
    value = np.empty((), dtype=object)
    value[()] = product(ctx.shape(ctx.input(0)))
    return ctx.builder.dims_value(value, name=ctx.output_names[0])


def _reshape_dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, target = ctx.type(0), ctx.type(1)
    if target.rank != 1 or not isinstance(target.shape[0], int):
        raise ValueError(f"the target shape must be a vector of known length, not {target}")
    if target.shape[0] > MAX_RANK:
        raise ValueError(f"a target shape of {target.shape[0]} dimensions")
    assert ctx.fresh is not None
    upper = x.numel if bounds(x.numel, ctx.ranges)[0] > 0 else None  # an empty tensor has axes of any size
    return (TensorType(x.dtype, tuple(ctx.fresh("reshape", upper) for _ in range(target.shape[0]))),)


def _reshape_dynamic_reference(
    inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Attr]
) -> tuple[np.ndarray, ...]:
    x, target = inputs
    assert x is not None and target is not None
    wanted: list[Dim] = [int(d) for d in target]
    shape = resolve_reshape(x.shape, wanted, bool(attrs["allow_zero"]))
    return (x.reshape([evaluate(d, {}) for d in shape]),)


register(OpDef("reshape_dynamic", _reshape_dynamic_infer, _reshape_dynamic_reference, Fusion.HOST))
