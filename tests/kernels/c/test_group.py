"""Compute groups: every op's definition, and the loops that only fused or odd ones need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, evaluate, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import exprtree, scalar
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS
from bessemer.kernels.base import Operand, Problem
from bessemer.kernels.c.group import Group
from bessemer.targets.cpu import CpuTarget
from tests.kernels.c.harness import supported
from tests.kernels.c.problems import check, groups
from tests.kernels.c.running import run, run_all

ARCHS = pytest.mark.parametrize("arch", supported())
DEFINED = [n for n in OPS if OPS.get(n).compute is not None and OPS.get(n).samples is not None]


@pytest.mark.parametrize("name", DEFINED)
def test_samples_of_every_op(name: str) -> None:
    arch = supported()[0]
    asked = list(groups(name, np.random.default_rng().integers(1 << 30)))
    asked = [a for a in asked if Group().applicable(a.problem, CpuTarget(arch, 2)) is None]
    for a, (got,) in zip(asked, run_all(Group(), [(a.problem, a.arrays) for a in asked], arch)):
        check(got, a.wanted[0], a.tolerance, a.label)


def group(
    shapes: Sequence[tuple[Dim, ...]], out: tuple[Dim, ...], e: ex.Expr, dtype: DType = dt.f32,
    env: dict[str, int] | None = None,
) -> Problem:  # fmt: skip
    ranges = tuple((name, Range(0, 1 << 20, value)) for name, value in (env or {}).items())
    operands = tuple(Operand(TensorType(dtype, s)) for s in shapes)
    return Problem("group", operands, (TensorType(e.dtype, out),), body=ex.ComputeDef(out, e.dtype, e), ranges=ranges)


def agree(
    problem: Problem, arch: str, env: dict[str, int] | None = None, tolerance: float = 1e-6, mean: float = 0.0
) -> None:
    """The kernel gives what the numpy oracle gives, with one thread and with two; `mean` is that of the inputs."""
    rng, env = np.random.default_rng(), env or {}
    arrays = []
    for o in problem.operands:
        shape = tuple(evaluate(d, env) for d in o.type.shape)
        values = rng.normal(mean, size=shape) if o.type.dtype.is_float else rng.integers(0, 99, shape)
        arrays.append(np.asarray(values, o.type.dtype.numpy))
    assert problem.body is not None
    out = problem.outputs[0]
    shape = tuple(evaluate(d, env) for d in out.shape)
    wanted = scalar.evaluate(problem.body.expr, shape, out.dtype, arrays, env).reshape(shape)
    for threads in (1, 2):
        (got,) = run(Group(), problem, arrays, arch, threads=threads, env=env)
        check(got, wanted, tolerance, f"{arch}, {threads} threads")


def axes(rank: int) -> tuple[ex.Axis, ...]:
    return ex.out_axes(rank)


def load(operand: int, *index: ex.Expr, dtype: DType = dt.f32) -> ex.Expr:
    return ex.load(operand, index, dtype)


def total(body: ex.Expr, *sizes: tuple[str, Dim], kind: str = "sum", acc: DType = dt.f32) -> ex.Expr:
    return ex.Reduce(kind, sizes, body, acc)


@ARCHS
@pytest.mark.parametrize("shape", [(37, 53), (1, 700), (700, 1), (3, 20000), (20000, 3), (0, 5), (5, 0)])
def test_broadcast_sum(shape: tuple[int, int], arch: str) -> None:
    i, j = axes(2)
    e = ex.call("add", ex.call("add", load(0, i, j), load(1, j)), load(2, i, ex.idx(0)))
    agree(group([shape, shape[1:], (shape[0], 1)], shape, e), arch)


# ISA levels in turns, so that each level has all sizes and all dtypes.
TRANSPOSES = [
    (size, dtype, supported()[(i + j) % len(supported())])
    for i, size in enumerate([(5, 7), (64, 96), (129, 67), (3, 1000)])
    for j, dtype in enumerate([dt.f32, dt.i64, dt.u8, dt.f16])
]


@pytest.mark.parametrize(("size", "dtype", "arch"), TRANSPOSES, ids=str)
def test_transposes_of_any_element_size(size: tuple[int, int], dtype: DType, arch: str) -> None:
    i, j, k = axes(3)
    e = load(0, i, k, j, dtype=dtype)
    agree(group([(2, *size)], (2, size[1], size[0]), e, dtype), arch)


@ARCHS
def test_transposed_and_plain_operands_together(arch: str) -> None:
    i, j = axes(2)
    e = ex.call("mul", ex.call("add", load(0, j, i), load(1, i, j)), load(2, i))
    agree(group([(70, 45), (45, 70), (45,)], (45, 70), e), arch)


@ARCHS
def test_conditions_split_loops(arch: str) -> None:
    """Concat and pad along the last and another axis, with computed bounds."""
    i, j = axes(2)
    inside = ex.call("and", ex.call("ge", j, ex.idx(5)), ex.call("lt", j, ex.idx(40)))
    inside = ex.call("and", inside, ex.call("gt", i, ex.idx(2)))
    shifted = load(0, ex.call("sub", i, ex.idx(3)), ex.call("sub", j, ex.idx(5)))
    padded = ex.Select(inside, shifted, ex.lit(-1.0, dt.f32))
    agree(group([(9, 35)], (12, 47), padded), arch)
    rest = load(2, ex.call("sub", j, ex.idx(31)))
    joined = ex.Select(
        ex.call("lt", j, ex.idx(20)), load(0, i, j),
        ex.Select(ex.call("le", j, ex.idx(30)), load(1, i, ex.call("sub", j, ex.idx(20))), rest),
    )  # fmt: skip
    agree(group([(6, 20), (6, 11), (9,)], (6, 40), joined), arch)
    lower = ex.Select(ex.call("ge", i, j), load(0, i, j), ex.lit(0.0, dt.f32))
    agree(group([(33, 50)], (33, 50), lower), arch)
    flipped = ex.Select(
        ex.call("gt", ex.call("sub", ex.idx(7), j), i), load(0, i, j), ex.call("neg", load(0, i, j))
    )
    agree(group([(12, 50)], (12, 50), flipped), arch)


@ARCHS
def test_guards_keep_invariant_loads_inside(arch: str) -> None:
    i, j = axes(2)
    guarded = ex.Select(ex.call("lt", i, ex.idx(4)), load(0, i), ex.lit(2.0, dt.f32))
    agree(group([(4,), (9, 33)], (9, 33), ex.call("mul", guarded, load(1, i, j))), arch)


REDUCED = [
    ((37, 53), (1,)), ((37, 53), (0,)), ((5, 6, 7), (1,)), ((5, 6, 7), (0, 2)), ((3, 4, 1000), (2,)),
    ((2, 1000, 70), (1,)), ((4, 3), (1,)), ((2000, 3), (0,)), ((1, 1), (0, 1)), ((64, 49, 300), (1,)), ((3, 0), (1,)),
]  # fmt: skip


# ISA levels in turns, so that each level has all kinds and all shapes. (Numpy has no maximum of nothing.)
REDUCTIONS = [
    (shape, over, kind, supported()[(i + j) % len(supported())])
    for i, (shape, over) in enumerate(REDUCED)
    for j, kind in enumerate(["sum", "max", "min", "prod"])
    if 0 not in shape or kind in ("sum", "prod")
]


@pytest.mark.parametrize(("shape", "over", "kind", "arch"), REDUCTIONS, ids=str)
def test_reductions(shape: tuple[int, ...], over: tuple[int, ...], kind: str, arch: str) -> None:
    kept = [k for k in range(len(shape)) if k not in over]
    index: list[ex.Expr] = [ex.Axis(f"r{k}") for k in range(len(shape))]
    for n, k in enumerate(kept):
        index[k] = ex.Axis(f"i{n}")
    body = load(0, *index)
    if kind == "prod":
        body = ex.call("add", ex.call("mul", body, ex.lit(0.01, dt.f32)), ex.lit(1.0, dt.f32))
    e = total(body, *((f"r{k}", shape[k]) for k in over), kind=kind)
    problem = group([shape], tuple(shape[k] for k in kept), ex.call("add", e, ex.lit(1.0, dt.f32)))
    agree(problem, arch, tolerance=2e-6, mean=1.0 if kind == "sum" else 0.0)  # sums around 0 have any relative error


@ARCHS
@pytest.mark.parametrize("kind", ["argmax", "argmin", "argmax_last", "argmin_last"])
@pytest.mark.parametrize("axis", [0, 1])
def test_arguments_with_ties_and_nans(kind: str, axis: int, arch: str) -> None:
    rng, shape = np.random.default_rng(), (61, 83)
    kept = shape[1 - axis]
    index = (ex.Axis("r"), ex.Axis("i0")) if axis == 0 else (ex.Axis("i0"), ex.Axis("r"))
    problem = group([shape], (kept,), ex.Reduce(kind, (("r", shape[axis]),), load(0, *index), dt.f32))
    values = rng.integers(0, 4, shape).astype(np.float32)
    values[rng.random(shape) < 0.01] = np.nan
    values[:, 5] = -np.inf if kind.startswith("argmax") else np.inf
    assert problem.body is not None
    wanted = scalar.evaluate(problem.body.expr, (kept,), dt.i64, [values], {})
    (got,) = run(Group(), problem, [values], arch)
    np.testing.assert_array_equal(got, wanted)


@ARCHS
def test_maximum_of_nan_is_nan(arch: str) -> None:
    values = np.random.default_rng().standard_normal((40, 77)).astype(np.float32)
    values[3, 70] = values[11, 0] = np.nan
    for index, kept in (((ex.Axis("i0"), ex.Axis("r")), 40), ((ex.Axis("r"), ex.Axis("i0")), 77)):
        size = 117 - kept
        problem = group([(40, 77)], (kept,), total(load(0, *index), ("r", size), kind="max"))
        (got,) = run(Group(), problem, [values], arch)
        np.testing.assert_array_equal(got, values.max(axis=1 if kept == 40 else 0))


@ARCHS
def test_sums_of_integers_and_bools(arch: str) -> None:
    i = ex.Axis("i0")
    agree(group([(9, 300)], (9,), total(load(0, i, ex.Axis("r"), dtype=dt.i64), ("r", 300), acc=dt.i64), dt.i64), arch)
    positive = ex.call("gt", load(0, i, ex.Axis("r")), ex.lit(2.5, dt.f32))
    for kind in ("any", "all"):
        agree(group([(90, 130)], (90,), total(positive, ("r", 130), kind=kind, acc=dt.bool_)), arch)
        down = exprtree.substitute_axes(positive, {"i0": ex.Axis("r"), "r": i})
        agree(group([(130, 90)], (90,), total(down, ("r", 130), kind=kind, acc=dt.bool_)), arch)


def softmax(axis: int, shape: tuple[Dim, ...]) -> ex.Expr:
    def at(name: str) -> ex.Expr:
        return load(0, *(ex.Axis(name) if k == axis else ex.Axis(f"i{k}") for k in range(len(shape))))

    top = total(at("m"), ("m", shape[axis]), kind="max")
    sums = total(ex.call("exp", ex.call("sub", at("s"), top)), ("s", shape[axis]))
    return ex.call("div", ex.call("exp", ex.call("sub", at(f"i{axis}"), top)), sums)


@ARCHS
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_reductions_inside_scalar_code(axis: int, arch: str) -> None:
    shape = (6, 17, 70)
    agree(group([shape], shape, softmax(axis, shape)), arch)


@ARCHS
def test_nested_reductions_of_other_coordinates(arch: str) -> None:
    """sum_j (x[i, j] - mean over i of x[i, j])^2, and a total over everything beside it."""
    i = ex.Axis("i0")
    mean = ex.call("mul", total(load(0, ex.Axis("m"), ex.Axis("r")), ("m", 40)), ex.lit(1 / 40, dt.f32))
    centred = ex.call("sub", load(0, i, ex.Axis("r")), mean)
    e = total(ex.call("mul", centred, centred), ("r", 60))
    everything = total(load(0, ex.Axis("a"), ex.Axis("b")), ("a", 40), ("b", 60))
    agree(group([(40, 60)], (40,), ex.call("add", e, everything)), arch, tolerance=1e-5)


@ARCHS
def test_products_as_groups(arch: str) -> None:
    i, j, r = ex.Axis("i0"), ex.Axis("i1"), ex.Axis("r")
    for b in ((j, r), (r, j)):
        shapes = [(30, 50), (41, 50) if b[0] is j else (50, 41)]
        agree(group(shapes, (30, 41), total(ex.call("mul", load(0, i, r), load(1, *b)), ("r", 50))), arch)


@ARCHS
@pytest.mark.parametrize("size", [1, 7, 300])
def test_sizes_known_at_run_time(size: int, arch: str) -> None:
    n, env = sym("n"), {"n": 64}
    i, j = axes(2)
    shape: tuple[Dim, ...] = (n, n * 3)
    e = ex.call("add", load(0, i, j), load(1, j, i))
    agree(group([shape, (n * 3, n)], shape, e, env=env), arch, {"n": size})
    agree(group([shape], shape, softmax(1, shape), env=env), arch, {"n": size})
    agree(group([shape], shape, softmax(0, shape), env=env), arch, {"n": size})
    tail = ex.Select(ex.call("lt", j, ex.idx(n)), load(0, i, j), load(1, i, ex.call("sub", j, ex.idx(n))))
    agree(group([(n, n), (n, n * 2)], shape, tail, env=env), arch, {"n": size})


@ARCHS
def test_gathers_hoist_their_rows(arch: str) -> None:
    rng = np.random.default_rng()
    i, j = axes(2)
    table, rows = TensorType(dt.f32, (50, 33)), TensorType(dt.i64, (70,))
    e = load(0, load(1, i, dtype=dt.i64), j)
    problem = Problem("group", (Operand(table), Operand(rows)), (TensorType(dt.f32, (70, 33)),),
                      body=ex.ComputeDef((70, 33), dt.f32, e))  # fmt: skip
    arrays = [rng.standard_normal((50, 33)).astype(np.float32), rng.integers(0, 50, 70)]
    (got,) = run(Group(), problem, arrays, arch)
    np.testing.assert_array_equal(got, arrays[0][arrays[1]])


def test_equal_groups_of_other_sizes_share_their_text() -> None:
    i, j = axes(2)
    e = ex.call("add", load(0, i, j), load(1, j))
    target = CpuTarget("avx2", 2)
    texts = {Group().emit(group([s, s[1:]], s, e), target, {}).text for s in ((40, 64), (8, 960), (33, 65))}
    assert len(texts) == 1


def test_what_c_does_not_have_is_refused_with_a_reason() -> None:
    target = CpuTarget("scalar", 1)
    i = ex.Axis("i0")
    problem = group([(4,)], (4,), ex.Call("bitnot", (load(0, i),), dt.f32))
    reason = Group().applicable(problem, target)
    assert reason is not None and reason.text == "bitnot is not a function of f32"
    complex_ = Problem("group", (Operand(TensorType(dt.c64, (4,))),), (TensorType(dt.f32, (4,)),), body=problem.body)
    reason = Group().applicable(complex_, target)
    assert reason is not None and "c64" in reason.text
    other = Group().applicable(Problem("matmul", (), ()), target)
    assert other is not None and "matmul" in other.text
