"""Convolution by definition: every layout, rank, group count and filter that the packed tactics leave."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import channels_last, conv_form, refuse
from bessemer.kernels.c.epilogue import store_code


class ConvDirect:
    """Any f32 convolution with 1 to 3 spatial dims; the filter need not be constant."""

    name = "c_conv_direct"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        return refuse(problem)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return [{}]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        form = conv_form(problem)
        terms = form.taps * form.channels // form.groups
        (elements,) = cost.typical(problem, problem.outputs[0].numel)
        per_term = 4.0 if channels_last(problem) else 1.0  # a scalar sum, or a vector over the line
        cycles = elements * (terms * per_term + 12 * form.taps)
        return cost.microseconds(target, cycles, elements)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form, last = conv_form(problem), channels_last(problem)
        ints = tuple(Int(v) for v in (*form.ints, form.outputs, form.groups))
        store = store_code(problem, ptr0=2, int0=len(ints))
        text = "\n".join(
            (
                simd.header(target.arch),
                "#define TILE_ROWS 1\n#define TILE_VECS 1",
                simd.template("tile_base.h"),
                store.text,
                f"#define CHANNELS_LAST {int(last)}",
                simd.template("conv_direct.h"),
            )
        )
        items = form.batch * form.out[0] * form.out[1] * (form.out[2] if last else form.outputs)
        args = (Ptr(0), Ptr(1), *ints, *store.args)
        return KernelCode("c", text, (Launch("conv_direct", (items,), args),))


base.register(ConvDirect())
