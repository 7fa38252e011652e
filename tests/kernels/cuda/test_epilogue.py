"""Epilogues in CUDA C++: every way to read an operand at the output's coordinates, types, and scalar functions."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product, sym
from bessemer.core.dtype import DType
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import scalar as oracle
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Int, KernelCode, Launch, Operand, Problem, Ptr
from bessemer.kernels.cuda import emit, scalar
from bessemer.ops.activation import _gelu
from tests.kernels.cuda.emulator import emulate
from tests.kernels.triton.cases import ulps, values
from tests.kernels.triton.harness import run_on_gpu

ON = [
    pytest.param("emulator", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param("gpu", marks=pytest.mark.gpu),
]
TEMPLATE = """
extern "C" __global__ void __launch_bounds__(128)
kernel(const uint16_t *x, int rows, int columns@EPILOGUE_PARAMETERS@) {
    wait_for_inputs();
    for (int i = threadIdx.x; i < rows * (columns / 8); i += 128) {
        const int row = i / (columns / 8), col = i % (columns / 8) * 8;
        Columns known;
        Cells cells;
        load_constant_columns(known, col@EPILOGUE_NAMES@);
        load_columns(known, col@EPILOGUE_NAMES@);
        load_cells(cells, row, col@EPILOGUE_NAMES@);
        const Run<uint16_t> run = load_run(x + row * columns + col);
        float acc[8];
        for (int j = 0; j < 8; j++)
            acc[j] = f32_of_f16(run.v[j]);
        finish(acc, known, cells, row, col@EPILOGUE_NAMES@);
    }
}
"""
B, S, H = sym("b"), 5, 24
AXES = ex.out_axes(3)
ACC = ex.Acc(dt.f16)
ZERO = ex.lit(0, dt.i64)
ENV = {"b": 3}


def problem(epilogue: ex.Expr | None, operands: Sequence[tuple[DType, tuple[Dim, ...]]], out: DType) -> Problem:
    anchor = TensorType(dt.f16, (B, S, H))
    types = [anchor, *(TensorType(d, s) for d, s in operands)]
    return Problem(
        "matmul", tuple(Operand(t) for t in types), (TensorType(out, (B, S, H)),), anchors=1, result=anchor,
        epilogue=epilogue, ranges=(("b", Range(1, 9, 4)),),
    )  # fmt: skip


def code(p: Problem, monkeypatch: pytest.MonkeyPatch) -> KernelCode:
    known = scalar.template
    monkeypatch.setattr(scalar, "template", lambda name: TEMPLATE if name == "store.cu" else known(name))
    module = emit.module("store.cu", p, {}, {})
    rows = Int(product(p.outputs[0].shape[:-1]), 32)
    options = (("warps", 4), ("shared", 0), ("cluster", 1), ("pdl", False))
    return KernelCode("cuda", module.text, (Launch("kernel", (1,), (Ptr(0), rows, Int(H, 32), *module.args), options),))


def run(p: Problem, on: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    operands = [values(rng, o.type, ENV) for o in p.operands]
    kernel = code(p, monkeypatch)
    (got,) = emulate(p, kernel, operands, folder, ENV) if on == "emulator" else run_on_gpu(p, kernel, operands, ENV)
    e = p.epilogue if p.epilogue is not None else ACC
    dtype = p.outputs[0].dtype
    return got, oracle.evaluate(e, (3, S, H), dt.f64 if dtype.is_float else dtype, operands, ENV, acc=operands[0])


READS = {
    "column": ((H,), (AXES[2],)),
    "own": ((B, S, H), AXES),
    "row": ((B, S, 1), (AXES[0], AXES[1], ZERO)),
    "image": ((S, H), AXES[1:]),
    "across": ((B, 1, H), (AXES[0], ZERO, AXES[2])),
    "turned": ((H, S, B), AXES[::-1]),
    "scalar": ((), ()),
    "shifted": ((S, H + 2), (AXES[1], ex.call("add", AXES[2], ex.lit(2, dt.i64)))),
}


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("dtype", [dt.f16, dt.f32], ids=str)
def test_operands_are_read_at_the_outputs_coordinates(
    on: str, dtype: DType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total: ex.Expr = ACC
    for number, (_, index) in enumerate(READS.values()):
        total = ex.call("add", ex.cast(total, dt.f32), ex.cast(ex.load(number + 1, index, dtype), dt.f32))
    p = problem(total, [(dtype, shape) for shape, _ in READS.values()], dt.f32)
    got, want = run(p, on, tmp_path, monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
    text = code(p, monkeypatch).text
    assert len(re.findall(r"\.v\d+ = load_run", text)) == 4  # column, own, image and across: the aligned runs


@pytest.mark.parametrize("rows,narrow", [(1 << 20, True), (1 << 25, False)])
def test_offsets_have_32_bits_where_they_are_enough(
    rows: int, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    total = ex.call("add", ACC, ex.load(1, AXES, dt.f16))
    p = replace(problem(total, [(dt.f16, (B, S, H))], dt.f16), ranges=(("b", Range(1, rows, 4)),))
    text = code(p, monkeypatch).text
    assert ("static_cast<int>(static_cast<int64_t>(row) * n" in text) is narrow
    assert bool(re.search(r"load_run\(x1 \+ \(static_cast<int>", text)) is narrow


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("out", [dt.f16, dt.bf16, dt.f32, dt.i32, dt.i64, dt.bool_], ids=str)
def test_outputs_of_other_types(out: DType, on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tripled = ex.call("mul", ACC, ex.lit(3, dt.f16))
    e = ex.cast(tripled, out) if out != dt.bool_ else ex.call("gt", ACC, ex.lit(0, dt.f16))
    got, want = run(problem(e, [], out), on, tmp_path, monkeypatch)
    np.testing.assert_allclose(got, want, rtol=4e-3 if out == dt.bf16 else 1e-3)


@pytest.mark.parametrize("on", ON)
def test_select_reads_only_the_side_it_takes(on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = ex.call("sub", AXES[2], ex.lit(16, dt.i64))
    e = ex.Select(ex.call("lt", AXES[2], ex.lit(16, dt.i64)), ACC, ex.load(1, (far,), dt.f16))
    got, want = run(problem(e, [(dt.f16, (8,))], dt.f16), on, tmp_path, monkeypatch)
    assert ulps(got, want, dt.f16).max() <= 0.5


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("out", [dt.f16, dt.bf16], ids=str)
def test_gelu_is_one_function_of_16_bits(out: DType, on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more exact than its sum with 1 in f32, which loses what is left of a small probability."""
    p = problem(ex.cast(_gelu(ACC, {"approximate": "none"}), out), [], out)
    x = np.linspace(-5.5, 9, 3 * S * H).astype(np.float16)
    x[-3:] = np.inf, np.nan, -20
    x = x.reshape(3, S, H)
    kernel = code(p, monkeypatch)
    assert "gelu_16(" in kernel.text and "erf_16(" not in kernel.text
    (got,) = emulate(p, kernel, [x], tmp_path, ENV) if on == "emulator" else run_on_gpu(p, kernel, [x], ENV)
    flat, wide = got.astype(np.float64).ravel(), x.astype(np.float64).ravel()
    want = np.array([v * math.erfc(-v * math.sqrt(0.5)) / 2 for v in wide[:-3]])
    step = 2.0**-8 if out == dt.bf16 else 2.0**-11
    np.testing.assert_allclose(flat[:-3], want, rtol=1.1 * step, atol=3.1e-8 if out == dt.f16 else 2e-9)
    assert flat[-3] == np.inf and np.isnan(flat[-2]) and abs(flat[-1]) < 1e-8


FUNCTIONS = "exp expm1 tanh sigmoid erf sin cos atan neg abs floor ceil round trunc sign isnan".split()


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("half", [True, False])
def test_functions(half: bool, on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of all of them: in f32 to a few units, and with the functions for 16 bits to what these hold."""
    x = ACC if half else ex.cast(ACC, dt.f32)
    small = ex.call("min", ex.call("max", x, ex.lit(-2.0, x.dtype)), ex.lit(2.0, x.dtype))
    total: ex.Expr = ex.lit(0.0, dt.f32)
    for weight, fn in enumerate(FUNCTIONS):
        term = ex.cast(ex.call(fn, small), dt.f32)
        total = ex.call("add", total, ex.call("mul", term, ex.lit(1.0 + weight, dt.f32)))
    got, want = run(problem(total, [], dt.f32), on, tmp_path, monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3 if half else 1e-4)
    assert ("tanh_16(" in code(problem(total, [], dt.f32), monkeypatch).text) == half
