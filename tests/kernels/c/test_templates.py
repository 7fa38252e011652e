"""Softmax, normalisation, pooling, attention and recurrent cells against the ops' references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS
from bessemer.kernels.base import TACTICS, Operand, Problem
from bessemer.targets.cpu import CpuTarget
from tests.kernels.c.harness import at_levels, supported
from tests.kernels.c.problems import Asked, anchors, check, with_epilogue
from tests.kernels.c.running import run_all

ARCHS = pytest.mark.parametrize("arch", supported())
NAMES = ("softmax", "layer_norm", "group_norm", "pool", "attention", "lstm", "gru")


def verify(cases: Iterable[Asked], arch: str, env: dict[str, int] | None = None, threads: int = 2) -> None:
    """Of cases of one op."""
    cases = list(cases)
    tactic = TACTICS.get(f"c_{cases[0].problem.op}")
    results = run_all(tactic, [(c.problem, c.arrays) for c in cases], arch, threads=threads, env=env)
    for case, found in zip(cases, results):
        assert len(found) == len(case.wanted)
        for got, wanted in zip(found, case.wanted):
            if wanted.dtype.kind == "f" and got.dtype == np.float16:
                got = got.astype(np.float32)
            check(got, wanted, case.tolerance, f"{case.label} on {arch}")


def applicable(name: str, arch: str, dtype: DType = dt.f32) -> list[Asked]:
    """The samples of an op that its kernel takes."""
    found = anchors(name, int(np.random.default_rng().integers(1 << 30)), dtype)
    return [a for a in found if TACTICS.get(f"c_{name}").applicable(a.problem, CpuTarget(arch, 2)) is None]


# Every op with every dtype; levels in turns, as conversions are the same functions in all kernels of one.
SAMPLES = [
    (name, dtype, supported()[(i + j) % len(supported())])
    for i, name in enumerate(NAMES)
    for j, dtype in enumerate((dt.f32, dt.f16, dt.bf16))
]


@pytest.mark.parametrize(("name", "dtype", "arch"), SAMPLES, ids=str)
def test_samples(name: str, dtype: DType, arch: str) -> None:
    found = applicable(name, arch, dtype)
    assert found or (name in ("lstm", "gru") and dtype != dt.f32)
    if found:
        verify(found, arch)


@pytest.mark.parametrize(("arch", "name"), at_levels(NAMES[:5]))
def test_epilogues(arch: str, name: str) -> None:
    verify([with_epilogue(a, 1) for a in applicable(name, arch)], arch)


def asked(op: str, arrays: list[np.ndarray], constant: tuple[int, ...] = (), **attrs: object) -> Asked:
    """An f32 problem on fresh arrays, answered by the op's reference."""
    operands = tuple(Operand(TensorType(dt.from_numpy(a.dtype), a.shape), k in constant) for k, a in enumerate(arrays))
    wanted = [np.asarray(a) for a in OPS.get(op).reference(arrays, attrs)]
    outs = tuple(TensorType(dt.f32, a.shape) for a in wanted)
    problem = Problem(op, operands, outs, tuple(sorted(attrs.items())), len(arrays), outs[0])  # type: ignore[arg-type]
    return Asked(op, problem, arrays, wanted, 1e-5)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng().standard_normal(shape).astype(np.float32)


