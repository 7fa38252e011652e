"""Depthwise convolution over channels-last x: vectors of channels, several neighbouring pixels at a time."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.ir.graph import TensorType
from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import conv_form, refuse_packed
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import counts

_BLOCK = 128  # channels of a work item, at most; BLOCK of conv_depthwise_sum.h
_UNROLLED = 32  # taps of the width times pixels that a text unrolls, at most
_CLIPPED = 2.0  # the cost of a tap that may fall outside the line, against one that does not


class ConvDepthwise:
    """groups == channels == output channels, any kernel, stride, dilation and rank."""

    name = "c_conv_depthwise"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = refuse_packed(problem)
        if reason is not None:
            return reason
        form = conv_form(problem)
        if not form.groups == form.channels == form.outputs:
            return Reason("not one filter per channel")
        return Reason(f"a kernel {form.kernel[2]} wide") if form.kernel[2] > _UNROLLED else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        width = problem.typical(conv_form(problem).out[2])
        sizes = [n for n in (8, 4) if n <= max(4, width) and n * conv_form(problem).kernel[2] <= 2 * _UNROLLED]
        return [{"pixels": n} for n in sizes or [1]]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        form, lanes = conv_form(problem), simd.lanes(target.arch)
        lines, width = cost.typical(problem, form.batch * form.out[0] * form.out[1], form.out[2])
        blocks = cost.pieces(form.channels, _BLOCK)
        vectors = sum(-(-channels // lanes) * many for channels, many in blocks)
        runs = cost.pieces(width, int(config["pixels"]))
        clipped = min(1.0, 2 / sum(count for _, count in runs))  # the first and the last of a line
        cycles = 0.0
        for n, count in runs:
            terms = max(n + 1, cost.FMA_LATENCY * cost.FMA_PER_CYCLE) / cost.FMA_PER_CYCLE
            terms *= form.taps * (1 + (_CLIPPED - 1) * clipped)
            cycles += count * (vectors * (terms + 6 + 3 * n) + 20 * sum(many for _, many in blocks))
        cycles = lines * cycles + cost.traffic_cycles(problem, target)
        return cost.microseconds(target, cycles, lines * sum(many for _, many in blocks))

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = conv_form(problem)
        store = store_code(problem, ptr0=2, int0=len(form.ints))
        sizes = counts(form.out[2], int(config["pixels"]))
        names = zip(("KERNEL_D", "KERNEL_H", "KERNEL_W"), form.kernel)
        text = "\n".join(
            (
                simd.header(target.arch),
                f"#define TILE_ROWS {config['pixels']}",
                "#define TILE_VECS 1",
                f"#define PIXELS {config['pixels']}",
                simd.template("tile_base.h"),
                store.text,
                *(f"#define {name} {value}" for name, value in names),
                f"#define STRIDE_W {form.stride[2]}",
                f"#define DILATION_W {form.dilation[2]}",
                simd.template("conv_depthwise_sum.h"),
                *(f"PIXELS_SUM({n})" for n in sizes),
                "static pixels_fn *const SUMS[PIXELS + 1] = {" + "".join(f"[{n}] = pixels_{n}, " for n in sizes) + "};",
                simd.template("conv_depthwise.h"),
            )
        )
        padded = -(-form.channels // simd.lanes(target.arch)) * simd.lanes(target.arch)
        pack = Pack(1, "taps_by_channel", (padded,), TensorType(dt.f32, (form.taps * padded,)))
        items = form.batch * form.out[0] * form.out[1] * -(-form.channels // _BLOCK)
        args = (Ptr(0), Ptr(1), *(Int(v) for v in form.ints), *store.args)
        return KernelCode("c", text, (Launch("conv_depthwise", (items,), args),), (pack,))


base.register(ConvDepthwise())
