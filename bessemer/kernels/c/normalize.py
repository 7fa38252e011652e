"""Layer, RMS and group normalisation, written as expressions: statistics from centred values, kept in float."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.c import cost, scalar
from bessemer.kernels.c.group import as_group, group_code

Axes = tuple[tuple[str, Dim], ...]


def _mean(value: ex.Expr, axes: Axes, acc: DType) -> ex.Expr:
    count = ex.cast(ex.idx(product(size for _, size in axes)), acc)
    return ex.call("div", ex.Reduce("sum", axes, value, acc), count)


def _inverse(square: ex.Expr, axes: Axes, epsilon: float, acc: DType) -> ex.Expr:
    """1 / sqrt(mean of squares + epsilon)."""
    return ex.call("rsqrt", ex.call("add", _mean(square, axes, acc), ex.lit(epsilon, acc)))


def _square(x: ex.Expr) -> ex.Expr:
    return ex.call("mul", x, x)


class LayerNorm:
    """layer_norm (modes "layer" and "rms") over the trailing axes, with or without scale and bias."""

    name = "c_layer_norm"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("layer_norm",), into=1)
        if other is not None:
            return other
        unknown = scalar.supported(problem)
        return Reason(unknown) if unknown else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        return cost.elementwise_us(problem, target, 8.0)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return group_code(as_group(problem, _layer(problem)), target)


def _layer(problem: Problem) -> ex.Expr:
    x, axis = problem.operands[0].type, int(problem.attr("axis"))
    acc, epsilon = dt.accumulator(x.dtype), float(problem.attr("epsilon"))
    axes = ex.out_axes(x.rank)

    def loops(name: str) -> Axes:
        return tuple((f"{name}{k}", size) for k, size in enumerate(x.shape[axis:]))

    def at(name: str) -> ex.Expr:
        inner = tuple(ex.Axis(n) for n, _ in loops(name)) if name else axes[axis:]
        return ex.cast(ex.load(0, (*axes[:axis], *inner), x.dtype), acc)

    def parameter(number: int) -> ex.Expr:
        t = problem.operands[number].type
        return ex.cast(ex.load(number, ex.broadcast_index(t.shape, axes), t.dtype), acc)

    if problem.attr("mode") == "rms":
        out = ex.call("mul", at(""), _inverse(_square(at("s")), loops("s"), epsilon, acc))
    else:
        mean = _mean(at("m"), loops("m"), acc)
        inverse = _inverse(_square(ex.call("sub", at("s"), mean)), loops("s"), epsilon, acc)
        out = ex.call("mul", ex.call("sub", at(""), mean), inverse)
    scale = bool(problem.attr("has_scale"))
    if scale:
        out = ex.call("mul", out, parameter(1))
    if problem.attr("has_bias"):
        out = ex.call("add", out, parameter(1 + scale))
    return ex.cast(out, (problem.result or problem.outputs[0]).dtype)


class GroupNorm:
    """group_norm of either layout; with as many groups as channels it is instance normalisation."""

    name = "c_group_norm"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("group_norm",), into=1)
        if other is not None:
            return other
        unknown = scalar.supported(problem)
        return Reason(unknown) if unknown else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        return cost.elementwise_us(problem, target, 10.0, launches=3)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return group_code(as_group(problem, _group(problem)), target)


def _group(problem: Problem) -> ex.Expr:
    x, last = problem.operands[0].type, problem.attr("layout") == "NHWC"
    acc, epsilon = dt.accumulator(x.dtype), float(problem.attr("epsilon"))
    axes = ex.out_axes(x.rank)
    at = x.rank - 1 if last else 1
    each = x.shape[at] // int(problem.attr("groups"))
    first = ex.call("mul", ex.call("floordiv", axes[at], ex.idx(each)), ex.idx(each))

    def loops(name: str) -> Axes:
        sizes = (*x.shape[1:at], each, *x.shape[at + 1 :])
        return tuple((f"{name}{k}", size) for k, size in enumerate(sizes, 1))

    def read(index: Sequence[ex.Expr]) -> ex.Expr:
        return ex.cast(ex.load(0, tuple(index), x.dtype), acc)

    def inside(name: str) -> ex.Expr:
        index: list[ex.Expr] = [axes[0], *(ex.Axis(n) for n, _ in loops(name))]
        index[at] = ex.call("add", first, index[at])
        return read(index)

    mean = _mean(inside("m"), loops("m"), acc)
    inverse = _inverse(_square(ex.call("sub", inside("s"), mean)), loops("s"), epsilon, acc)
    scale, bias = (ex.cast(ex.load(k, (axes[at],), problem.operands[k].type.dtype), acc) for k in (1, 2))
    out = ex.call("add", ex.call("mul", ex.call("mul", ex.call("sub", read(axes), mean), inverse), scale), bias)
    return ex.cast(out, (problem.result or problem.outputs[0]).dtype)


register(LayerNorm())
register(GroupNorm())
