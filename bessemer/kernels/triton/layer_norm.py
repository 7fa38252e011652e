"""Layer normalisation and RMS normalisation over the trailing axes, statistics in f32 from centred values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.gpu.shapes import FLOATS, element_types, sizes, upper
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.rows import line_configs, line_estimate


class LayerNorm:
    """layer_norm (modes "layer" and "rms"), with or without scale and bias."""

    name = "triton_layer_norm"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("layer_norm",), into=1)
        if other is not None:
            return other
        dtype = element_types(problem, 1)
        if isinstance(dtype, Reason):
            return dtype
        for operand in problem.operands[1 : problem.anchors]:
            if operand.type.dtype not in FLOATS or operand.type.numel != _view(problem)[1]:
                return Reason(f"scale and bias have one element for each of a row, not {operand.type}")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        lines, length = _view(problem)
        return line_configs(problem, problem.typical(lines), upper(problem, length), problem.typical(length), target)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        lines, length = _view(problem)
        return line_estimate(problem, config, problem.typical(lines), problem.typical(length), target)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        lines, length = _view(problem)
        code = emit.module("layer_norm", problem, (_axis(problem),))
        scale, bias = bool(problem.attr("has_scale")), bool(problem.attr("has_bias"))
        br = int(config["br"])
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", 1), ("BR", br), ("BN", int(config["bn"])),
            ("WHOLE", bool(config["whole"])), ("EPSILON", float(problem.attr("epsilon"))),
            ("CENTER", problem.attr("mode") == "layer"), ("SCALE", scale), ("BIAS", bias),
            ("CONSTANT", all(o.constant for o in problem.operands[1 : problem.anchors])),
        )  # fmt: skip
        args = (
            Ptr(0), Ptr(int(scale)), Ptr(int(scale) + int(bias)), *sizes(problem, (lines, length)), *code.args,
        )  # fmt: skip
        return KernelCode("triton", code.text, (Launch("kernel", (ceildiv(lines, br),), args, options),))


def _axis(problem: Problem) -> int:
    axis, rank = int(problem.attr("axis")), problem.operands[0].type.rank
    return axis + rank if axis < 0 else axis


def _view(problem: Problem) -> tuple[Dim, Dim]:
    """(rows, their length)."""
    shape, axis = problem.operands[0].type.shape, _axis(problem)
    return product(shape[:axis]), product(shape[axis:])


register(LayerNorm())
