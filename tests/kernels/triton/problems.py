"""Problems with their operands and float64 results, for the tests of the template kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Into, Operand, Problem, Tactic
from bessemer.targets.cuda import ARCHS, CudaTarget, Request
from tests.kernels.triton.harness import interpret

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng()
H200 = CudaTarget("sm_90", ARCHS["sm_90"])
# of the norm: f16 and bf16 results carry their own rounding
TOLERANCE = {"f32": 2e-6, "f16": 6e-4, "bf16": 6e-3}


@dataclass(frozen=True)
class Case:
    """A problem, its operands (float32, already rounded to their dtype) and its exact results."""

    problem: Problem
    operands: tuple[Array, ...]
    want: tuple[Array, ...]


def rounded(values: Array, dtype: DType) -> Array:
    """Float32 values that `dtype` can hold."""
    if dtype == dt.bf16:
        return dt.from_bf16(dt.to_bf16(values))
    return values.astype(dtype.numpy).astype(np.float32)


def normal(shape: Sequence[int], dtype: DType = dt.f32) -> Array:
    """Standard normal values that `dtype` can hold."""
    return rounded(RNG.standard_normal(shape).astype(np.float32), dtype)


def case(
    op: str, arrays: Sequence[Array], want: Sequence[Array], dtype: DType, attrs: dict[str, Any],
    constants: Iterable[int] = (), dtypes: dict[int, DType] | None = None,
) -> Case:  # fmt: skip
    """A case of one dtype throughout, but for the operands in `dtypes`."""
    kinds = [(dtypes or {}).get(k, dtype) for k in range(len(arrays))]
    fixed = set(constants)
    operands = tuple(Operand(TensorType(d, a.shape), k in fixed) for k, (a, d) in enumerate(zip(arrays, kinds)))
    outputs = tuple(TensorType(dtype, w.shape) for w in want)
    problem = Problem(op, operands, outputs, tuple(sorted(attrs.items())), len(arrays), outputs[0])
    return Case(problem, tuple(arrays), tuple(want))


def symbolic(c: Case, shapes: dict[int, tuple[Dim, ...]], out: tuple[Dim, ...], ranges: dict[str, Range]) -> Case:
    """The case with symbolic operand and output shapes."""
    operands = tuple(
        Operand(TensorType(o.type.dtype, shapes.get(k, o.type.shape)), o.constant)
        for k, o in enumerate(c.problem.operands)
    )
    result = TensorType(c.problem.outputs[0].dtype, out)
    problem = replace(
        c.problem, operands=operands, outputs=(result,), result=result, ranges=tuple(sorted(ranges.items()))
    )
    return replace(c, problem=problem)


def with_bias_relu(c: Case, axis: int) -> Case:
    """The case followed by + bias along `axis` of the output, a residual of the output's shape, and a relu."""
    out = c.problem.outputs[0]
    rank = out.rank
    size = out.shape[axis]
    assert isinstance(size, int)
    bias = rounded(normal((size,)) + 2, out.dtype)  # a relu of small outputs leaves something
    residual = normal(c.want[0].shape, out.dtype)
    n = len(c.operands)
    axes = ex.out_axes(rank)
    total = ex.call("add", ex.Acc(out.dtype), ex.load(n, (axes[axis % rank],), out.dtype))
    total = ex.call("add", total, ex.load(n + 1, axes, out.dtype))
    epilogue = ex.call("max", total, ex.lit(0.0, out.dtype))
    extra = (Operand(TensorType(out.dtype, (size,)), True), Operand(out))
    problem = replace(c.problem, operands=(*c.problem.operands, *extra), epilogue=epilogue)
    shape = [1] * rank
    shape[axis] = size
    want = np.maximum(c.want[0] + bias.reshape(shape).astype(np.float64) + residual, 0)
    return Case(problem, (*c.operands, bias, residual), (want,))


def check(tactic: Tactic, c: Case, config: Config | None = None, env: dict[str, int] | None = None) -> None:
    """Run the kernel (its default configuration unless one is given) in the interpreter, against float64."""
    reason = tactic.applicable(c.problem, H200)
    assert reason is None, reason
    chosen = tactic.configs(c.problem, H200)[0] if config is None else config
    got = interpret(c.problem, tactic.emit(c.problem, H200, chosen), c.operands, env)
    shapes = [tuple(evaluate(d, env or {}) for d in out.shape) for out in c.problem.outputs]
    assert [v.shape for v in got] == shapes == [w.shape for w in c.want]
    assert_right(c, got, f"{dict(chosen)} for {c.problem.key}")


def in_columns(c: Case, before: int, after: int) -> Case:
    """The case written into a wider tensor, between so many columns of others."""
    columns = c.problem.outputs[0].shape[-1]
    assert isinstance(columns, int)
    return replace(c, problem=replace(c.problem, into=Into(before, before + columns + after)))


def assert_right(c: Case, got: Sequence[Array], what: str = "", tolerance: float | None = None) -> None:
    """The outputs' relative errors of the norm are within `tolerance`, or what their dtypes allow."""
    for values, want, out in zip(got, c.want, c.problem.outputs, strict=True):
        error = float(np.linalg.norm((values - want).ravel())) / max(1e-30, float(np.linalg.norm(want.ravel())))
        assert error < (tolerance or TOLERANCE[out.dtype.name]), f"{what}: relative error {error:.1e}"


def compiles(tactic: Tactic, problems: Sequence[Problem], pick: Callable[[Sequence[Config]], Sequence[Config]]) -> None:
    """The picked configurations compile for every architecture, within its shared memory."""
    for arch in ARCHS:
        target = CudaTarget(arch, ARCHS[arch])
        requests = []
        for problem in problems:
            refused = tactic.applicable(problem, target)
            assert refused is None or arch in refused.text, refused
            if refused is not None:
                continue
            for config in pick(tactic.configs(problem, target)):
                code = tactic.emit(problem, target, config)
                requests += [Request(problem, code, launch) for launch in code.launches]
        failed = [f"{r.label}: {k}" for r, k in zip(requests, target.compile(requests)) if isinstance(k, str)]
        assert not failed, f"{arch}: {failed}"


def first(configs: Sequence[Config]) -> Sequence[Config]:
    """The default configuration."""
    return configs[:1]


def reason(tactic: Tactic, problem: Problem) -> str:
    """Why the tactic does not apply; "" where it does."""
    found = tactic.applicable(problem, H200)
    return "" if found is None else found.text


def matmul(
    a: Sequence[int], b: Sequence[int], dtype: DType = dt.f32, ta: bool = False, tb: bool = False, constant: bool = True
) -> Case:
    """a [..., M, K] x b [..., K, N], stored swapped where `ta`, `tb`."""
    x, y = normal(a, dtype), normal(b, dtype)
    want = np.matmul(x.astype(np.float64), y.astype(np.float64))
    stored = (np.swapaxes(x, -1, -2) if ta else x, np.swapaxes(y, -1, -2) if tb else y)
    arrays = [np.ascontiguousarray(s) for s in stored]
    return case("matmul", arrays, [want], dtype, {"transpose_a": ta, "transpose_b": tb}, (1,) if constant else ())
