"""Convolution of few channels: the width's taps and the channels are one contiguous run of a padded line of x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bessemer.core.dim import Dim
from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import ConvForm, conv_form, refuse_packed
from bessemer.kernels.c.conv_igemm import filter_pack, source_text
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import FIELDS, Extent, plan, shape_configs

_CHANNELS = 32  # beyond, a tap's channels alone are a long enough run


class ConvLines:
    """NHWC, one group, no dilation of the width: the product over (tap of depth and height) x (width taps, channels).

    Lines are copied to the workspace with their padding, unless there is none.
    """

    name = "c_conv_lines"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = refuse_packed(problem)
        if reason is not None:
            return reason
        form = conv_form(problem)
        if form.groups != 1 or form.dilation[2] != 1 or form.kernel[2] == 1:
            return Reason("groups, a dilated width or a kernel 1 wide")
        if form.channels > _CHANNELS:
            return Reason(f"more than {_CHANNELS} channels")
        return Reason("more than 64 taps") if form.taps > 64 * form.kernel[2] else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return shape_configs(problem, target, _extent(conv_form(problem)))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        form = conv_form(problem)
        split = plan(problem, target, _extent(form), config)
        copied = not (form.pad[2] == 0 and _width(form) == form.size[2])
        lines, width = cost.typical(problem, form.batch * form.size[0] * form.size[1], _width(form))
        nbytes = 4.0 * lines * width * form.channels
        copy = 3 * nbytes / cost.bytes_per_cycle(target, nbytes) + 8 * lines if copied else 0.0
        launches = 1 + copied
        return cost.product_us(problem, target, split, gather=cost.POINTER_CYCLES, extra=copy, launches=launches)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = conv_form(problem)
        split = plan(problem, target, _extent(form), config)
        width = _width(form)
        copied = not (form.pad[2] == 0 and width == form.size[2])
        run = replace(
            form,
            size=(*form.size[:2], width),
            kernel=(*form.kernel[:2], 1),
            pad=(*form.pad[:2], 0),
            dilation=(*form.dilation[:2], 1),
        )
        ints = tuple(Int(v) for v in run.ints)
        store = store_code(problem, ptr0=2, int0=FIELDS + len(ints))
        text = simd.header(target.arch) + split.text(
            "conv_lines", source_text(form, form.kernel[2] * form.channels), store.text, FIELDS
        )
        x = Ptr(base.WORKSPACE if copied else 0)
        launches = [Launch("conv_lines", (split.items,), (x, Ptr(1), *split.args, *ints, *store.args))]
        lines = form.batch * form.size[0] * form.size[1]
        if copied:
            text += simd.template("conv_lines.h")
            sizes = (form.channels, form.size[2], form.pad[2], width)
            launches.insert(0, Launch("pad_lines", (lines,), (Ptr(0), x, *(Int(v) for v in sizes))))
        workspace = 4 * lines * width * form.channels if copied else 0
        return KernelCode("c", text, tuple(launches), (filter_pack(form, split),), workspace)


def _width(form: ConvForm) -> Dim:
    """Pixels of a padded line that the outputs read; the line itself where it is read in place."""
    reached = (form.out[2] - 1) * form.stride[2] + form.kernel[2]
    inside = form.pad[2] == 0 and isinstance(reached, int) and isinstance(form.size[2], int) and reached <= form.size[2]
    return form.size[2] if inside else reached


def _extent(form: ConvForm) -> Extent:
    taps = form.kernel[0] * form.kernel[1]
    return Extent(1, form.batch * form.pixels, form.outputs, taps, form.kernel[2] * form.channels)


base.register(ConvLines())
