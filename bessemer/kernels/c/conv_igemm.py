"""Convolution as an implicit matrix product over channels-last x: pixels by (taps, channels) by output channels."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.ir.graph import TensorType
from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import ConvForm, conv_form, refuse_packed
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import FIELDS, Extent, Split, plan, shape_configs

_TAPS = 1 << 10  # rows of pointers that one tile may need on the stack


def extent_of(form: ConvForm) -> Extent:
    """The product's sizes: one group of columns per group of channels."""
    groups = form.groups
    return Extent(groups, form.batch * form.pixels, form.outputs // groups, form.taps, form.channels // groups)


class ConvIgemm:
    """Any NHWC convolution with a constant filter; nothing is copied, padding is a row of zeros."""

    name = "c_conv_igemm"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = refuse_packed(problem)
        if reason is not None:
            return reason
        form = conv_form(problem)
        if form.groups == form.channels == form.outputs > 1:
            return Reason("one channel per group: c_conv_depthwise or c_conv_direct computes it")
        return Reason(f"more than {_TAPS} taps") if form.taps > _TAPS else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return shape_configs(problem, target, extent_of(conv_form(problem)))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        split = plan(problem, target, extent_of(conv_form(problem)), config)
        return cost.product_us(problem, target, split, gather=cost.POINTER_CYCLES)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = conv_form(problem)
        split = plan(problem, target, extent_of(form), config)
        ints = tuple(Int(v) for v in form.ints)
        store = store_code(problem, ptr0=2, int0=FIELDS + len(ints))
        text = simd.header(target.arch) + split.text(
            "conv_igemm", source_text(form, form.channels // form.groups), store.text, FIELDS
        )
        args = (Ptr(0), Ptr(1), *split.args, *ints, *store.args)
        return KernelCode("c", text, (Launch("conv_igemm", (split.items,), args),), (filter_pack(form, split),))


def source_text(form: ConvForm, depth: int) -> str:
    """conv_source.h for taps of `depth` contiguous floats."""
    zeros = max(1024, 1 << depth.bit_length())
    lines = form.kernel[0] * form.kernel[1]
    return f"#define ZERO_ROW {zeros}\n#define TAP_LINES {lines}\n" + simd.template("conv_source.h")


def filter_pack(form: ConvForm, split: Split) -> Pack:
    """The filter as panels."""
    params = (split.lanes, split.panels, form.groups)
    return Pack(1, "panels_of_filter", params, TensorType(dt.f32, (split.packed,)))


base.register(ConvIgemm())
