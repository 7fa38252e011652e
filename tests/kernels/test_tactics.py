"""What holds for every tactic: its name, and that it says in one form that it is for another op."""

from __future__ import annotations

import re

from bessemer.core import dtype as dt
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import TACTICS, Operand, Problem
from bessemer.targets.base import resolve


def test_names_begin_with_the_language() -> None:
    tactics = TACTICS.discover()
    assert {"c_gemm", "triton_gemm"} <= set(tactics)
    assert [t.name for t in tactics.values() if not re.fullmatch(rf"{t.language}(_[a-z0-9]+)+", t.name)] == []


def test_problems_of_another_op_are_told_apart() -> None:
    x = TensorType(dt.f32, (4, 8))
    problem = Problem("unheard_of", (Operand(x),), (x,))
    for target in (resolve("cuda:sm_90"), resolve("cpu:avx2")):
        for tactic in TACTICS.discover().values():
            reason = tactic.applicable(problem, target)
            assert reason is not None and reason.other_op, tactic.name
            assert reason.text.endswith("not unheard_of")
