"""Compute groups: any definition, and any fusion of them, as generated loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.c import cost, scalar, simd
from bessemer.kernels.c.loops import stage_code
from bessemer.kernels.c.stages import split, workspace


class Group:
    """Elementwise code, gathers, layout changes and reductions, fused in any way."""

    name = "c_group"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("group",), into=1)
        if other is not None:
            return other
        unknown = scalar.supported(problem)
        return Reason(unknown) if unknown else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        assert problem.body is not None
        return cost.elementwise_us(problem, target, cost.operations(problem, problem.body.expr))

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return group_code(problem, target)


def as_group(problem: Problem, result: ex.Expr) -> Problem:
    """The group that computes the anchor's `result` (over the anchor's operands) and then the problem's epilogue."""
    out = problem.outputs[0]

    def step(n: ex.Expr) -> ex.Expr | None:
        return ex.cast(result, n.dtype) if isinstance(n, ex.Acc) else None

    whole = result if problem.epilogue is None else exprtree.rewrite(problem.epilogue, step)
    body = ex.ComputeDef(out.shape, out.dtype, ex.cast(whole, out.dtype))
    return replace(problem, op="group", attrs=(), anchors=0, result=None, epilogue=None, body=body)


def group_code(problem: Problem, target: Limits) -> KernelCode:
    """The loops of a group, one launch for each of its stages."""
    stages, temporaries = split(problem)
    codes = [stage_code(problem, stage, temporaries, f"group_{k}") for k, stage in enumerate(stages)]
    helpers = {name: text for code in codes for name, text in code.helpers.items()}
    text = "".join((*helpers.values(), *(code.text for code in codes)))
    header = scalar.HEADER
    if any(name.startswith("transpose_") for name in helpers):
        header = simd.header(target.arch) + simd.template("transpose.h")
    launches = tuple(code.launch for code in codes)
    return KernelCode("c", header + scalar.assemble(text), launches, workspace=workspace(temporaries))


register(Group())
