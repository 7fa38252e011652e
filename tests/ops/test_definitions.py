"""Every op of the registry: its samples infer, its reference keeps those types, its definition agrees with it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import substitute, sym, symbols
from bessemer.ir.fold import evaluate
from bessemer.ir.graph import TensorType
from bessemer.ir.opdef import OPS, InferContext, OpDef, Sample
from tests.ops.eval_compute import Evaluator

WITH_SAMPLES = [name for name in OPS if OPS.get(name).samples is not None]


def numbered(op: OpDef, seed: int) -> Iterator[tuple[str, Sample]]:
    assert op.samples is not None
    rng = np.random.default_rng([seed, zlib.crc32(op.name.encode())])
    for k, sample in enumerate(op.samples(rng)):
        yield f"{op.name} sample {k} {sample.note}", sample


def context(sample: Sample) -> InferContext:
    types = tuple(None if a is None else TensorType(dt.from_numpy(a.dtype), a.shape) for a in sample.inputs)
    fresh = iter(range(1000))
    return InferContext(types, sample.attrs, {}, sample.inputs, lambda hint, upper: sym(f"u{next(fresh)}_{hint}"))


@pytest.mark.parametrize("name", WITH_SAMPLES)
def test_reference_matches_inferred_types(name: str) -> None:
    op = OPS.get(name)
    for label, sample in numbered(op, 1):
        if op.random:
            continue
        ctx = context(sample)
        types = op.infer(ctx)
        results = evaluate(op, sample.inputs, ctx.types, sample.attrs, types)
        assert len(results) == len(types), label
        env: dict[str, int] = {}
        for result, type_ in zip(results, types):
            assert result.dtype == type_.dtype.numpy, label
            assert result.ndim == type_.rank, label
            for size, dim in zip(result.shape, type_.shape):
                if symbols(dim) <= set(env):
                    assert substitute(dim, env) == size, f"{label}: {result.shape} is not {type_}"
                elif str(dim) in symbols(dim):  # a data-dependent size, bound where it is first seen
                    env[str(dim)] = size


@pytest.mark.parametrize("name", [n for n in WITH_SAMPLES if OPS.get(n).compute is not None])
def test_definition_matches_reference(name: str) -> None:
    op = OPS.get(name)
    assert op.compute is not None
    for label, sample in numbered(op, 2):
        ctx = context(sample)
        (type_,) = op.infer(ctx)
        (expected,) = evaluate(op, sample.inputs, ctx.types, sample.attrs, (type_,))
        definition = op.compute(ctx)
        assert (definition.shape, definition.dtype) == (type_.shape, type_.dtype), label
        got = Evaluator(sample.inputs).run(definition)
        if type_.dtype == dt.bf16:
            expected = dt.from_bf16(expected)
        check(got, expected, sample.tolerance, label)


def check(got: np.ndarray, expected: np.ndarray, tolerance: float, label: str) -> None:
    assert got.shape == expected.shape, label
    if expected.dtype.kind not in "fc":
        np.testing.assert_array_equal(got, expected, err_msg=label)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0, got), np.where(finite, 0, expected), err_msg=label)
    scale = max(tolerance, {"float16": 2e-3, "float64": 1e-9}.get(expected.dtype.name, 1e-5))
    wanted = expected[finite].astype(np.float64)
    error = np.linalg.norm(got[finite].astype(np.float64) - wanted)
    assert error <= scale * (np.linalg.norm(wanted) + 1e-6), f"{label}: error {error}"


@pytest.mark.parametrize("name", [n for n in OPS if OPS.get(n).compute is not None])
def test_ops_with_definitions_have_samples(name: str) -> None:
    assert OPS.get(name).samples is not None
