"""Epilogues: every way to read an operand at the output's coordinates, on a template that only stores tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, product, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import scalar as oracle
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Int, KernelCode, Launch, Operand, Problem, Ptr
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.params import Params
from tests.kernels.triton.cases import ulps, values
from tests.kernels.triton.harness import interpret

pytestmark = [pytest.mark.triton, pytest.mark.torch]

TEMPLATE = '''"""Stores operand 0 through the epilogue."""

import triton
import triton.language as tl


@triton.jit
def kernel(a_ptr, M, N, EPILOGUE, BM: tl.constexpr, BN: tl.constexpr, PDL: tl.constexpr):
    begin(PDL)
    wait(PDL)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    cols = tl.program_id(1) * BN + tl.arange(0, BN)[None, :]
    mask = (rows < M) & (cols < N)
    acc = tl.load(a_ptr + rows * N + cols, mask=mask, other=float("nan")).to(tl.float32)
    epilogue_store(acc, rows, cols, mask, EPILOGUE)
'''
B, S, H = sym("b"), 5, 24
RANGES = {"b": Range(1, 9, 4)}
AXES = ex.out_axes(3)


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in emit.SHARED:
        (tmp_path / f"{name}.py").write_text((emit.TEMPLATES / f"{name}.py").read_text())
    (tmp_path / "store.py").write_text(TEMPLATE)
    monkeypatch.setattr(emit, "TEMPLATES", tmp_path)
    emit._template.cache_clear()
    emit._functions.cache_clear()


def problem(epilogue: ex.Expr | None, operands: Sequence[tuple[DType, tuple[Dim, ...]]], out: DType) -> Problem:
    anchor = TensorType(dt.f16, (B, S, H))
    types = [anchor, *(TensorType(d, s) for d, s in operands)]
    return Problem(
        "matmul", tuple(Operand(t) for t in types), (TensorType(out, (B, S, H)),), anchors=1, result=anchor,
        epilogue=epilogue, ranges=tuple(RANGES.items()),
    )  # fmt: skip


def run(p: Problem) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    module = emit.module("store", p)
    rows, env = product(p.outputs[0].shape[:-1]), {"b": 3}
    launch = Launch(
        "kernel", (ceildiv(rows, 8), ceildiv(H, 16)), (Ptr(0), Int(rows, 32), Int(H, 32), *module.args),
        (("num_warps", 1), ("BM", 8), ("BN", 16)),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    operands = [values(rng, o.type, env) for o in p.operands]
    (got,) = interpret(p, KernelCode("triton", module.text, (launch,)), operands, env)
    e = p.epilogue if p.epilogue is not None else ex.Acc(dt.f16)
    dtype = p.outputs[0].dtype
    return got, oracle.evaluate(e, (3, S, H), dt.f64 if dtype.is_float else dtype, operands, env, acc=operands[0])


ACC = ex.Acc(dt.f16)
ZERO = ex.lit(0, dt.i64)
READS = {
    "column": ((H,), (AXES[2],)),
    "own": ((B, S, H), AXES),
    "row": ((B, S, 1), (AXES[0], AXES[1], ZERO)),
    "batch": ((B,), (AXES[0],)),
    "middle": ((S,), (AXES[1],)),
    "image": ((S, H), AXES[1:]),
    "across": ((B, 1, H), (AXES[0], ZERO, AXES[2])),
    "turned": ((H, S, B), AXES[::-1]),
    "scalar": ((), ()),
    "shifted": ((S, H + 2), (AXES[1], ex.call("add", AXES[2], ex.lit(2, dt.i64)))),
}


@pytest.mark.parametrize("read", READS)
def test_operands_are_read_at_the_outputs_coordinates(read: str) -> None:
    shape, index = READS[read]
    got, want = run(problem(ex.call("add", ACC, ex.load(1, index, dt.f16)), [(dt.f16, shape)], dt.f16))
    assert ulps(got, want, dt.f16).max() <= 0.5


@pytest.mark.parametrize("out", [dt.f16, dt.f32, dt.i32, dt.bool_], ids=str)
def test_outputs_of_other_types(out: DType) -> None:
    tripled = ex.call("mul", ACC, ex.lit(3, dt.f16))
    e = ex.cast(tripled, out) if out != dt.bool_ else ex.call("gt", ACC, ex.lit(0, dt.f16))
    got, want = run(problem(e, [], out))
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_without_an_epilogue_the_result_is_stored() -> None:
    got, want = run(problem(None, [], dt.f16))
    np.testing.assert_array_equal(got, want)


def test_select_reads_only_the_side_it_takes() -> None:
    far = ex.call("sub", AXES[2], ex.lit(16, dt.i64))
    e = ex.Select(ex.call("lt", AXES[2], ex.lit(16, dt.i64)), ACC, ex.load(1, (far,), dt.f16))
    got, want = run(problem(e, [(dt.f16, (8,))], dt.f16))
    assert ulps(got, want, dt.f16).max() <= 0.5


def test_an_index_that_is_data_never_leaves_its_operand() -> None:
    row = ex.load(1, (AXES[1],), dt.i64)
    p = problem(ex.call("add", ACC, ex.load(2, (row, AXES[2]), dt.f16)), [(dt.i64, (S,)), (dt.f16, (40, H))], dt.f16)
    module = emit.module("store", p)
    assert ">= 0" in module.text
    got, _ = run(p)  # indices from -50 to 50: guards of the harness would be read as NaN
    assert not np.isnan(got).any()


def test_parts_of_the_coordinates() -> None:
    p = problem(ex.call("add", ACC, ex.load(1, (AXES[1],), dt.f16)), [(dt.f16, (S,))], dt.f16)
    params = Params(p, bake=False)
    text, _ = emit.epilogue(p, (1, 2), params)
    assert "def epilogue_store(acc, part0, part1, part2, mask" in text
    assert "//" not in text and list(params.args.values()).count(Ptr(1)) == 1


def test_sizes_are_arguments() -> None:
    """One text for all shapes: a kernel is compiled once for each set of tiles, not for each layer."""
    first = emit.module("store", problem(ex.call("add", ACC, ex.load(1, (AXES[2],), dt.f16)), [(dt.f16, (H,))], dt.f16))
    wide = Problem(
        "matmul", (Operand(TensorType(dt.f16, (2, 9, 40))), Operand(TensorType(dt.f16, (40,)))),
        (TensorType(dt.f16, (2, 9, 40)),), anchors=1, result=TensorType(dt.f16, (2, 9, 40)),
        epilogue=ex.call("add", ACC, ex.load(1, (AXES[2],), dt.f16)),
    )  # fmt: skip
    assert emit.module("store", wide).text == first.text


def test_large_tensors_are_addressed_in_64_bits() -> None:
    shape = (70_000, 40_000)
    t = TensorType(dt.f16, shape)
    e = ex.call("add", ACC, ex.load(1, ex.out_axes(2), dt.f16))
    p = Problem("matmul", (Operand(t), Operand(t)), (t,), anchors=1, result=t, epilogue=e)
    params = Params(p, bake=False)
    text, _ = emit.epilogue(p, None, params)
    assert "rows.to(tl.int64)" in text
    assert Int(40_000, 32) in params.args.values()
