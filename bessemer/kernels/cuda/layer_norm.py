"""Layer and RMS norms over the last axis by warps that hold whole rows, scale and bias in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, minimum, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.c import scalar
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.cuda.epilogue import RUN
from bessemer.kernels.gpu.shapes import FLOATS, power_of_two, sms, upper

PIECES = 6  # runs of a row that a thread holds at most
WARPS = (1, 2, 4, 8)  # of a CTA
TURNS = (1, 2, 3, 4, 6)  # rows that a warp takes
RESIDENT = 16  # warps that a multiprocessor has room for
LAUNCH_US, WARP_US, CTA_US = 1.15, 0.012, 0.06  # a launch with its loads, a warp of a CTA, CTAs one after another
TURN_US, WIDER_US = 0.28, 0.35  # another row of a warp, and each one whose elements are stored wider than they are read
BYTES_PER_US = 4_700_000.0


class LayerNorm:
    """layer_norm (modes "layer" and "rms") over a last axis of fixed size, in multiples of 8."""

    name = "cuda_layer_norm"
    version = 2
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("layer_norm",), into=RUN)
        if other is not None:
            return other
        if target.arch != ARCH:
            return Reason(f"is written for {ARCH}, not {target.arch}")
        x = problem.operands[0].type
        if problem.attr("axis") not in (-1, x.rank - 1):
            return Reason("normalises the last axis alone")
        size = x.shape[-1]
        if not isinstance(size, int) or size % RUN or size > PIECES * 32 * RUN:
            return Reason(f"holds rows of up to {PIECES * 32 * RUN} elements in multiples of {RUN}, not of {size}")
        for operand in problem.operands[: problem.anchors]:
            if operand.type.dtype not in FLOATS or operand.type.shape[-1] != size:
                return Reason(f"normalises, scales and shifts rows of {size} floats, not {operand.type}")
        if any(o.type.numel != size for o in problem.operands[1 : problem.anchors]):
            return Reason(f"scale and bias have {size} elements")
        if upper(problem, product(x.shape[:-1])) >= 2**30:
            return Reason("counts at most 2^30 rows")
        missing = scalar.supported(_finished(problem))
        return None if missing is None else Reason(missing)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found: list[Config] = []
        for warps in WARPS:
            grids = {problem.typical(_grid(problem, target, warps, turns)): turns for turns in reversed(TURNS)}
            found += [{"warps": warps, "turns": turns} for turns in sorted(grids.values())]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: bytes, and the rows of a warp one after another. The constants fit 200 timings
        on an H200, with a mean error of 13 %."""
        warps = int(config["warps"])
        ctas = problem.typical(_grid(problem, target, warps, int(config["turns"])))
        turns = ceildiv(problem.typical(_needed(problem, warps)), ctas)
        waves = ceildiv(ctas * warps, sms(target) * RESIDENT)
        nbytes = sum(problem.typical(t.nbytes) for t in (problem.operands[0].type, *problem.outputs))
        wider = problem.outputs[0].dtype.itemsize > problem.operands[0].type.dtype.itemsize
        late = TURN_US * (turns * waves + waves - 2) + (WIDER_US * (turns * waves + waves - 1) if wider else 0.0)
        return LAUNCH_US + nbytes / BYTES_PER_US + late + WARP_US * warps + CTA_US * ctas / sms(target)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        x, warps = problem.operands[0].type, int(config["warps"])
        size = x.shape[-1]
        assert isinstance(size, int)
        constants = {
            "C": size, "LANES": _lanes(problem), "WARPS": warps, "CENTER": int(problem.attr("mode") == "layer"),
        }  # fmt: skip
        parts = {
            "TYPE": scalar.STORAGE[x.dtype.name], "VALUE": scalar.read("next[p].v[j]", x.dtype),
            "EPSILON": scalar.literal(float(np.float32(problem.attr("epsilon"))), "f32"),
        }  # fmt: skip
        module = emit.module("layer_norm.cu", _finished(problem), constants, parts)
        grid = (_grid(problem, target, warps, int(config["turns"])),)
        options = (("warps", warps), ("shared", 0), ("cluster", 1), ("pdl", True))
        launch = Launch("kernel", grid, (Ptr(0), Int(product(x.shape[:-1]), 32), *module.args), options)
        return KernelCode("cuda", module.text, (launch,))


def _finished(problem: Problem) -> Problem:
    """The problem whose epilogue scales and shifts what is normalised in f32, and goes on with the problem's own."""
    out = problem.outputs[0]
    last = ex.out_axes(out.rank)[-1]
    number = 1
    value: ex.Expr = ex.Acc(dt.f32)
    for has, fn in (("has_scale", "mul"), ("has_bias", "add")):
        if problem.attr(has):
            t = problem.operands[number].type
            index: list[ex.Expr] = [*(ex.lit(0, dt.i64) for _ in t.shape[1:]), last]
            value = ex.call(fn, value, ex.cast(ex.load(number, tuple(index), t.dtype), dt.f32))
            number += 1
    epilogue = value
    if problem.epilogue is not None:
        kept = ex.cast(value, (problem.result or out).dtype)
        epilogue = exprtree.rewrite(problem.epilogue, lambda e: kept if isinstance(e, ex.Acc) else None)
    return replace(problem, result=TensorType(dt.f32, out.shape), epilogue=epilogue)


def _needed(problem: Problem, warps: int) -> Dim:
    """CTAs whose warps take one turn."""
    return ceildiv(product(problem.operands[0].type.shape[:-1]), 32 // _lanes(problem) * warps)


def _grid(problem: Problem, target: Limits, warps: int, turns: int) -> Dim:
    """CTAs whose warps take about so many turns at the opt shape, and no less than there are multiprocessors."""
    needed = _needed(problem, warps)
    return minimum(needed, max(sms(target), problem.typical(ceildiv(needed, turns))))


def _lanes(problem: Problem) -> int:
    """Threads that hold a row."""
    size = problem.operands[0].type.shape[-1]
    assert isinstance(size, int)
    return min(32, power_of_two(size // RUN))


register(LayerNorm())
