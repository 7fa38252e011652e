"""Transposed convolutions whose windows do not overlap, channels last, of few channels: the plain units multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import (
    Config,
    Int,
    KernelCode,
    Launch,
    Limits,
    Pack,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
    transform,
)
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.gpu.shapes import divides, element_types, sms, upper
from bessemer.kernels.gpu.window import Window, window_of

RUN = 8  # outputs of a thread that are neighbours
PIXELS = (4, 2, 1)
THREADS = (128, 256)
MOST_WEIGHTS = 32768  # bytes, in the shared memory of every CTA
CLOCK_MHZ, LATENCY_US, L2_BYTES_PER_US = 1750.0, 1.8, 4_500_000.0
STORE_STEPS, ITEM_STEPS = 12, 100  # instructions for an output beside its sum, and for an item


@dataclass(frozen=True)
class _Upsample:
    window: Window
    ic: int
    oc: int

    @property
    def along_width(self) -> bool:
        return self.oc == 1

    @property
    def weight_bytes(self) -> int:
        return math.prod(self.window.strides) * self.ic * self.oc * 2

    def pixels(self, config: Config) -> int:
        """Input pixels of a thread."""
        return RUN // self.window.strides[2] if self.along_width else int(config["pixels"])

    def runs(self, config: Config) -> int:
        """Runs of outputs of a thread."""
        return self.window.strides[1] if self.along_width else int(config["pixels"])

    def items(self, config: Config) -> Dim:
        """Threads."""
        w = self.window
        places = w.batch * w.input[1] * ceildiv(w.input[2], self.pixels(config))
        return places if self.along_width else places * (math.prod(w.strides) * self.oc // RUN)


class ConvTranspose:
    """conv_transpose in f16 and bf16 with kernel = stride, NHWC, one group, no padding, over one or two axes; input
    channels in multiples of 8, and so output channels, or one of them."""

    name = "cuda_conv_transpose"
    version = 3
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("conv_transpose",), into=RUN)
        if other is not None:
            return other
        if target.arch != ARCH:
            return Reason(f"is written for {ARCH}, not {target.arch}")
        found = _upsample(problem)
        if isinstance(found, Reason):
            return found
        if found.weight_bytes > MOST_WEIGHTS:
            return Reason(f"holds all weights, at most {MOST_WEIGHTS} bytes, in every CTA")
        if upper(problem, problem.outputs[0].numel) >= 2**31:
            return Reason("counts at most 2^31 outputs")
        missing = supported(problem)
        return None if missing is None else Reason(missing)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        along_width = _known(problem).along_width
        found: list[Config] = [
            {"pixels": pixels, "threads": threads}
            for pixels in ((RUN // _known(problem).window.strides[2],) if along_width else PIXELS)
            for threads in THREADS
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: instructions, or bytes."""
        u = _known(problem)
        outputs = RUN * u.runs(config)
        converted = u.ic * (u.pixels(config) + (math.prod(u.window.strides) if u.along_width else RUN))
        steps = outputs * (u.ic + STORE_STEPS) + converted + ITEM_STEPS
        compute = problem.typical(u.items(config)) / 128 / sms(target) * steps / CLOCK_MHZ
        nbytes = problem.operands[0].type.nbytes + problem.outputs[0].nbytes
        return LATENCY_US + max(compute, problem.typical(nbytes) / L2_BYTES_PER_US)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        u, threads = _known(problem), int(config["threads"])
        _, stride_h, stride_w = u.window.strides
        constants = {
            "IC": u.ic, "OC": u.oc, "STRIDE_H": stride_h, "STRIDE_W": stride_w, "PIXELS": u.pixels(config),
            "OUTPUTS": u.runs(config), "ALONG_WIDTH": int(u.along_width), "THREADS": threads,
        }  # fmt: skip
        dtype = problem.operands[1].type.dtype
        seen = _without_channels(problem) if u.along_width else problem
        module = emit.module("upsample.cu", seen, constants, {"KIND": dtype.name})
        items = u.items(config)
        args = (Ptr(0), Ptr(1), *(Int(d, 32) for d in (items, *u.window.input[1:])), *module.args)
        options = (("warps", threads // 32), ("shared", u.weight_bytes), ("cluster", 1), ("pdl", True))
        packed = TensorType(dtype, (math.prod(u.window.strides), u.ic, u.oc))
        return KernelCode(
            "cuda", module.text, (Launch("kernel", (ceildiv(items, threads),), args, options),),
            (Pack(1, "taps_of_upsampling", (), packed),),
        )  # fmt: skip


@transform("taps_of_upsampling")
def taps_of_upsampling(w: np.ndarray) -> np.ndarray:
    """A filter [IC, OC, *kernel] -> [taps, IC, OC]."""
    return np.ascontiguousarray(w.reshape(*w.shape[:2], -1).transpose(2, 0, 1))


def _known(problem: Problem) -> _Upsample:
    found = _upsample(problem)
    assert isinstance(found, _Upsample)
    return found


def _upsample(problem: Problem) -> _Upsample | Reason:
    dtype = element_types(problem, 2)
    if isinstance(dtype, Reason):
        return dtype
    if dtype not in (dt.f16, dt.bf16):
        return Reason(f"multiplies f16 and bf16, not {dtype}")
    ic, oc, *kernel = problem.operands[1].type.shape
    if problem.attr("layout") != "NHWC" or problem.attr("groups") != 1 or len(kernel) > 2:
        return Reason("computes channels last, with one group, over at most two axes")
    if not problem.operands[1].constant or not isinstance(ic, int) or not isinstance(oc, int):
        return Reason("needs a constant filter, to store it by tap")
    attrs: dict[str, Any] = dict(problem.attrs)
    padded = any(attrs["pads"]) or any(attrs.get("output_padding", ()))
    if tuple(kernel) != tuple(problem.attr("strides")) or padded or any(d != 1 for d in problem.attr("dilations")):
        return Reason("computes windows that do not overlap: kernels like their strides, without padding")
    window = window_of(problem, kernel)
    if isinstance(window, Reason):
        return window
    whole_rows = RUN % window.strides[2] == 0 and divides(problem, window.output[2], RUN) and problem.into is None
    if ic % RUN or not (oc % RUN == 0 or (oc == 1 and whole_rows)):
        return Reason(f"stores runs of {RUN} channels, or of one channel along the width, not {problem.outputs[0]}")
    return _Upsample(window, ic, oc)


def _without_channels(problem: Problem) -> Problem:
    """The problem whose output lacks its last axis, which has size one."""
    out = problem.outputs[0]
    result = problem.result or out
    last = {f"i{out.rank - 1}": ex.lit(0, dt.i64)}
    epilogue = None if problem.epilogue is None else exprtree.substitute_axes(problem.epilogue, last)
    outputs = (TensorType(out.dtype, out.shape[:-1]),)
    return replace(problem, outputs=outputs, result=TensorType(result.dtype, result.shape[:-1]), epilogue=epilogue)


register(ConvTranspose())
