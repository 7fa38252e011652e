"""Tactics' names: the kernel language, then what they compute, in one spelling."""

from __future__ import annotations

import re

from bessemer.kernels.base import TACTICS


def test_names_begin_with_the_language() -> None:
    tactics = TACTICS.discover()
    assert {"c_gemm", "triton_gemm"} <= set(tactics)
    assert [t.name for t in tactics.values() if not re.fullmatch(rf"{t.language}(_[a-z0-9]+)+", t.name)] == []
