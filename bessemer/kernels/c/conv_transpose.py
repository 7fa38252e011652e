"""Transposed convolution over channels-last x: per phase of the output, an implicit matrix product over its taps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels import base
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.conv_form import ConvForm, conv_form, refuse_packed
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import FIELDS, Extent, plan, shape_configs
from bessemer.kernels.c.weights import reaching

_TAPS = 1 << 10  # rows of pointers that one tile may need on the stack


class ConvTransposeIgemm:
    """Any NHWC transposed convolution with a constant filter and known pads; every output is written once."""

    name = "c_conv_transpose_igemm"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = refuse_packed(problem, "conv_transpose")
        if reason is not None:
            return reason
        form = conv_form(problem)
        if not all(isinstance(p, int) for p in form.pad):
            return Reason("the pads are symbolic")
        return Reason(f"more than {_TAPS} taps") if form.taps > _TAPS else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return shape_configs(problem, target, _extent(conv_form(problem)))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        split = plan(problem, target, _extent(conv_form(problem)), config)
        return cost.product_us(problem, target, split, gather=3 * cost.POINTER_CYCLES)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = conv_form(problem)
        split = plan(problem, target, _extent(form), config)
        ints = tuple(Int(v) for v in (*form.ints, form.groups))
        store = store_code(problem, ptr0=2, int0=FIELDS + len(ints))
        source = (
            f"#define ZERO_ROW {max(1024, 1 << (form.channels // form.groups).bit_length())}\n"
            f"#define MAX_KERNEL {max(form.kernel)}\n" + simd.template("conv_transpose_source.h")
        )
        text = simd.header(target.arch) + split.text("conv_transpose", source, store.text, FIELDS)
        params = (split.lanes, split.panels, form.groups, form.stride, form.dilation, form.pad, form.kernel)
        pack = Pack(1, "panels_of_transposed_filter", params, TensorType(dt.f32, (split.packed,)))
        args = (Ptr(0), Ptr(1), *split.args, *ints, *store.args)
        return KernelCode("c", text, (Launch("conv_transpose", (split.items,), args),), (pack,))


def _extent(form: ConvForm) -> Extent:
    dims = list(zip(form.kernel, form.stride, form.dilation, form.pad))
    taps = math.prod(max(1, *(len(reaching(k, s, d, int(str(p)), r)) for r in range(s))) for k, s, d, p in dims)
    rows = form.batch
    for size, stride in zip(form.out, form.stride):
        rows = rows * ceildiv(size, stride)
    groups = math.prod(form.stride) * form.groups
    return Extent(groups, rows, form.outputs // form.groups, taps, form.channels // form.groups)


base.register(ConvTransposeIgemm())
