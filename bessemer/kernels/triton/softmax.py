"""Softmax and log-softmax along any axis: whole lines in registers, or two passes with a running maximum."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.gpu.shapes import element_types, sizes, upper
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.rows import line_configs, line_estimate


class Softmax:
    """softmax of f16, bf16 and f32, computed in f32."""

    name = "triton_softmax"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("softmax",), into=1)
        if other is not None:
            return other
        dtype = element_types(problem, 1)
        return dtype if isinstance(dtype, Reason) else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        lines, length, _ = _view(problem)
        return line_configs(problem, problem.typical(lines), upper(problem, length), problem.typical(length), target)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        lines, length, _ = _view(problem)
        return line_estimate(problem, config, problem.typical(lines), problem.typical(length), target)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        lines, length, inner = _view(problem)
        axis, rank = int(problem.attr("axis")), problem.operands[0].type.rank
        last = axis == rank - 1
        code = emit.module("softmax", problem, None if last else (axis, axis + 1))
        br = int(config["br"])
        options = (
            ("num_warps", int(config["warps"])), ("num_stages", 1), ("BR", br), ("BN", int(config["bn"])),
            ("WHOLE", bool(config["whole"])), ("LAST", last), ("LOG", bool(problem.attr("log"))),
        )  # fmt: skip
        args = (Ptr(0), *sizes(problem, (lines, length, inner)), *code.args)
        return KernelCode("triton", code.text, (Launch("kernel", (ceildiv(lines, br),), args, options),))


def _view(problem: Problem) -> tuple[Dim, Dim, Dim]:
    """(lines, their length, the step between their elements)."""
    shape, axis = problem.operands[0].type.shape, int(problem.attr("axis"))
    inner = product(shape[axis + 1 :])
    return product(shape[:axis]) * inner, shape[axis], inner


register(Softmax())
