"""Transposed convolution whose kernel is its stride: one matrix product, each row of it a patch of the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import ConvForm, conv_form, refuse_packed
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import FIELDS, Extent, plan, shape_configs

_LINE = 256  # LINE of conv_patches_source.h


class ConvTransposePatches:
    """NHWC, kernel == stride, one group, no pads and no output padding."""

    name = "c_conv_transpose_patches"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = refuse_packed(problem, "conv_transpose", into=0)
        if reason is not None:
            return reason
        form = conv_form(problem)
        whole = tuple(s * n for s, n in zip(form.stride, form.size)) == form.out
        if form.kernel != form.stride or form.groups != 1 or form.pad != (0, 0, 0) or not whole:
            return Reason("the kernel is not the stride, or there are groups or pads")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return shape_configs(problem, target, _extent(conv_form(problem)))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        form = conv_form(problem)
        split = plan(problem, target, _extent(form), config)
        (rows,) = cost.typical(problem, _extent(form).rows)
        stores = 12.0 * rows * form.taps * (1 if form.outputs > 1 else 0.2)
        return cost.product_us(problem, target, split, extra=stores)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = conv_form(problem)
        split = plan(problem, target, _extent(form), config)
        lines = form.outputs == 1 and split.panels == 1 and split.tile_rows * form.stride[2] <= _LINE
        ints = tuple(Int(v) for v in (form.channels, form.outputs, *form.size, *form.stride))
        store = store_code(_one_channel(problem) if lines else problem, ptr0=2, int0=FIELDS + len(ints))
        source = f"#define LINES {int(lines)}\n#define ACROSS {form.stride[2]}\n" + simd.template(
            "conv_patches_source.h"
        )
        text = simd.header(target.arch) + split.text("conv_patches", source, store.text, FIELDS)
        pack = Pack(1, "panels_of_patches", (split.lanes, split.panels), TensorType(dt.f32, (split.packed,)))
        args = (Ptr(0), Ptr(1), *split.args, *ints, *store.args)
        return KernelCode("c", text, (Launch("conv_patches", (split.items,), args),), (pack,))


def _extent(form: ConvForm) -> Extent:
    rows = form.batch * math.prod(form.size[1:], start=form.size[0])
    return Extent(1, rows, form.taps * form.outputs, 1, form.channels)


def _one_channel(problem: Problem) -> Problem:
    """The problem with its output, of one channel, seen without the channel axis."""
    out = problem.outputs[0]
    last = f"i{out.rank - 1}"
    epilogue = problem.epilogue
    if epilogue is not None:
        epilogue = exprtree.substitute_axes(epilogue, {last: ex.lit(0, dt.i64)})
    outputs = (TensorType(out.dtype, out.shape[:-1]), *problem.outputs[1:])
    return replace(problem, outputs=outputs, epilogue=epilogue)


base.register(ConvTransposePatches())
