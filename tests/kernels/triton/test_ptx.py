"""Scalar functions as GPUs compute them: the PTX of each, on whole ranges, against the oracle in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import scalar as oracle
from bessemer.kernels.triton.group_kernel import flat
from tests.kernels.triton.cases import ulps
from tests.kernels.triton.ptx import ptx_of, run
from tests.kernels.triton.test_emit_scalar import LIMITS, SPECIAL, call

pytestmark = pytest.mark.triton

Array = np.ndarray[Any, Any]
COUNT = 1 << 18


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def worst(fn: str, dtype: DType, operands: list[Array], folder: Path) -> None:
    """Assert that the PTX of `fn` is within the limit on all of `operands`."""
    problem = call(fn, dtype, len(operands))
    text = ptx_of(problem, flat(problem, 32, 1), "sm_90", folder)
    assert problem.body is not None
    with np.errstate(all="ignore"):
        got = run(text, operands).view(dtype.numpy)
        want = oracle.evaluate(problem.body.expr, operands[0].shape, dt.f64, operands, {})
        off = ulps(got, want, dtype)
    k = int(off.argmax())
    assert off[k] <= LIMITS[dtype], f"{fn}({[o[k] for o in operands]}) is {got[k]}, not {want[k]}: {off[k]} ulp"


def spread(low: float, high: float, dtype: DType) -> Array:
    """Values of all magnitudes within [low, high], and the special ones."""
    rng = np.random.default_rng(11)
    ends = np.array([low, high])
    small = rng.choice(ends[ends != 0], COUNT) * np.exp2(-rng.uniform(0, 40, COUNT))
    return np.concatenate([rng.uniform(low, high, COUNT), small, SPECIAL]).astype(dtype.numpy)


@pytest.mark.parametrize(
    ("fn", "low", "high"),
    [("exp", -110, 95), ("expm1", -110, 95), ("sigmoid", -110, 95), ("tanh", -30, 30), ("atan", -1e6, 1e6),
     ("asin", -1, 1), ("acos", -1, 1)],
)  # fmt: skip
def test_functions_of_one_argument(fn: str, low: float, high: float, tmp_path: Path) -> None:
    worst(fn, dt.f32, [spread(low, high, dt.f32)], tmp_path)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64], ids=str)
def test_angles_of_all_special_values(dtype: DType, tmp_path: Path) -> None:
    values = np.array([*SPECIAL, -100.0, 1e30, -1e30], dtype.numpy)
    y, x = (part.ravel() for part in np.meshgrid(values, values))
    worst("atan2", dtype, [y, x], tmp_path)
