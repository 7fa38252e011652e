"""What holds for every tactic: its name, and that it says in one form that it is for another op."""

from __future__ import annotations

import re
from dataclasses import replace

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import TACTICS, Into, Operand, Problem, of_language
from bessemer.targets.base import resolve


def test_names_begin_with_the_language() -> None:
    tactics = TACTICS.discover()
    assert {"c_gemm", "triton_gemm"} <= set(tactics)
    assert [t.name for t in tactics.values() if not re.fullmatch(rf"{t.language}(_[a-z0-9]+)+", t.name)] == []


def test_kernels_for_gpus_write_columns() -> None:
    """Those in CUDA C++ at whole runs, the others anywhere."""
    x, w = TensorType(dt.f16, (2, 8, 8, 16)), TensorType(dt.f16, (16, 16, 1, 1))
    attrs = {"layout": "NHWC", "groups": 1, **dict.fromkeys(("strides", "dilations"), (1, 1)), "pads": (0,) * 4}
    conv = Problem("conv", (Operand(x), Operand(w, True)), (x,), tuple(sorted(attrs.items())), 2, x)
    copy = ex.ComputeDef(x.shape, x.dtype, ex.load(0, ex.out_axes(4), x.dtype))
    group = Problem("group", (Operand(x),), (x,), body=copy)
    target = resolve("cuda:sm_90")
    for problem in (conv, group):
        taking = [t for t in of_language(TACTICS.discover(), target.languages) if t.applicable(problem, target) is None]
        assert any(t.language == "triton" for t in taking)
        for tactic in taking:
            assert tactic.applicable(replace(problem, into=Into(16, 40)), target) is None, tactic.name
            for start, width in ((4, 32), (8, 36)):
                reason = tactic.applicable(replace(problem, into=Into(start, width)), target)
                if tactic.language == "triton":
                    assert reason is None, tactic.name
                else:
                    assert reason is not None, tactic.name
                    assert f"runs of 8 elements, not those from column {start} on" in reason.text


def test_problems_of_another_op_are_told_apart() -> None:
    x = TensorType(dt.f32, (4, 8))
    problem = Problem("unheard_of", (Operand(x),), (x,))
    for target in (resolve("cuda:sm_90"), resolve("cpu:avx2")):
        for tactic in TACTICS.discover().values():
            reason = tactic.applicable(problem, target)
            assert reason is not None and reason.other_op, tactic.name
            assert reason.text.endswith("not unheard_of")
