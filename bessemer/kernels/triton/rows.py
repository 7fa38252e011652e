"""Configurations of kernels that reduce lines of elements: lines and warps per program, whole lines or steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bessemer.kernels.base import Config, Limits, Problem
from bessemer.kernels.gpu.epilogue import moved
from bessemer.kernels.gpu.shapes import fill_us, power_of_two, sms

WAVE_US, ELEMENT_US, PROGRAM_US = 0.36, 0.0112, 0.0011  # a wave of programs, an element of a thread, to start a program
BYTES_PER_US = 4_100_000.0
WHOLE = 16384  # the longest line kept in registers
STEP = 4096
LINES = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (2, 4), (4, 4), (4, 8), (8, 4), (16, 4), (32, 4))  # lines, warps


def line_configs(problem: Problem, lines: int, longest: int, typical: int, target: Limits) -> Sequence[Config]:
    """Best guesses first for `lines` lines of at most `longest` and typically `typical` elements."""
    whole = power_of_two(longest) <= WHOLE and power_of_two(longest) <= 8 * power_of_two(typical)
    bn = power_of_two(longest) if whole else min(STEP, power_of_two(typical))
    found = [
        {"br": br, "bn": bn, "warps": warps, "whole": int(whole)}
        for br, warps in LINES
        if br * bn <= 64 * warps * 32 and (br * bn >= warps * 32 or warps == 1)
    ] or [{"br": 1, "bn": bn, "warps": 16, "whole": int(whole)}]  # fmt: skip
    return sorted(found, key=lambda c: line_estimate(problem, c, lines, typical, target))


def line_estimate(problem: Problem, config: Config, lines: int, length: int, target: Limits) -> float:
    """Microseconds: waves of programs one after another, and device memory or the start of all programs. The constants
    fit 226 timings of normalisations on an H200, with a mean error of 10 %."""
    br, bn, warps, whole = (int(config[k]) for k in ("br", "bn", "warps", "whole"))
    resident = sms(target) * min(32, 64 // warps)
    programs = -(-lines // br)
    passes = 1 if whole else 2 * -(-length // bn)
    wave = passes * (WAVE_US + br * bn / (warps * 32) * ELEMENT_US)
    streams = max(moved(problem) / BYTES_PER_US, programs * PROGRAM_US)
    return fill_us(target) + math.ceil(programs / resident) * wave + streams
