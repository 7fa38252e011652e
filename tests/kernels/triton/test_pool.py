"""Pooling against float64: kinds, layouts, ranks, padding, what an average counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.kernels.triton.pool import Pool
from tests.kernels.triton.harness import interpret
from tests.kernels.triton.problems import H200, Case, case, check, compiles, first, normal, reason, with_bias_relu

pytestmark = [pytest.mark.triton, pytest.mark.torch]


def pool(
    kind: str, shape: tuple[int, ...], out: tuple[int, ...], layout: str, dtype: DType, kernel: tuple[int, ...],
    include: bool = False, p: int = 2, nan: bool = False, **given: Any,
) -> Case:  # fmt: skip
    """Shape channel first; `out` are the spatial sizes, which may reach beyond the padding (ceil_mode)."""
    rank = len(kernel)
    strides, dilations = given.get("strides", (1,) * rank), given.get("dilations", (1,) * rank)
    pads = given.get("pads", (0,) * 2 * rank)
    x = normal(shape, dtype)
    if nan:
        x[0, 0, 0] = np.nan
    want = np.zeros((*shape[:2], *out))
    for o in np.ndindex(*out):
        values, count = [], 0
        for tap in np.ndindex(*kernel):
            at = [o[k] * strides[k] - pads[k] + tap[k] * dilations[k] for k in range(rank)]
            if all(0 <= a < size for a, size in zip(at, shape[2:])):
                values.append(x[(slice(None), slice(None), *at)].astype(np.float64))
                count += 1
            elif include and all(a < size + end for a, size, end in zip(at, shape[2:], pads[rank:])):
                count += 1
        seen = np.stack(values)
        total = {"max": seen.max(0), "avg": seen.sum(0) / count, "lp": (np.abs(seen) ** p).sum(0) ** (1 / p)}
        want[(slice(None), slice(None), *o)] = total[kind]
    if layout == "NHWC":
        x, want = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, want))
    attrs: dict[str, Any] = {
        "kind": kind, "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "layout": layout,
        "count_include_pad": include, "p": p,
    }  # fmt: skip
    return case("pool", [x], [want], dtype, attrs)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f16, dt.bf16])
def test_kinds(layout: str, dtype: DType) -> None:
    tile = {"bm": 16, "bn": 32 if layout == "NHWC" else 1, "warps": 4}
    same: dict[str, Any] = {"strides": (2, 2), "pads": (1, 1, 1, 1)}
    axis = -1 if layout == "NHWC" else 1
    check(Pool(), with_bias_relu(pool("max", (2, 20, 9, 11), (5, 6), layout, dtype, (3, 3), **same), axis), tile)
    check(Pool(), pool("avg", (1, 5, 9, 11), (5, 6), layout, dtype, (3, 3), **same), tile)
    check(Pool(), pool("avg", (1, 5, 9, 11), (5, 6), layout, dtype, (3, 3), include=True, **same))
    check(Pool(), pool("lp", (2, 7, 10), (6,), layout, dtype, (3,), p=3, dilations=(2,)))
    check(Pool(), pool("avg", (1, 3, 5, 4, 4), (2, 2, 2), layout, dtype, (2, 2, 2), strides=(2, 2, 2)))


def test_windows_beyond_the_padding_do_not_count() -> None:
    check(Pool(), pool("avg", (1, 5, 10, 12), (5, 6), "NHWC", dt.f32, (3, 3), include=True, strides=(2, 2)))


def test_the_maximum_with_a_nan_is_nan() -> None:
    c = pool("max", (1, 4, 6), (5,), "NHWC", dt.f32, (2,), nan=True)
    assert np.isnan(c.want[0][0, 0, 0])
    (got,) = interpret(c.problem, Pool().emit(c.problem, H200, Pool().configs(c.problem, H200)[0]), c.operands)
    np.testing.assert_array_equal(got, c.want[0].astype(np.float32))


def test_reasons() -> None:
    assert "at most 64 taps" in reason(Pool(), pool("max", (1, 1, 100), (1,), "NHWC", dt.f32, (100,)).problem)


def test_compiles_for_every_architecture() -> None:
    problems = [
        pool(kind, (1, 8, 12), (6,), layout, dt.f16, (2,), strides=(2,)).problem
        for kind in ("max", "avg", "lp") for layout in ("NHWC", "NCHW")
    ]  # fmt: skip
    compiles(Pool(), problems, first)