@ARCHS
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 63, 64, 65, 130, 700, 5000])
def test_softmax_of_any_length(n: int, arch: str) -> None:
    x = 20 * normal(7, n)
    x[3, : n // 2] = -np.inf
    x[5, n // 2] = np.inf if n == 1 else np.nan
    with np.errstate(all="ignore"):
        verify([asked("softmax", [x], axis=1, log=log) for log in (False, True)], arch)


@ARCHS
def test_softmax_of_a_whole_axis_of_symbolic_size(arch: str) -> None:
    n = sym("n")
    for size in (1, 33):
        one = asked("softmax", [normal(3, size, 5)], axis=1, log=False)
        t = TensorType(dt.f32, (3, n, 5))
        problem = replace(one.problem, operands=(Operand(t),), outputs=(t,), result=t, ranges=(("n", Range(1, 99)),))
        verify([replace(one, problem=problem)], arch, {"n": size})


def attention_cases() -> Iterator[Asked]:
    plain = {"scale": 0.2, "causal": False, "has_mask": False, "layout": "BHSD"}
    for s, t, d, dv in ((1, 1, 1, 1), (1, 77, 64, 64), (5, 3, 33, 7), (50, 130, 40, 65), (3, 20, 16, 16)):
        q, k, v = normal(2, 4, s, d), normal(2, 4, t, d), normal(2, 4, t, dv)
        yield asked("attention", [q, k, v], **plain)
        yield asked("attention", [q, k[:, :2], v[:, :2]], **plain)
        yield asked("attention", [q, k, v], **{**plain, "causal": True})
        for shape in ((2, 4, s, t), (1, 1, 1, t), (s, t), (2, 1, s, 1)):
            yield asked("attention", [q, k, v, normal(*shape)], **{**plain, "has_mask": True})
        flip = [np.ascontiguousarray(a.transpose(0, 2, 1, 3)) for a in (q, k, v)]
        yield asked("attention", flip, **{**plain, "layout": "BSHD", "causal": True})
    hidden = np.full((3, 1, 1, 9), -np.inf, np.float32)
    hidden[1] = 0
    arrays = [normal(3, 2, 8, 16), normal(3, 2, 9, 16), normal(3, 2, 9, 16), hidden]
    yield asked("attention", arrays, **{**plain, "has_mask": True})


@ARCHS
def test_attention(arch: str) -> None:
    """All cases at the best ISA level, and every third at the others: of every size and of every kind."""
    cases, level = list(attention_cases()), supported().index(arch)
    verify(cases[level::3] if level else cases, arch)


@ARCHS
def test_attention_keeps_by_bool_masks(arch: str) -> None:
    q, k, v = normal(2, 3, 20, 16), normal(2, 3, 31, 16), normal(2, 3, 31, 16)
    keep = np.random.default_rng().random((2, 1, 20, 31)) < 0.5
    added = np.where(keep, np.float32(0), np.float32(-np.inf))
    attrs = {"scale": 0.25, "causal": False, "has_mask": True, "layout": "BHSD"}
    case = asked("attention", [q, k, v, added], **attrs)
    mask = Operand(TensorType(dt.bool_, keep.shape))
    problem = replace(case.problem, operands=(*case.problem.operands[:3], mask))
    verify([replace(case, problem=problem, arrays=[q, k, v, keep])], arch)


@ARCHS
def test_attention_of_symbolic_lengths(arch: str) -> None:
    s, t = sym("s"), sym("t")
    ranges = (("s", Range(1, 512, 64)), ("t", Range(1, 512, 64)))
    for queries, keys in ((1, 200), (90, 7)):
        case = asked("attention", [normal(1, 2, queries, 32), normal(1, 2, keys, 32), normal(1, 2, keys, 32)],
                     scale=0.1, causal=False, has_mask=False, layout="BHSD")  # fmt: skip
        shapes: list[tuple[Dim, ...]] = [(1, 2, s, 32), (1, 2, t, 32), (1, 2, t, 32)]
        out = TensorType(dt.f32, (1, 2, s, 32))
        operands = tuple(Operand(TensorType(dt.f32, shape)) for shape in shapes)
        problem = replace(case.problem, operands=operands, outputs=(out,), result=out, ranges=ranges)
        verify([replace(case, problem=problem)], arch, {"s": queries, "t": keys})


@ARCHS
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("sizes", [(1, 1, 3, 5), (7, 1, 40, 64), (3, 14, 9, 33), (20, 2, 70, 100)])
def test_recurrent_cells(cell: str, sizes: tuple[int, int, int, int], arch: str) -> None:
    steps, batch, inputs, hidden = sizes
    gates, cases = 4 if cell == "lstm" else 3, []
    for direction in ("forward", "reverse", "bidirectional"):
        dirs = 2 if direction == "bidirectional" else 1
        w = 0.3 * normal(dirs, gates * hidden, inputs)
        r = 0.3 * normal(dirs, gates * hidden, hidden)
        for bias, initial, linear in ((True, True, True), (False, False, False), (True, False, False)):
            arrays = [normal(steps, batch, inputs), w, r]
            arrays += [normal(dirs, 2 * gates * hidden)] if bias else []
            states = (1 + (cell == "lstm")) if initial else 0
            arrays += [normal(dirs, batch, hidden) for _ in range(states)]
            names = ("sigmoid", "tanh", "tanh") if cell == "lstm" else ("sigmoid", "tanh")
            attrs = {"cell": cell, "direction": direction, "hidden_size": hidden, "activations": names * dirs,
                     "linear_before_reset": linear, "has_bias": bias, "has_initial_h": initial,
                     "has_initial_c": initial and cell == "lstm"}  # fmt: skip
            cases.append(asked(cell, arrays, constant=(1, 2), **attrs))
    verify(cases, arch)


@ARCHS
@pytest.mark.parametrize("kind", ["max", "avg", "lp"])
def test_pools_over_edges(kind: str, arch: str) -> None:
    x = normal(2, 9, 11, 70)
    if kind == "max":
        x[0, 3, 3, 5] = np.nan
    cases = []
    for kernel, strides, dilations, pads, include in (
        ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1), True),
        ((2, 4), (1, 3), (2, 1), (0, 3, 1, 2), False),
        ((9, 11), (1, 1), (1, 1), (0,) * 4, False),
    ):
        spans = [x.shape[1 + k] + pads[k] + pads[2 + k] - (kernel[k] - 1) * dilations[k] - 1 for k in range(2)]
        out = tuple(span // stride + 1 for span, stride in zip(spans, strides))
        attrs = {"kind": kind, "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "out": out,
                 "layout": "NHWC", "count_include_pad": include, "p": 3 if kind == "lp" else 0}  # fmt: skip
        with np.errstate(all="ignore"):
            cases.append(asked("pool", [x], **attrs))
    verify(cases, arch)
