"""Compute groups: any definition, and any fusion of them, as generated loops."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, register
from bessemer.kernels.c import scalar, simd
from bessemer.kernels.c.loops import stage_code
from bessemer.kernels.c.stages import split, workspace


class Group:
    """Elementwise code, gathers, layout changes and reductions, fused in any way."""

    name = "c_group"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        if problem.op != "group" or problem.body is None:
            return Reason(f"computes groups, not {problem.op}")
        unknown = scalar.supported(problem)
        return Reason(unknown) if unknown else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
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
