"""Configurations of kernels that reduce lines of elements: lines and warps per program, whole lines or steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bessemer.kernels.base import Config, Limits
from bessemer.kernels.gpu.shapes import LATENCY_US, MEMORY_BYTES_PER_US, fill_us, power_of_two, sms

WHOLE = 16384  # the longest line kept in registers
STEP = 4096
LINES = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (2, 4), (4, 4), (4, 8), (8, 4), (16, 4), (32, 4))  # lines, warps


def line_configs(lines: int, longest: int, typical: int, itemsize: int, target: Limits) -> Sequence[Config]:
    """Best guesses first for `lines` lines of at most `longest` and typically `typical` elements."""
    whole = power_of_two(longest) <= WHOLE and power_of_two(longest) <= 8 * power_of_two(typical)
    bn = power_of_two(longest) if whole else min(STEP, power_of_two(typical))
    found = [
        {"br": br, "bn": bn, "warps": warps, "whole": int(whole)}
        for br, warps in LINES
        if br * bn <= 64 * warps * 32 and (br * bn >= warps * 32 or warps == 1)
    ] or [{"br": 1, "bn": bn, "warps": 16, "whole": int(whole)}]  # fmt: skip
    return sorted(found, key=lambda c: line_estimate(c, lines, typical, itemsize, target))


def line_estimate(config: Config, lines: int, length: int, itemsize: int, target: Limits) -> float:
    """Microseconds: waves of latency, or device memory."""
    br, bn, warps, whole = (int(config[k]) for k in ("br", "bn", "warps", "whole"))
    resident = sms(target) * min(32, 64 // warps)
    waves = math.ceil(-(-lines // br) / resident)
    work = br * bn / (warps * 32) * 0.004 + 0.05 * math.log2(warps * 32)
    passes = 1 if whole else 2 * -(-length // bn)
    memory = 2 * lines * length * itemsize / MEMORY_BYTES_PER_US
    return fill_us(target) + max(waves * passes * (LATENCY_US / 2 + work), memory)
